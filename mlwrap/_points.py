"""What a training logs at every step: names, numbers and a time. Made for microseconds."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from mlwrap._capture import rename
from mlwrap._journal import now
from mlwrap.errors import told


def numbers_of(values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """The numbers of one step, under names that MLflow takes; and what is no number, with the reason."""
    try:
        return dict(zip(_fitting(tuple(values)), map(float, values.values()), strict=True)), {}
    except Exception:  # noqa: BLE001 - whatever a value's own __float__ raises; one by one it is found out which
        numbers: dict[str, float] = {}
        wrong: dict[str, str] = {}
        for name, value in values.items():
            try:
                numbers[rename(str(name))] = float(value)
            except Exception as error:  # noqa: BLE001 - likewise
                wrong[str(name)] = told(error)
        return numbers, wrong


@functools.lru_cache(256)
def _fitting(names: tuple[str, ...]) -> tuple[str, ...]:
    """A step's names: a training logs the same few at every step."""
    return tuple(rename(str(name)) for name in names)


class Clock:
    """The times of a run's points, in the order in which they were logged, whatever the machine's clock does.

    MLflow knows a point by its name, step, time and value, and takes the latest one of the highest step for
    the metric's value.
    """

    def __init__(self) -> None:
        self._time = self._step = -1

    def time(self, step: int) -> int:
        """Milliseconds for a point of ``step``: not before the last, and after it if the step is not."""
        time, earliest = now(), self._time if step > self._step else self._time + 1
        self._time, self._step = max(earliest, time), step
        return self._time
