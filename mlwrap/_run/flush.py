"""What becomes of a run that has ended: MLflow is told of it, and somebody may wait for that.

By default the end of a run waits. With ``wait=False`` it only hangs up, which tells the sender that the run
is over. Whoever wants to know asks later; and the end of the process waits for the runs that nobody has
asked for, for all of them together no longer than for one.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
import time
from typing import NamedTuple

from mlwrap._capture.redact import Redactor
from mlwrap._process import shutdown
from mlwrap._process.console import lost_folder
from mlwrap._recording.recorder import Recorder
from mlwrap._recording.sender_link import SenderLink
from mlwrap._spool.delivered_runs import find_delivered
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import DeliveryError, JournalError, describe_error, warn

_GRACE_SECONDS = 0.5  # after the deadline, for the runs whose answer is there already
_CHECKED_AT_ONCE = 2  # earlier runs, whenever one is left: so that those that are delivered do not pile up


class RunDelivery:
    """One run's way to MLflow, from its end on.

    Args:
        recorder: The run.
        wait: Whether its end waits until MLflow has all of it.
        deadline: Seconds without progress after which waiting ends.
    """

    def __init__(self, recorder: Recorder, *, wait: bool, deadline: float) -> None:
        self._recorder = recorder
        self._wait = wait
        self._deadline = deadline
        self._delivered = False
        self._lock = threading.Lock()  # of threads that wait at once one asks

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to wait for, or no more."""
        return self._delivered or self._recorder.offline or self._recorder.lost

    @property
    def blocks(self) -> bool:
        """Whether to :meth:`start` does: where no sender delivers it, this process has to."""
        return not self.is_done and (self._wait or self._recorder.sender_link is None)

    @property
    def is_deferred(self) -> bool:
        """Whether the end did not wait for it, and nobody has since."""
        return not self.is_done and not self.blocks

    def start(self) -> None:
        """The run's journal is closed: let MLflow have it."""
        recorder = self._recorder
        with self._lock:
            try:
                recorder.find_lost()
                if self.blocks:
                    self._deliver_or_wait(math.inf)
            finally:
                recorder.release()
            if self.is_deferred and recorder.sender_link is not None:
                _add_pending(
                    recorder.key,
                    _PendingRun(recorder.name, recorder.folder, recorder.sender_link, self._deadline),
                )

    def wait(self, timeout: float | None) -> bool:
        """See :meth:`mlwrap.Run.wait`."""
        recorder = self._recorder
        if not recorder.recording:  # in a child made by fork
            return True
        with self._lock:
            _pending.pop(recorder.key, None)
            if not self.is_done:
                try:
                    self._deliver_or_wait(math.inf if timeout is None else timeout)
                finally:
                    if recorder.sender_link is not None:
                        recorder.sender_link.close()
        return self._delivered or (recorder.offline and not recorder.lost)

    def _deliver_or_wait(self, timeout: float) -> None:
        recorder, folder = self._recorder, self._recorder.folder
        try:
            if folder.exists():
                if recorder.sender_link is None:
                    from mlwrap._delivery.deliver import deliver  # noqa: PLC0415 - loads MLflow

                    recorder.delivered(deliver(folder))
                else:
                    self._ask(recorder.sender_link, timeout)
                self._delivered = True
                return
        except Exception as failure:  # noqa: BLE001 - the user's own result goes before any trouble of ours
            if folder.exists():
                with contextlib.suppress(JournalError, OSError):  # of what MLflow has so far
                    recorder.delivered(folder.progress())
                recorder.warn(_not_yet(describe_error(failure), folder))
                return
        self._delivered = not recorder.find_lost()

    def _ask(self, line: SenderLink, timeout: float) -> None:
        """Wait for the sender, which goes on without us if it takes too long."""
        answer = line.wait(self._deadline, timeout)
        if answer is not None:
            self._recorder.delivered(answer.progress)
        if answer is None or not answer.progress.ended:
            raise DeliveryError((answer and answer.error) or _STILL_DELIVERING)


_STILL_DELIVERING = "the sender is still at it."


def _not_yet(why: str, folder: RunFolder) -> str:
    with contextlib.suppress(JournalError, OSError):
        progress = folder.progress()
        if progress.held and progress.refused_tag:  # all else is delivered, and this may never be
            return (
                f"{why} That stays in {folder.path}: 'mlwrap sync' tries it again, and "
                f"'mlwrap clean {folder.key}' removes it."
            )
    return f"MLflow does not have all of it yet: {why} It waits in {folder.path}; 'mlwrap sync' delivers it."


class _PendingRun(NamedTuple):
    """A run that has ended, and that nobody has waited for."""

    name: str
    folder: RunFolder
    line: SenderLink
    deadline: float


_pending: dict[str, _PendingRun] = {}  # by key
_changing = threading.RLock()  # a signal's handler may come in the middle


def _add_pending(key: str, run: _PendingRun) -> None:
    with _changing:
        _pending[key] = run
        for other in list(itertools.islice(_pending, _CHECKED_AT_ONCE)):
            earlier = _pending.pop(other)
            if _is_pending(earlier):
                _pending[other] = earlier


def _is_pending(run: _PendingRun) -> bool:
    """Whether a run has not been delivered yet; one whose folder is lost will never be, which is said."""
    if run.folder.exists():
        return True
    if find_delivered(run.folder) is None:
        warn(Redactor().text(f"run {run.name!r}: {lost_folder(run.folder.path)}"))
    return False


@shutdown.at_exit
def _wait_for_pending() -> None:
    """The process ends: wait for what the sender still delivers, as long as that makes progress."""
    why = None
    try:
        why = _ask_for_each()
    except KeyboardInterrupt:
        why = "the waiting was interrupted."
    except Exception as failure:  # noqa: BLE001 - nothing of ours may change how the process ends
        why = describe_error(failure)
    waiting = [run for run in _pending.values() if _is_pending(run)]
    if len(waiting) == 1:
        warn(
            Redactor().text(
                f"run {waiting[0].name!r}: {_not_yet(why or _STILL_DELIVERING, waiting[0].folder)}"
            )
        )
    elif waiting:
        warn(
            Redactor().text(
                f"MLflow does not have all of {len(waiting)} runs yet: {why or _STILL_DELIVERING} "
                f"They wait in {waiting[0].folder.path.parent}; 'mlwrap sync' delivers them."
            )
        )


def _ask_for_each() -> str | None:
    """Wait for one after the other; why not all of them are delivered."""
    why = None
    heard: dict[str, float] = {}  # until the sender has said a word it may take its time to start
    until = time.monotonic() + max((run.deadline for run in _pending.values()), default=0.0)
    for key, run in list(_pending.items()):
        seconds = until - time.monotonic()
        if seconds < -_GRACE_SECONDS:
            break
        seconds = max(seconds, _GRACE_SECONDS / 10)
        try:
            answer = run.line.wait(seconds, **heard)
        except DeliveryError:
            if _is_pending(run):
                raise
            _pending.pop(key, None)
            continue
        finally:
            run.line.close()
        if (answer is not None and answer.progress.ended) or not _is_pending(run):
            _pending.pop(key, None)
            until = time.monotonic() + run.deadline
        elif answer is None and not heard:
            break
        heard = {"patience": 0.0}
        why = (answer and answer.error) or why
    return why


def _forget_in_child() -> None:
    """In a child made by ``fork``: the runs are the parent's to wait for."""
    global _changing  # noqa: PLW0603 - another thread of the parent's may have held it
    _changing = threading.RLock()
    _pending.clear()


os.register_at_fork(after_in_child=_forget_in_child)
