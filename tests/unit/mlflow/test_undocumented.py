"""An MLflow that lacks a name that its documentation does not describe."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run

from mlwrap import load_model, sync
from mlwrap._mlflow import undocumented
from mlwrap._mlflow.undocumented import UndocumentedName

NAMES = {
    f"{constant}-{name.name}": name
    for constant, value in vars(undocumented).items()
    if constant.isupper()
    for name in (
        [value] if isinstance(value, UndocumentedName) else value if isinstance(value, tuple) else []
    )
    if isinstance(name, UndocumentedName)
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_this_mlflow_has_the_name(name: UndocumentedName):
    """And what mlwrap does without it is said."""
    assert name.find() is not None
    assert name.why.endswith(".")
    assert name.otherwise.endswith(".")


def test_a_name_that_mlflow_lacks_is_not_found():
    """Neither a module nor a name in it."""
    assert undocumented.MAX_RETRIES._replace(name="gone").find() is None
    assert undocumented.MAX_RETRIES._replace(module="mlflow.gone").find() is None


RENAME = """
import json, os, warnings
import numpy as np
from mlwrap._mlflow import undocumented
def rename(constant):
    value = getattr(undocumented, constant)
    if isinstance(value, undocumented.UndocumentedName):
        setattr(undocumented, constant, value._replace(name=f"{value.name}_2"))
    elif isinstance(value, tuple):
        setattr(undocumented, constant, tuple(each._replace(name=f"{each.name}_2") for each in value))
"""

TRAIN = """
import mlflow, mlwrap
from sklearn.linear_model import LinearRegression
x = np.arange(6.0).reshape(3, 2)
mlwrap.configure(delivery="inline")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with mlwrap.model_run("r") as run:
        mlflow.log_metric("stray", 1.0)
        mlflow.end_run()
        run.log_params({"rate": 0.1})
        run.log_metric("loss", 0.5, step=1)
        run.log_text("notes", "a/b.txt")
        run.log_model(LinearRegression().fit(x, x.sum(axis=1)), input_example=x, register_as="net")
print(json.dumps({"warnings": [str(each.message) for each in caught], "run_id": run.run_id}))
"""


@pytest.fixture
def training(python, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Train with an MLflow that has renamed names, into a new store; gives the warnings and the run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'new.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "new")

    def train(renamed: str) -> tuple[str, Run]:
        done = python(f"{RENAME}for constant in {renamed}:\n    rename(constant)\n{TRAIN}")
        told = json.loads(done.stdout.splitlines()[-1])
        return " ".join(told["warnings"]), mlflow.get_run(told["run_id"])

    return train


def test_without_any_of_them_a_run_is_delivered_whole(training, tmp_path: Path):
    """Its parameters, metrics, artifacts and model; what is left out is said."""
    warnings, run = training("vars(undocumented).keys() - {'ARTIFACT_REPOSITORY'}")
    assert run.info.status == "FINISHED"
    assert (run.data.params, run.data.metrics) == ({"rate": "0.1"}, {"loss": 0.5})
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/a/b.txt") == "notes"
    assert load_model("models:/net/1").predict(np.ones((1, 2))) == pytest.approx([2.0])
    assert (
        "calls to mlflow.* in its body do not log to it: this MLflow has no _active_run_stack_2" in warnings
    )
    assert "its input_example was not written: this MLflow lacks _save_example_2()" in warnings
    # The experiment keeps its artifacts where the training ran, as ever.
    assert Path(run.info.artifact_uri).is_relative_to(tmp_path / "work" / "mlruns")


def test_artifacts_wait_for_an_mlflow_that_can_store_them(training):
    """The rest of the run arrives at once; 'mlwrap sync' delivers them later."""
    warnings, run = training("['ARTIFACT_REPOSITORY']")
    assert (run.data.params, run.data.metrics) == ({"rate": "0.1"}, {"loss": 0.5, "stray": 1.0})
    assert "artifacts wait, for this MLflow has no get_artifact_repository_2()" in warnings
    sync()
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/a/b.txt") == "notes"
    assert load_model("models:/net/1").predict(np.ones((1, 2))) == pytest.approx([2.0])
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
