"""How fast a training goes, and how long it will take."""

from __future__ import annotations

import re
import time

_SPEED = re.compile(r"(seconds_left|epoch_seconds|_per_second)$")


def is_speed(name: str) -> bool:
    """Whether a metric tells how fast a training went, and not how good its model is."""
    return _SPEED.search(name) is not None


class Throughput:
    """Counts steps, batches or samples.

    Args:
        total: How many there will be, if that is known.

    Attributes:
        done: How many there were.
    """

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.done = 0
        self._began = time.monotonic()
        self._told = self._first = (0, self._began)

    def advance(self, count: int) -> None:
        """So many more are done."""
        if not self.done:  # the first takes longer: what is compiled is compiled then
            self._first = (count, time.monotonic())
        self.done += count

    def elapsed(self, seconds: float) -> bool:
        """Whether so much time has passed since the pace was told."""
        return time.monotonic() - self._told[1] >= seconds

    def metrics(self, name: str) -> dict[str, float]:
        """The pace since it was last told, as ``name``, and ``seconds_left``; what is known of it."""
        now, found = time.monotonic(), {}
        before, when = self._told
        if now > when:
            found[name] = (self.done - before) / (now - when)
        self._told = (self.done, now)
        return found | self.time_left()

    def time_left(self) -> dict[str, float]:
        """``seconds_left`` at the pace since the first step, or at its own; nothing if no end is known."""
        if self.total is None or not self.done:
            return {}
        count, since = self._first if self.done > self._first[0] else (0, self._began)
        pace = (time.monotonic() - since) / (self.done - count)
        return {"seconds_left": max(self.total - self.done, 0) * pace}
