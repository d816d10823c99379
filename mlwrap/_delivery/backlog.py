"""Deliver the runs that wait in a spool, independently of each other: a failure affects only its own run.

``mlwrap sync`` uses it, and each sender uses it for the runs that dead processes have left.
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
from mlwrap._delivery.threads import LONG_SECONDS, DaemonThreads, Slots, on_change
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import header
from mlwrap._spool.ownership import ForeignFolder
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import JournalError, describe_error

_PATIENCE_SECONDS = 60.0  # without progress; one request may take twenty
_SLOWEST_BYTES = 100_000.0  # per second; a file that is being uploaded makes no progress until it has arrived


class BacklogResult(NamedTuple):
    """How the delivery of one run folder ended.

    Attributes:
        folder: The folder; removed if all of it was delivered.
        progress: What MLflow has; ``None`` if the folder could not be delivered.
        error: Why it could not be delivered; ``None`` if it was.
        foreign: Whether it belongs to another user; it was not touched.
    """

    folder: RunFolder
    progress: Progress | None
    error: str | None
    foreign: bool = False


T = TypeVar("T")
Deliver = Callable[[RunFolder, Callable[[Progress], None]], Progress]


def patience_for(folder: RunFolder) -> float:
    """Return after how many seconds without progress the delivery of a run folder is given up."""
    with contextlib.suppress(OSError, ValueError):
        request = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "0"))
        return max(_PATIENCE_SECONDS, 2 * request) + folder.size() / _SLOWEST_BYTES
    return _PATIENCE_SECONDS


def deliver_backlog(
    folders: Iterable[RunFolder],
    deliver: Deliver,
    patience: Callable[[RunFolder], float] = patience_for,
) -> Iterator[BacklogResult]:
    """Deliver run folders in parallel; skip those that are gone or still being written.

    Args:
        folders: The folders to deliver; those of one store are delivered in this order.
        deliver: Delivers one folder; its second argument is called with each progress.
        patience: Returns the seconds without progress after which a folder is given up. Its thread continues,
            but keeps no process alive.

    Yields:
        The outcome of each folder, as soon as it is known.
    """
    waiting_by_store: dict[str, deque[RunFolder]] = defaultdict(deque)  # by store
    ended: queue.SimpleQueue[tuple[str, BacklogResult]] = queue.SimpleQueue()
    threads = DaemonThreads()
    for folder in folders:
        waiting_by_store[_store_of(folder)].append(folder)
    slots_by_store: dict[str, Slots[RunFolder]] = {store: Slots(store) for store in waiting_by_store}

    def work(store: str, folder: RunFolder) -> None:
        ended.put((store, _deliver(folder, deliver, slots_by_store[store].note_progress)))

    with contextlib.closing(threads):
        while any(waiting_by_store.values()) or any(slots_by_store.values()):
            for store, runs in waiting_by_store.items():
                while runs and slots_by_store[store].has_room:
                    folder = runs.popleft()
                    slots_by_store[store].start(folder)
                    threads.submit(functools.partial(work, store, folder))
            for store, outcome in _next(ended, LONG_SECONDS):
                was_given_up = not slots_by_store[store].end(outcome.folder)
                if not was_given_up and (outcome.progress, outcome.error) != (None, None):
                    yield outcome
            for store, slots in slots_by_store.items():
                for folder, seconds in slots.stuck().items():
                    if seconds > patience(folder):
                        slots.end(folder)
                        yield _give_up(folder, store, seconds)


def _give_up(folder: RunFolder, store: str, seconds: float) -> BacklogResult:
    why = f"its delivery to {store} made no progress for {seconds:.0f} s, and was given up."
    folder.note_reason(why)
    _stuck.append(folder)
    return BacklogResult(folder, None, why)


def _deliver(folder: RunFolder, deliver: Deliver, on_moved: Callable[[RunFolder], None]) -> BacklogResult:
    """Deliver one run folder; every error becomes its outcome."""
    try:
        if not mark_dead_run_killed(folder, 0):
            return BacklogResult(folder, None, None)
        progress = deliver(folder, on_change(functools.partial(on_moved, folder)))
    except ForeignFolder as error:
        return BacklogResult(folder, None, str(error), foreign=True)
    except BaseException as error:  # noqa: BLE001 - see the docstring; also SystemExit
        if folder.path.exists():
            return BacklogResult(folder, None, describe_error(error))
        return BacklogResult(folder, None, None)  # another process was faster
    if not progress.ended:
        return BacklogResult(folder, None, f"the end of the run can't be read in {folder.journal}.")
    return BacklogResult(folder, progress, None)


def _store_of(folder: RunFolder) -> str:
    """Return the store of a run; for one that can't be read, its own path, so that it waits for no other."""
    try:
        folder.check()
        return header(folder.journal).tracking_uri
    except (JournalError, OSError):
        return str(folder.path)


def _next(ended: queue.SimpleQueue[T], seconds: float) -> Iterator[T]:
    """Yield all outcomes that are ready; wait at most ``seconds`` for the first."""
    with contextlib.suppress(queue.Empty):
        yield ended.get(timeout=seconds)
        while True:
            yield ended.get_nowait()


_stuck: list[RunFolder] = []


def is_stuck() -> bool:
    """Return whether a thread of this process may still run a delivery that was given up."""
    return bool(_stuck)
