"""MLflow's autologging of Keras beside ours: each loss and each model once."""

from __future__ import annotations

import importlib.util

import keras
import mlflow
import mlflow.keras
import numpy as np
import pytest

from mlwrap import model_run, tracked_training
from mlwrap.errors import MlwrapWarning
from mlwrap.keras import MetricsCallback

X = np.random.default_rng(0).normal(size=(16, 2)).astype("float32")

pytestmark = pytest.mark.skipif(
    not keras.__version__.startswith("3"), reason="mlflow.keras.autolog() is for Keras 3 alone"
)


@pytest.fixture(autouse=True)
def _autologging():
    """What a test turns on is off again."""
    yield
    mlflow.autolog(disable=True, silent=True)


def fit(*callbacks):
    """A model that was fitted for three epochs."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, X[:, :1], epochs=3, verbose=0, callbacks=list(callbacks))
    return model


def logged(run_id: str) -> tuple[list[int], list[str]]:
    """The steps of a run's loss, and the names of its models."""
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    steps = [point.step for point in client.get_metric_history(run_id, "loss")]
    models = run.outputs.model_outputs if run.outputs else []
    return steps, [client.get_logged_model(model.model_id).name for model in models]


@pytest.mark.parametrize("turned_on", ["before", "in the body", "for all frameworks"])
@pytest.mark.parametrize("live", [True, False])
def test_each_loss_and_the_model_are_logged_once(store: str, turned_on, live):
    """With and without the callback; one sentence says so."""
    if turned_on == "before":
        mlflow.keras.autolog(silent=True)
    elif turned_on == "for all frameworks":
        mlflow.autolog(silent=True)

    @tracked_training
    def train():
        if turned_on == "in the body":
            mlflow.keras.autolog(silent=True)
        return fit(*[MetricsCallback()] * live)

    with pytest.warns(MlwrapWarning) as caught:
        train()
    assert logged(train.last_run.run_id) == ([0, 1, 2], ["keras_model"])
    (said,) = [str(each.message) for each in caught if each.category is MlwrapWarning]
    assert said.startswith("run 'train': MLflow's autologging of Keras is off while this run is open")
    missing = importlib.util.find_spec("tensorboard") is None and turned_on == "for all frameworks"
    assert ("pip install tensorboard" in said) == missing
    assert len(mlflow.search_runs(experiment_names=["test"])) == 1


def test_a_fit_within_start_run_is_logged_in_ours(store: str):
    """The script's own run is there, with what the script itself logs."""
    mlflow.keras.autolog(silent=True)

    @tracked_training
    def train():
        with mlflow.start_run() as theirs:
            model = fit()
            mlflow.log_metric("accuracy", 0.5)
        return {"model": model, "id": theirs.info.run_id}

    with pytest.warns(MlwrapWarning):
        theirs = mlflow.get_run(train()["id"])
    assert logged(train.last_run.run_id) == ([0, 1, 2], ["model"])
    assert theirs.data.metrics == {"accuracy": 0.5}


def test_outside_our_runs_it_goes_on(store: str):
    """Before and after one, and in MLflow's own runs."""
    mlflow.keras.autolog(silent=True)
    with pytest.warns(MlwrapWarning), model_run("ours"):
        fit()
    with mlflow.start_run() as theirs:
        fit()
    assert logged(theirs.info.run_id) == ([0, 1, 2], ["model"])


def test_exclusive_stays_as_the_user_set_it(store: str):
    """Within MLflow's own runs, too."""
    mlflow.keras.autolog(silent=True, exclusive=True)
    with pytest.warns(MlwrapWarning), model_run("ours"):
        fit()
    with mlflow.start_run() as theirs:
        fit()
    assert logged(theirs.info.run_id) == ([], [])


def test_what_is_off_is_not_talked_of(store: str):
    """Nor what is turned off in the body."""
    mlflow.keras.autolog(silent=True)
    mlflow.keras.autolog(disable=True)
    with model_run("ours"):
        mlflow.keras.autolog(disable=True)
