"""The times of a run's points."""

from __future__ import annotations

from time import time_ns


class Clock:
    """The times of a run's points, in the order in which they were logged, whatever the machine's clock does.

    MLflow knows a point by its name, step, time and value, and takes the latest one of the highest step for
    the metric's value.
    """

    def __init__(self) -> None:
        self._time = self._step = -1

    def time(self, step: int) -> int:
        """Milliseconds for a point of ``step``: not before the last, and after it if the step is not."""
        time = time_ns() // 1_000_000
        # From here on nothing is called, so that no other thread and no signal's handler comes in between. A
        # lock would take a twentieth of the time of a call to log_metrics.
        if time <= self._time:
            time = self._time if step > self._step else self._time + 1
        self._time = time
        self._step = step
        return time
