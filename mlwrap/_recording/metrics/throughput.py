"""``Throughput``: the speed of a training, and the remaining time."""

from __future__ import annotations

import re
import time

_SPEED = re.compile(r"(seconds_left|epoch_seconds|_per_second)$")


def is_speed(name: str) -> bool:
    """Return whether a metric measures the speed of a training, and not the quality of its model."""
    return _SPEED.search(name) is not None


class Throughput:
    """Counts steps, batches or samples, and measures their rate.

    Args:
        total: The expected count; ``None`` if it is unknown.

    Attributes:
        done: The count so far.
    """

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.done = 0
        self._began = time.monotonic()
        self._reported = self._first = (0, self._began)

    def advance(self, count: int) -> None:
        """Add ``count`` finished items."""
        if not self.done:  # the first step takes longer, because it includes compilation
            self._first = (count, time.monotonic())
        self.done += count

    def elapsed(self, seconds: float) -> bool:
        """Return whether ``seconds`` have passed since the rate was last reported."""
        return time.monotonic() - self._reported[1] >= seconds

    def metrics(self, name: str) -> dict[str, float]:
        """Return, if known, the rate since the last call as ``name`` (per second), and ``seconds_left``."""
        now, metrics = time.monotonic(), {}
        last_count, last_time = self._reported
        if now > last_time:
            metrics[name] = (self.done - last_count) / (now - last_time)
        self._reported = (self.done, now)
        return metrics | self.time_left()

    def time_left(self) -> dict[str, float]:
        """Return ``seconds_left`` at the average speed since the first step; nothing if no total is known.

        After only one step, it is the speed of that step.
        """
        if self.total is None or not self.done:
            return {}
        count, since = self._first if self.done > self._first[0] else (0, self._began)
        seconds_each = (time.monotonic() - since) / (self.done - count)
        return {"seconds_left": max(self.total - self.done, 0) * seconds_each}
