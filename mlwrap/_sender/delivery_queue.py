"""Which run is to be delivered next?"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import deque

from mlwrap._delivery.threads import STUCK_SECONDS, Slots
from mlwrap._sender.served_run import ServedRun


class DeliveryQueue:
    """Runs of one store in the order in which they are due; those that somebody waits for first.

    Attributes:
        at_work: The runs that are being delivered.
    """

    def __init__(self) -> None:
        self.in_progress: Slots[ServedRun] = Slots()
        self._urgent: deque[ServedRun] = deque()
        self._timers: list[
            tuple[float, int, ServedRun]
        ] = []  # one whose run is due at another time by now counts not
        self._numbers = itertools.count()

    def schedule(self, run: ServedRun) -> None:
        """Note when a run is due; as often as that changes."""
        if run.has_waiter and run.due <= time.monotonic():
            self._urgent.append(run)
        elif run.due < math.inf:
            heapq.heappush(self._timers, (run.due, next(self._numbers), run))

    def take(self) -> ServedRun | None:
        """The first run that is due, to be delivered now; ``None`` while there is no room for another."""
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
        """Seconds until the first is due, or until there is room for it; infinite for never."""
        while self._timers and self._timers[0][2].due != self._timers[0][0]:
            heapq.heappop(self._timers)
        if not self._urgent and not self._timers:
            return math.inf
        pause = 0.0 if self._urgent else max(0.0, self._timers[0][0] - time.monotonic())
        return pause if self.in_progress.has_room else max(pause, STUCK_SECONDS)
