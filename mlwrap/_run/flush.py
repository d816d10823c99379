"""Deliver a run that has ended, and wait until MLflow has it.

By default the end of a run waits. With ``wait=False`` it only closes the connection, which tells the sender
that the run is over; ``run.wait()`` can wait later. The end of the process waits for all remaining runs
together, no longer than for a single one.
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
from mlwrap._recording.recorder import Recorder
from mlwrap._recording.sender_link import SenderLink
from mlwrap._spool.delivered_runs import find_delivered
from mlwrap._spool.run_folder import RunFolder, lost_message
from mlwrap.errors import DeliveryError, JournalError, describe_error, warn

_GRACE_SECONDS = 0.5  # after the deadline, for the runs whose answer has arrived already
_RETRY_SECONDS = 30.0  # after a failed attempt to create the run; code may ask for its id in a loop
_CHECKED_AT_ONCE = 2  # earlier runs that are checked when one is added, so that delivered ones don't pile up


class RunDelivery:
    """Delivers one run after its end, or waits for the sender to deliver it.

    Args:
        recorder: The run.
        wait: Whether the end of the run waits until MLflow has all of it.
        deadline: Seconds without progress after which waiting ends.
    """

    def __init__(self, recorder: Recorder, *, wait: bool, deadline: float) -> None:
        self._recorder = recorder
        self._wait = wait
        self._deadline = deadline
        self._created = False
        self._creation_failed: tuple[float, DeliveryError] | None = None  # when and why
        self._delivered = False
        self._lock = threading.Lock()  # several threads may wait; one at a time asks the sender

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._delivered or self._recorder.offline or self._recorder.lost

    @property
    def blocks(self) -> bool:
        """Whether :meth:`start` blocks: waiting was requested, or this process delivers the run itself."""
        return not self.is_done and (self._wait or self._recorder.sender_link is None)

    @property
    def is_deferred(self) -> bool:
        """Whether delivery continues in the background, and nothing has waited for it yet."""
        return not self.is_done and not self.blocks

    def create_run(self) -> str:
        """Create or reopen the run in MLflow if that is not done yet, and return MLflow's id.

        Nothing else is delivered. An attempt that failed is repeated after half a minute at the earliest.

        Raises:
            DeliveryError: MLflow did not answer, or refused the run.
            JournalError: The run folder can't be read.
        """
        recorder = self._recorder
        if not self._created:
            from mlwrap._delivery.create_run import create_run  # noqa: PLC0415 - loads MLflow

            if self._creation_failed is not None:
                when, why = self._creation_failed
                if time.monotonic() < when + _RETRY_SECONDS:
                    raise why
            try:
                progress = create_run(recorder.folder)
            except DeliveryError as error:
                self._creation_failed = time.monotonic(), error
                raise
            recorder.run_id, recorder.experiment_id = progress.run_id, progress.experiment_id
            self._created = True
        return str(recorder.run_id)

    def start(self) -> None:
        """Start delivery, after the run's journal was closed."""
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
        """Wait for delivery; see :meth:`mlwrap.Run.wait`."""
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
        except Exception as failure:  # noqa: BLE001 - the user's result comes before an error of mlwrap's
            if folder.exists():
                with contextlib.suppress(JournalError, OSError):  # report what MLflow has so far
                    recorder.delivered(folder.progress())
                recorder.warn(_undelivered_message(describe_error(failure), folder))
                return
        self._delivered = not recorder.find_lost()

    def _ask(self, sender_link: SenderLink, timeout: float) -> None:
        """Wait for the sender; if it takes too long, it continues in the background.

        Raises:
            DeliveryError: The run is not completely delivered.
        """
        answer = sender_link.wait(self._deadline, timeout)
        if answer is not None:
            self._recorder.delivered(answer.progress)
        if answer is None or not answer.progress.ended:
            raise DeliveryError((answer and answer.error) or _STILL_DELIVERING)


_STILL_DELIVERING = "the sender is still uploading."


def _undelivered_message(why: str, folder: RunFolder) -> str:
    with contextlib.suppress(JournalError, OSError):
        progress = folder.progress()
        if progress.held and progress.refused_tag:  # the rest is delivered; MLflow may never accept this
            return (
                f"{why} That stays in {folder.path}: 'mlwrap sync' tries it again, and "
                f"'mlwrap clean {folder.key}' removes it."
            )
    return f"MLflow does not have all of it yet: {why} It waits in {folder.path}; 'mlwrap sync' delivers it."


class _PendingRun(NamedTuple):
    """A run that has ended, and whose delivery was not waited for."""

    name: str
    folder: RunFolder
    line: SenderLink
    deadline: float


_pending: dict[str, _PendingRun] = {}  # by key
_changing = threading.RLock()  # reentrant, because a signal handler may interrupt the holder


def _add_pending(key: str, run: _PendingRun) -> None:
    with _changing:
        _pending[key] = run
        for earlier_key in list(itertools.islice(_pending, _CHECKED_AT_ONCE)):
            earlier_run = _pending.pop(earlier_key)
            if _is_pending(earlier_run):
                _pending[earlier_key] = earlier_run


def _is_pending(run: _PendingRun) -> bool:
    """Return whether a run is still to be delivered; warn if its folder is lost, so that it never will be."""
    if run.folder.exists():
        return True
    if find_delivered(run.folder) is None:
        warn(Redactor().text(f"run {run.name!r}: {lost_message(run.folder.path)}"))
    return False


@shutdown.at_exit
def _wait_for_pending() -> None:
    """Wait at the process's end for the runs that the sender still delivers, while it makes progress."""
    why = None
    try:
        why = _wait_for_each()
    except KeyboardInterrupt:
        why = "the waiting was interrupted."
    except Exception as failure:  # noqa: BLE001 - an error of mlwrap's may not change how the process ends
        why = describe_error(failure)
    runs = [run for run in _pending.values() if _is_pending(run)]
    if len(runs) == 1:
        warn(
            Redactor().text(
                f"run {runs[0].name!r}: {_undelivered_message(why or _STILL_DELIVERING, runs[0].folder)}"
            )
        )
    elif runs:
        warn(
            Redactor().text(
                f"MLflow does not have all of {len(runs)} runs yet: {why or _STILL_DELIVERING} "
                f"They wait in {runs[0].folder.path.parent}; 'mlwrap sync' delivers them."
            )
        )


def _wait_for_each() -> str | None:
    """Wait for one run after the other, and return why one was not delivered."""
    why = None
    patience_option: dict[
        str, float
    ] = {}  # until its first message, the sender gets the default time to start
    until = time.monotonic() + max((run.deadline for run in _pending.values()), default=0.0)
    for key, run in list(_pending.items()):
        seconds = until - time.monotonic()
        if seconds < -_GRACE_SECONDS:
            break
        seconds = max(seconds, _GRACE_SECONDS / 10)
        try:
            answer = run.line.wait(seconds, **patience_option)
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
        elif answer is None and not patience_option:
            break
        patience_option = {"patience": 0.0}
        why = (answer and answer.error) or why
    return why


def _forget_in_child() -> None:
    """Forget all runs in a child made by ``fork``: the parent waits for them."""
    global _changing  # noqa: PLW0603 - another thread of the parent may have held the old lock
    _changing = threading.RLock()
    _pending.clear()


os.register_at_fork(after_in_child=_forget_in_child)
