"""The data points that a run has logged: one that is met again counts once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._journal.records import Metrics, Number


class SeenPoints:
    """The metrics that were found in models and histories so far; a History is often met more than once.

    Attributes:
        newest: By name, the record with the newest point of those that were written.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, int], Number] = {}
        self.newest: dict[str, Metrics] = {}

    def noted(self, record: Metrics) -> Metrics:
        """The record, which is about to be written, once its points are among the newest."""
        _update_newest(self.newest, record)
        return record

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
            at = (to_mlflow_name(own), record.step)
            known = live.get(at, self._values.get(at, value))
            name, step = (
                to_mlflow_name(f"{prefix}/{own}") if known != value and prefix else at[0],
                record.step,
            )
            if value not in (live.get((name, step)), self._values.get((name, step))):
                self._values[name, step] = value
                fresh[name] = value
        return fresh


def newest(records: Iterable[Metrics]) -> tuple[Metrics, ...]:
    """The newest point of each metric, as MLflow has it: that of the highest step, and of these the last.

    Returns:
        Records that hold no others; points of one step and time share one.
    """
    by_name: dict[str, Metrics] = {}
    for record in records:
        _update_newest(by_name, record)
    values: dict[tuple[int, int], dict[str, Number]] = {}
    for name, record in by_name.items():
        values.setdefault((record.step, record.time), {})[name] = record.values[name]
    return tuple(Metrics(values=some, step=step, time=time) for (step, time), some in values.items())


def first_nonfinite(values: Mapping[str, Number]) -> str | None:
    """The name of the first value that is not finite."""
    return next((name for name, value in values.items() if isinstance(value, str)), None)


def _update_newest(by_name: dict[str, Metrics], record: Metrics) -> None:
    for name in record.values:
        before = by_name.get(name)
        if before is None or (before.step, before.time) <= (record.step, record.time):
            by_name[name] = record
