"""What a run has said already: a parameter never changes, a point counts once, and time goes forward."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from mlwrap._capture import rename
from mlwrap._journal import Metrics, Number, now


class Changed(NamedTuple):
    """A parameter that came again with another value."""

    name: str
    before: str
    now_called: str


class Parameters:
    """The parameters of a run so far."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def fresh(self, values: Mapping[str, str]) -> tuple[dict[str, str], list[Changed]]:
        """Those of ``values`` that are to be written, and those of them under another name."""
        fresh: dict[str, str] = {}
        changed: list[Changed] = []
        for name, text in values.items():
            before = self._values.get(name)
            if before is None:
                fresh[name] = text
            elif before != text:
                others = (rename(f"{name}.{number}") for number in itertools.count(2))
                free = next(other for other in others if other not in self._values and other not in values)
                fresh[free] = text
                changed.append(Changed(name, before, free))
        self._values |= fresh
        return fresh, changed


class Points:
    """The metrics that were found in models and histories so far; a History is often met more than once."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, int], Number] = {}

    def fresh(self, record: Metrics, prefix: str) -> dict[str, Number]:
        """Those of a record that are to be written.

        Args:
            record: Metrics that were found.
            prefix: What stands before the name of one that has another value at that step already.
        """
        fresh: dict[str, Number] = {}
        for own, value in record.values.items():
            known = self._values.get((own, record.step), value)
            name = f"{prefix}/{own}" if known != value and prefix else own
            if self._values.get((name, record.step)) != value:
                self._values[name, record.step] = value
                fresh[rename(name)] = value
        return fresh


class Clock:
    """The times of a run's points, in the order in which they were logged, whatever the machine's clock does.

    MLflow knows a point by its name, step, time and value, and takes the latest one of the highest step for
    the metric's value.
    """

    def __init__(self) -> None:
        self._time = self._step = -1

    def time(self, step: int) -> int:
        """Milliseconds for a point of ``step``: not before the last, and after it if the step is not."""
        self._time = max(now(), self._time if step > self._step else self._time + 1)
        self._step = step
        return self._time
