"""The result of a sweep: a small table, without models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload


class SweepTrial(NamedTuple):
    """One trial of a sweep and its outcome.

    Attributes:
        params: The arguments of the call, as given.
        metrics: The last value of each metric of its run.
        status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        run_id: MLflow's id of its run, if MLflow has it.
        key: mlwrap's id of its run, which is the tag ``mlwrap.key`` in MLflow; ``None`` if not recorded.
        error: Type and message of the exception that ended it, or ``None``.
    """

    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    status: str
    run_id: str | None
    key: str | None
    error: str | None


class SweepTable(Sequence[SweepTrial]):
    """The trials of a sweep, in the order in which they were given.

    Attributes:
        run_id: MLflow's id of the sweep's own run, if MLflow has it.
        key: mlwrap's id of that run; ``None`` if nothing was recorded.
    """

    def __init__(self, trials: Sequence[SweepTrial], *, run_id: str | None, key: str | None) -> None:
        self._trials = tuple(trials)
        self.run_id = run_id
        self.key = key

    @overload
    def __getitem__(self, index: int) -> SweepTrial: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[SweepTrial]: ...

    def __getitem__(self, index: int | slice) -> SweepTrial | Sequence[SweepTrial]:
        return self._trials[index]

    def __len__(self) -> int:
        return len(self._trials)

    def __repr__(self) -> str:
        finished = sum(trial.status == "FINISHED" for trial in self)
        return f"<SweepTable of {len(self)} trials, {finished} FINISHED, run {self.run_id or self.key}>"

    def frame(self) -> Any:
        """Return the table as a pandas frame.

        The columns are named as those of ``mlflow.search_runs``: ``params.<name>``, ``metrics.<name>``,
        ``status`` and ``run_id``, plus ``error``.
        """
        import pandas as pd  # noqa: PLC0415 - slow to import

        return pd.DataFrame(
            [
                {f"params.{name}": value for name, value in trial.params.items()}
                | {f"metrics.{name}": value for name, value in trial.metrics.items()}
                | {"status": trial.status, "run_id": trial.run_id, "error": trial.error}
                for trial in self
            ]
        )
