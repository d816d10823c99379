"""``Clock``: timestamps for the data points of a run."""

from __future__ import annotations

from time import time_ns


class Clock:
    """Gives timestamps that follow the order of logging, even if the machine's clock is set back.

    MLflow identifies a data point by its name, step, time and value. The latest point of the highest step is
    the metric's value.
    """

    def __init__(self) -> None:
        self._time = self._step = -1

    def time(self, step: int) -> int:
        """Return the time for a point of ``step``, in milliseconds since the epoch.

        It is never before the previous time, and it is after that unless the step has increased.
        """
        time = time_ns() // 1_000_000
        # The lines below call nothing, so that no other thread and no signal handler can interrupt them. A
        # lock would take a twentieth of the time of a call to log_metrics.
        if time <= self._time:
            time = self._time if step > self._step else self._time + 1
        self._time = time
        self._step = step
        return time
