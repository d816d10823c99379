"""What comes of a sweep: a small table, and no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload


class SweepPoint(NamedTuple):
    """One point of a sweep, and what came of it.

    Attributes:
        params: The arguments that it was called with, as they were given.
        metrics: The last value of each metric of its run.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        run_id: MLflow's id of its run, where MLflow has it.
        key: Its run's own id, which is the tag ``mlwrap.key`` in MLflow; ``None`` where nothing was recorded.
        error: Type and message of what ended it, or ``None``.
    """

    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    status: str
    run_id: str | None
    key: str | None
    error: str | None


class SweepTable(Sequence[SweepPoint]):
    """The points of a sweep, in the order in which they were given.

    Attributes:
        run_id: MLflow's id of the sweep's own run, where MLflow has it.
        key: That run's own id; ``None`` where nothing was recorded.
    """

    def __init__(self, points: Sequence[SweepPoint], *, run_id: str | None, key: str | None) -> None:
        self._points = tuple(points)
        self.run_id = run_id
        self.key = key

    @overload
    def __getitem__(self, index: int) -> SweepPoint: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[SweepPoint]: ...

    def __getitem__(self, index: int | slice) -> SweepPoint | Sequence[SweepPoint]:
        return self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __repr__(self) -> str:
        finished = sum(point.status == "FINISHED" for point in self)
        return f"<SweepTable of {len(self)} points, {finished} FINISHED, run {self.run_id or self.key}>"

    def frame(self) -> Any:
        """The table as a pandas frame.

        Its columns are called as those of ``mlflow.search_runs``: ``params.<name>``, ``metrics.<name>``,
        ``status``, ``run_id``; and ``error``.
        """
        import pandas as pd  # noqa: PLC0415 - it takes its time

        return pd.DataFrame(
            [
                {f"params.{name}": value for name, value in point.params.items()}
                | {f"metrics.{name}": value for name, value in point.metrics.items()}
                | {"status": point.status, "run_id": point.run_id, "error": point.error}
                for point in self
            ]
        )
