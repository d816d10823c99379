"""Threads that deliver side by side, of which none waits for another that gets nowhere."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from mlwrap._journal.progress import Progress

T = TypeVar("T", bound=Hashable)

_MAX_PROGRESSING = 8  # deliveries to one store; more would only share its time
# Of them with those that get nowhere. MLflow opens 15 connections to an SQL store; who waits for another one
# for 30 s is refused.
_MAX_DELIVERIES = 14
STUCK_SECONDS = 1.0  # without progress: from then on others need not wait for it


class DaemonThreads:
    """Does work in threads that are kept for more of it; one that hangs keeps no process alive."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Have something done, which must not raise."""
        self._work.put(work)
        if self._idle.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._run, name="mlwrap-delivery", daemon=True).start()
            self._threads += 1
        except RuntimeError:  # no more can be started: one of those that there are does it later
            if not self._threads:
                self._work.get()
                work()

    def close(self) -> None:
        """Let the threads end, once they have done what they are at."""
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            self._idle.release()


class Slots(Generic[T]):
    """What is being delivered to one store, and whether there is room for more.

    What has made no progress for a second does not take up room.
    """

    def __init__(self) -> None:
        self._moved: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._moved)

    def start(self, item: T) -> None:
        """Its delivery begins."""
        self._moved[item] = time.monotonic()

    def note_progress(self, item: T) -> None:
        """It makes progress; any thread may say so."""
        if item in self._moved:
            self._moved[item] = time.monotonic()

    def end(self, item: T) -> bool:
        """Its delivery is over, or given up; ``False`` if it was given up before."""
        return self._moved.pop(item, None) is not None

    def stuck(self) -> dict[T, float]:
        """What has made no progress for a second or more, and for how many."""
        now = time.monotonic()
        idle = {item: now - moved for item, moved in list(self._moved.items())}
        return {item: seconds for item, seconds in idle.items() if seconds >= STUCK_SECONDS}

    @property
    def has_room(self) -> bool:
        """Whether another one can begin."""
        return len(self) < _MAX_DELIVERIES and len(self) - len(self.stuck()) < _MAX_PROGRESSING


def on_change(moved: Callable[[], None]) -> Callable[[Progress], None]:
    """What to tell each progress of a delivery, so that ``moved`` is called whenever MLflow has got more."""
    delivered: tuple[object, ...] = ()

    def note(progress: Progress) -> None:
        nonlocal delivered
        if (now := progress.delivered()) != delivered:
            delivered = now
            moved()

    return note


@contextlib.contextmanager
def ticking(seconds: int, tick: Callable[[int], None]) -> Iterator[None]:
    """Call ``tick`` each second of the block, with how many have passed, up to ``seconds``."""
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
