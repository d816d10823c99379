"""Order the runs of one store by the time at which they are due for delivery."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import deque

from mlwrap._delivery.threads import LONG_SECONDS, Slots
from mlwrap._sender.served_run import ServedRun


class DeliveryQueue:
    """Runs of one store in the order in which they are due, first those with a waiter.

    Args:
        store: The store's tracking URI.

    Attributes:
        in_progress: The runs that are being delivered.
    """

    def __init__(self, store: str) -> None:
        self.in_progress: Slots[ServedRun] = Slots(store)
        self._urgent: deque[ServedRun] = deque()
        self._timers: list[
            tuple[float, int, ServedRun]
        ] = []  # an entry is stale if its run's due time differs
        self._numbers = itertools.count()

    def schedule(self, run: ServedRun) -> None:
        """Add a run at its due time; call it again whenever that changes."""
        if run.has_waiter and run.due <= time.monotonic():
            self._urgent.append(run)
        elif run.due < math.inf:
            heapq.heappush(self._timers, (run.due, next(self._numbers), run))

    def take(self) -> ServedRun | None:
        """Return the first run that is due; ``None`` if none is, or while all slots are in use."""
        if not self.in_progress.has_room:
            return None
        now = time.monotonic()
        while self._urgent:
            if (run := self._urgent.popleft()).due <= now:
                return run
        while self._timers and self._timers[0][0] <= now:
            due, _, run = heapq.heappop(self._timers)
            if run.due == due:
                return run
        return None

    def pause(self) -> float:
        """Return the seconds until a run is due and a slot may be free; infinite if no run is scheduled."""
        while self._timers and self._timers[0][2].due != self._timers[0][0]:
            heapq.heappop(self._timers)
        if not self._urgent and not self._timers:
            return math.inf
        pause = 0.0 if self._urgent else max(0.0, self._timers[0][0] - time.monotonic())
        return pause if self.in_progress.has_room else max(pause, LONG_SECONDS)
