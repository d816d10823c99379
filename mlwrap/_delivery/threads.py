"""Threads for parallel deliveries, of which none waits for one that makes no progress."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from mlwrap._journal.progress import Progress

T = TypeVar("T", bound=Hashable)

_MAX_NEW = 8  # deliveries to one store that have just begun; more would not be faster
# Including those that take long. MLflow opens at most 15 connections to an SQL store; a request that waits
# 30 s for one fails.
_MAX_DELIVERIES, _MAX_DELIVERIES_TO_SERVER = 14, 32
LONG_SECONDS = 1.0  # after this time a delivery, such as of a large file, does not hold up others


class DaemonThreads:
    """A pool of daemon threads, so that one that hangs does not keep the process alive."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work``, which must not raise, in a thread."""
        self._work.put(work)
        if self._idle.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._run, name="mlwrap-delivery", daemon=True).start()
            self._threads += 1
        except RuntimeError:  # no more threads are available: an existing one does it later
            if not self._threads:
                self._work.get()
                work()

    def close(self) -> None:
        """End the threads after their present work."""
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            self._idle.release()


class Slots(Generic[T]):
    """The running deliveries to one store, limited in number.

    Args:
        store: The store's tracking URI.
    """

    def __init__(self, store: str) -> None:
        is_server = store.startswith(("http:", "https:"))
        self._max_deliveries = _MAX_DELIVERIES_TO_SERVER if is_server else _MAX_DELIVERIES
        self._began: dict[T, float] = {}
        self._moved: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._moved)

    def start(self, item: T) -> None:
        """Note that the delivery of an item begins."""
        self._began[item] = self._moved[item] = time.monotonic()

    def note_progress(self, item: T) -> None:
        """Note that the delivery of an item makes progress; any thread may call this."""
        if item in self._moved:
            self._moved[item] = time.monotonic()

    def end(self, item: T) -> bool:
        """Note that the delivery of an item is over or given up; return whether it was still counted."""
        self._began.pop(item, None)
        return self._moved.pop(item, None) is not None

    def stuck(self) -> dict[T, float]:
        """Return the items without progress for ``LONG_SECONDS`` or more, each with its idle seconds."""
        now = time.monotonic()
        idle = {item: now - last_progress for item, last_progress in list(self._moved.items())}
        return {item: seconds for item, seconds in idle.items() if seconds >= LONG_SECONDS}

    @property
    def has_room(self) -> bool:
        """Whether another delivery can begin."""
        new_since = time.monotonic() - LONG_SECONDS
        new = sum(began > new_since for began in self._began.values())
        return len(self) < self._max_deliveries and new < _MAX_NEW


def on_change(moved: Callable[[], None]) -> Callable[[Progress], None]:
    """Return a function to call with each progress; it calls ``moved`` if MLflow has received more."""
    delivered: tuple[object, ...] = ()

    def note(progress: Progress) -> None:
        nonlocal delivered
        if (now := progress.delivered()) != delivered:
            delivered = now
            moved()

    return note


@contextlib.contextmanager
def ticking(seconds: int, tick: Callable[[int], None]) -> Iterator[None]:
    """Call ``tick`` each second in the block, with the number of seconds so far, up to ``seconds``."""
    done = threading.Event()

    def run() -> None:
        for passed in range(1, seconds + 1):
            if done.wait(1.0):
                return
            tick(passed)

    threading.Thread(target=run, name="mlwrap-ticks", daemon=True).start()
    try:
        yield
    finally:
        done.set()
