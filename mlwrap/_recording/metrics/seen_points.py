"""``SeenPoints``: the data points that a run has logged, so that none is logged twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._journal.records import Metrics, Number


class SeenPoints:
    """The data points that were found in models and histories; a History is often found more than once.

    Attributes:
        newest: By metric name, the written record with the newest point.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, int], Number] = {}
        self.newest: dict[str, Metrics] = {}

    def noted(self, record: Metrics) -> Metrics:
        """Update ``newest`` with a record that will be written, and return the record."""
        _update_newest(self.newest, record)
        return record

    def fresh(
        self, record: Metrics, prefix: str, live: Mapping[tuple[str, int], Number]
    ) -> dict[str, Number]:
        """Return the values of a record that are not logged yet, and remember them.

        Args:
            record: Metrics that were found in a model or a history.
            prefix: Put before the name of a metric that has another value at that step already.
            live: The values that were logged during the training, by name and step.
        """
        fresh: dict[str, Number] = {}
        for raw_name, value in record.values.items():
            point = (to_mlflow_name(raw_name), record.step)
            known_value = live.get(point, self._values.get(point, value))
            name, step = (
                to_mlflow_name(f"{prefix}/{raw_name}") if known_value != value and prefix else point[0],
                record.step,
            )
            if value not in (live.get((name, step)), self._values.get((name, step))):
                self._values[name, step] = value
                fresh[name] = value
        return fresh


def newest(records: Iterable[Metrics]) -> tuple[Metrics, ...]:
    """Return the newest point of each metric by MLflow's order: the latest point of the highest step.

    Returns:
        Records of only those points; points of the same step and time share a record.
    """
    by_name: dict[str, Metrics] = {}
    for record in records:
        _update_newest(by_name, record)
    values: dict[tuple[int, int], dict[str, Number]] = {}
    for name, record in by_name.items():
        values.setdefault((record.step, record.time), {})[name] = record.values[name]
    return tuple(
        Metrics(values=point_values, step=step, time=time) for (step, time), point_values in values.items()
    )


def first_nonfinite(values: Mapping[str, Number]) -> str | None:
    """Return the name of the first value that is not finite; ``None`` if all are."""
    return next((name for name, value in values.items() if isinstance(value, str)), None)


def _update_newest(by_name: dict[str, Metrics], record: Metrics) -> None:
    for name in record.values:
        previous = by_name.get(name)
        if previous is None or (previous.step, previous.time) <= (record.step, record.time):
            by_name[name] = record
