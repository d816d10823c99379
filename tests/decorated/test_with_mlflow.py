"""A training process that has imported MLflow: its own calls and ours go together."""

from __future__ import annotations

import mlflow
import pytest

from mlwrap import model_run, tracked_training
from mlwrap.errors import MlwrapWarning


def test_a_metric_that_mlflow_is_told_lands_in_our_run(runs):
    """Parameters, tags and artifacts, too; the run's status and end are ours to tell."""

    @tracked_training
    def train(units=3):
        mlflow.log_metric("loss", 0.5)
        mlflow.log_param("theirs", 1)
        mlflow.set_tag("phase", "one")
        return {"accuracy": 0.9}

    train()
    assert mlflow.active_run() is None
    (run,) = runs().values()
    assert run.data.metrics == {"loss": 0.5, "accuracy": 0.9}
    assert run.data.params == {"theirs": "1", "units": "3"}
    assert run.data.tags["phase"] == "one"
    assert run.info.status == "FINISHED"


def test_an_exception_there_is_failed(runs):
    """MLflow's own end of the run says the same as ours."""
    with pytest.raises(ZeroDivisionError), model_run("r"):
        mlflow.log_metric("loss", 1 / 0)
    assert runs()["r"].info.status == "FAILED"
    assert mlflow.active_run() is None


def test_runs_of_both_kinds_nest(runs):
    """Theirs around ours around theirs around ours: each under the one before."""
    with mlflow.start_run(run_name="a"), model_run("b"):
        with mlflow.start_run(run_name="c", nested=True), model_run("d"):
            mlflow.log_metric("deep", 1.0)
        mlflow.log_metric("shallow", 1.0)
    found = runs()
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in found.items()}
    ids = {name: run.info.run_id for name, run in found.items()}
    assert parents == {"a": None, "b": ids["a"], "c": ids["b"], "d": ids["c"]}
    assert found["d"].data.metrics == {"deep": 1.0}
    assert found["b"].data.metrics == {"shallow": 1.0}


def test_a_body_that_ends_the_active_run_itself(runs):
    """It may: ours has its own end all the same."""
    with model_run("r"):
        mlflow.end_run()
    assert runs()["r"].info.status == "FINISHED"


def test_another_mlflow_is_left_alone(runs, store: str, tmp_path):
    """Our run is delivered elsewhere; the body's own calls go where they went before."""
    other = f"sqlite:///{tmp_path / 'other.db'}"
    with mlflow.start_run(run_name="theirs"), model_run("ours", tracking_uri=other):
        mlflow.log_metric("loss", 1.0)
    assert runs()["theirs"].data.metrics == {"loss": 1.0}


def test_a_server_that_is_away_is_said_once_and_costs_nothing_else(runs, monkeypatch: pytest.MonkeyPatch):
    """Our own calls are written down; MLflow's can't land."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.warns(MlwrapWarning) as caught, model_run("r") as run:
        run.log_metric("loss", 1.0)
    assert "calls of MLflow's own in its body do not land in it" in str(caught[0].message)
    assert "nobody listens at 127.0.0.1:9" in str(caught[0].message)
