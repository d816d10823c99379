"""Which run is to be delivered next?"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import deque

from mlwrap._delivery.served import Served


class Due:
    """Runs in the order in which they are due; those that somebody waits for first."""

    def __init__(self) -> None:
        self._urgent: deque[Served] = deque()
        self._timers: list[
            tuple[float, int, Served]
        ] = []  # one whose run is due at another time by now counts not
        self._numbers = itertools.count()

    def note(self, run: Served) -> None:
        """Note when a run is due; as often as that changes."""
        if run.asked and run.due <= time.monotonic():
            self._urgent.append(run)
        elif run.due < math.inf:
            heapq.heappush(self._timers, (run.due, next(self._numbers), run))

    def take(self) -> Served | None:
        """The first run that is due, to be delivered now."""
        now = time.monotonic()
        while self._urgent:
            if (run := self._urgent.popleft()).due <= now:
                return run
        while self._timers and self._timers[0][0] <= now:
            due, _, run = heapq.heappop(self._timers)
            if run.due == due:
                return run
        return None

    def pause(self) -> float | None:
        """Seconds until the first is due; ``None`` for never."""
        if self._urgent:
            return 0.0
        while self._timers and self._timers[0][2].due != self._timers[0][0]:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
