"""What came of a run, read back with stock MLflow."""

from __future__ import annotations

import mlflow
import pytest
from mlflow.entities import Run


@pytest.fixture
def runs(store: str):
    """All runs of the store, by name; the names in a test differ."""

    def read() -> dict[str, Run]:
        client = mlflow.MlflowClient(store)
        experiments = [e.experiment_id for e in client.search_experiments()]
        return {run.info.run_name: run for run in client.search_runs(experiments)}

    return read
