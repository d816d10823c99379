"""Filter out logged data points: MLflow's file store keeps a repeated one twice, a database once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from mlflow import MlflowClient

M = TypeVar("M", bound=tuple[Any, ...])


def not_logged(client: MlflowClient, run_id: str, metrics: Sequence[M]) -> list[M]:
    """Return the metrics (name, value, time, step and more) that a run does not have; NaN equals NaN."""
    logged = {
        (name, repr(point.value), point.timestamp, point.step)
        for name in {name for name, *_ in metrics}
        for point in client.get_metric_history(run_id, name)
    }
    return [m for m in metrics if (m[0], repr(float(m[1])), m[2], m[3]) not in logged]
