"""The runs that wait in a spool, each delivered on its own: what goes wrong with one costs no other anything.

``mlwrap sync`` delivers them by this, and each sender what dead processes have left.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from mlwrap._delivery.dead_runs import mark_dead_run_killed
from mlwrap._delivery.threads import STUCK_SECONDS, DaemonThreads, Slots, on_change
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import header
from mlwrap._spool.ownership import ForeignFolder
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import JournalError, describe_error

_PATIENCE_SECONDS = 60.0  # without progress; a request may take twenty
_SLOWEST_BYTES = 100_000.0  # a second, of a file that is uploaded: it makes no progress before it is there


class Outcome(NamedTuple):
    """How the delivery of one run folder ended.

    Attributes:
        folder: The folder; removed if all of it was delivered.
        progress: What MLflow has; ``None`` if the folder could not be delivered.
        error: Why it could not be.
        foreign: Whether it belongs to another user; it was not touched.
    """

    folder: RunFolder
    progress: Progress | None
    error: str | None
    foreign: bool = False


T = TypeVar("T")
Deliver = Callable[[RunFolder, Callable[[Progress], None]], Progress]


def patience_for(folder: RunFolder) -> float:
    """For how many seconds without progress a run folder's delivery is not given up."""
    with contextlib.suppress(OSError, ValueError):
        request = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "0"))
        return max(_PATIENCE_SECONDS, 2 * request) + folder.size() / _SLOWEST_BYTES
    return _PATIENCE_SECONDS


def deliver_backlog(
    folders: Iterable[RunFolder],
    deliver: Deliver,
    patience: Callable[[RunFolder], float] = patience_for,
) -> Iterator[Outcome]:
    """Deliver run folders side by side; those that are gone, or still being written, are passed over.

    Args:
        folders: What to deliver, in this order as far as there are several for one store.
        deliver: Delivers one; is told what to call with each progress.
        patience: Seconds without progress after which one is given up. The thread that is at it goes on, and
            keeps no process alive.

    Yields:
        How each ended, as soon as it has.
    """
    waiting: dict[str, deque[RunFolder]] = defaultdict(deque)  # by store
    at_work: dict[str, Slots[RunFolder]] = defaultdict(Slots)
    ended: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
    threads = DaemonThreads()
    for folder in folders:
        waiting[_store_of(folder)].append(folder)

    def work(store: str, folder: RunFolder) -> None:
        ended.put((store, _deliver(folder, deliver, at_work[store].note_progress)))

    with contextlib.closing(threads):
        while any(waiting.values()) or any(at_work.values()):
            for store, runs in waiting.items():
                while runs and at_work[store].has_room:
                    folder = runs.popleft()
                    at_work[store].start(folder)
                    threads.submit(functools.partial(work, store, folder))
            for store, outcome in _next(ended, STUCK_SECONDS):
                given_up = not at_work[store].end(outcome.folder)
                if not given_up and (outcome.progress, outcome.error) != (None, None):
                    yield outcome
            for store, slots in at_work.items():
                for folder, seconds in slots.stuck().items():
                    if seconds > patience(folder):
                        slots.end(folder)
                        yield _give_up(folder, store, seconds)


def _give_up(folder: RunFolder, store: str, seconds: float) -> Outcome:
    why = f"its delivery to {store} made no progress for {seconds:.0f} s, and was given up."
    folder.note_reason(why)
    _stuck.append(folder)
    return Outcome(folder, None, why)


def _deliver(folder: RunFolder, deliver: Deliver, moved: Callable[[RunFolder], None]) -> Outcome:
    """Deliver one run folder; whatever goes wrong is its own matter."""
    try:
        if not mark_dead_run_killed(folder, 0):
            return Outcome(folder, None, None)
        progress = deliver(folder, on_change(functools.partial(moved, folder)))
    except ForeignFolder as error:
        return Outcome(folder, None, str(error), foreign=True)
    except BaseException as error:  # noqa: BLE001 - see above; SystemExit, too
        if folder.path.exists():
            return Outcome(folder, None, describe_error(error))
        return Outcome(folder, None, None)  # another process was faster
    if not progress.ended:
        return Outcome(folder, None, f"the end of the run can't be read in {folder.journal}.")
    return Outcome(folder, progress, None)


def _store_of(folder: RunFolder) -> str:
    """Where a run is to be delivered; of one that can't be read its own path, for it waits for no other."""
    try:
        folder.check()
        return header(folder.journal).tracking_uri
    except (JournalError, OSError):
        return str(folder.path)


def _next(ended: queue.SimpleQueue[T], seconds: float) -> Iterator[T]:
    """All that has ended; waits for the first, but for so many seconds at most."""
    with contextlib.suppress(queue.Empty):
        yield ended.get(timeout=seconds)
        while True:
            yield ended.get_nowait()


_stuck: list[RunFolder] = []


def is_stuck() -> bool:
    """Whether a thread of this process may still be at a delivery that was given up."""
    return bool(_stuck)
