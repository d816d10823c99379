"""What a run has said already: a parameter never changes, and a point counts once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from mlwrap._capture import rename
from mlwrap._journal import Metrics, Number


class Changed(NamedTuple):
    """A parameter that came again with another value."""

    name: str
    before: str
    now_called: str


class Parameters:
    """The parameters of a run so far."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def missing(self, values: Mapping[str, str]) -> dict[str, str]:
        """Those whose names there are not yet."""
        return {name: text for name, text in values.items() if name not in self._values}

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


class Found:
    """The metrics that were found in models and histories so far; a History is often met more than once."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, int], Number] = {}

    def fresh(
        self, record: Metrics, prefix: str, live: Mapping[tuple[str, int], Number]
    ) -> dict[str, Number]:
        """Those of a record that are to be written.

        Args:
            record: Metrics that were found.
            prefix: What stands before the name of one that has another value at that step already.
            live: What was logged while the training went on, by name and step.
        """
        fresh: dict[str, Number] = {}
        for own, value in record.values.items():
            at = (rename(own), record.step)
            known = live.get(at, self._values.get(at, value))
            name, step = rename(f"{prefix}/{own}") if known != value and prefix else at[0], record.step
            if value not in (live.get((name, step)), self._values.get((name, step))):
                self._values[name, step] = value
                fresh[name] = value
        return fresh
