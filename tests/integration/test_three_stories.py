"""The three stories that mlwrap began from: each example runs, and its model loads back and predicts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import mlflow
import mlflow.pyfunc
import numpy as np
import pytest

from mlwrap import load_model
from tests.spools import waiting_in

EXAMPLES = Path(__file__).parents[2] / "examples"
ESTIMATORS = importlib.util.find_spec("tensorflow_estimator") is not None


@pytest.fixture
def example(store: str, monkeypatch: pytest.MonkeyPatch):
    """Import an example, whose ``train`` then delivers to the test's own store."""

    def load(name: str) -> ModuleType:
        monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
        monkeypatch.syspath_prepend(str(EXAMPLES))
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


def one_model(experiment: str) -> mlflow.entities.LoggedModel:
    """The one model of an experiment."""
    client = mlflow.MlflowClient()
    (model,) = client.search_logged_models([client.get_experiment_by_name(experiment).experiment_id])
    assert model.status.value == "READY"
    return model


def test_a_keras_model_under_keras_model(example):
    """Trained on the bundled digits; loaded by stock MLflow and by mlwrap, it predicts the same."""
    digits = example("digits")
    model, history = digits.train(units=16, epochs=2)
    logged = one_model("digits")
    assert logged.name == "keras_model"
    _, held_out, _, _ = digits.digits()
    expected = model.predict(held_out, verbose=0)
    loaded = load_model(digits.train.last_run.model_uri)
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(held_out, verbose=0), expected)
    stock = mlflow.pyfunc.load_model(logged.model_uri)
    np.testing.assert_array_equal(stock.predict(held_out), expected)
    assert stock.metadata.signature.inputs.inputs[0].shape == (-1, 64)
    run = mlflow.get_run(digits.train.last_run.run_id)
    assert run.data.params == {
        "units": "16", "dropout": "0.2", "learning_rate": "0.001", "epochs": "2", "seed": "0",
    }  # fmt: skip
    for name, values in history.history.items():
        points = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
        assert [(p.step, p.value) for p in points] == list(enumerate(values))
    requirements = Path(logged.artifact_location, "requirements.txt").read_text()
    assert "keras==" in requirements
    assert "tensorflow" in requirements


def test_a_saved_model_under_saved_model(example):
    """A plain TensorFlow module; loaded by stock MLflow and by mlwrap, it predicts the same."""
    diabetes = example("saved_model")
    returned = diabetes.train(steps=20)
    logged = one_model("diabetes")
    assert logged.name == "saved_model"
    x = np.random.default_rng(0).normal(size=(5, 10)).astype("float32")
    expected = returned["saved_model"](x).numpy()
    np.testing.assert_allclose(load_model(logged.model_uri)(x).numpy(), expected)
    np.testing.assert_allclose(mlflow.pyfunc.load_model(logged.model_uri).predict(x), expected)
    run = mlflow.get_run(diabetes.train.last_run.run_id)
    assert run.data.metrics == {"mse": returned["mse"]}


@pytest.mark.skipif(not ESTIMATORS, reason="Estimators left TensorFlow with 2.16; .venv-estimator has them")
def test_an_estimator_under_estimator_checkpoint(example, tmp_path: Path):
    """The folder it trained in is gone; the logged checkpoint evaluates the same and trains on."""
    import tensorflow as tf  # noqa: PLC0415 - of the other environment

    wine = example("estimator")
    (tmp_path / "training").mkdir()
    estimator = wine.train(str(tmp_path / "training"), steps=60)
    logged = one_model("wine")
    assert logged.name == "estimator_checkpoint"
    expected = estimator.evaluate(lambda: wine.wine(32, repeat=False))
    for left in (tmp_path / "training").rglob("*"):
        if left.is_file():
            left.unlink()

    folder = load_model(logged.model_uri)
    assert isinstance(folder, Path)
    assert tf.train.latest_checkpoint(str(folder)).endswith("model.ckpt-60")
    assert tf.train.load_variable(str(folder), "global_step") == 60
    again = tf.estimator.DNNClassifier(
        hidden_units=(16, 8),
        feature_columns=wine.COLUMNS,
        n_classes=3,
        model_dir=str(tmp_path / "again"),
        warm_start_from=str(folder),
    )
    again.train(lambda: wine.wine(32, repeat=True), steps=1)
    assert again.latest_checkpoint().endswith("model.ckpt-1")

    run = mlflow.get_run(wine.train.last_run.run_id)
    assert run.data.params["steps"] == "60"
    assert "model_dir" not in run.data.params
    assert run.data.metrics["eval/accuracy"] == pytest.approx(expected["accuracy"])
    assert run.data.metrics["loss"] > 0
    columns = {name: np.zeros(3, "float32") for name in wine.FEATURES}
    predictions = mlflow.pyfunc.load_model(logged.model_uri).predict(columns)
    assert len(predictions["class_ids"]) == 3


RUNNABLE = ["digits.py", "saved_model.py", "own_saver.py"] + (["estimator.py"] if ESTIMATORS else [])


@pytest.mark.parametrize("name", RUNNABLE)
def test_an_example_runs_as_its_page_says(name: str, tmp_path: Path):
    """As a script, in an empty folder, on MLflow's embedded store; nothing temporary is left."""
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, check=True, env=env, timeout=600
    )
    assert "mlwrap" not in done.stdout
    if name == "digits.py":
        loaded = subprocess.run(
            [sys.executable, EXAMPLES / "load_digits.py"], capture_output=True, text=True, check=True, env=env
        )
        assert "held-out digits right" in loaded.stdout
    else:
        assert "models:/m-" in done.stdout
        assert "something else" not in done.stdout
    left = {path.name for path in (tmp_path / "tmp").iterdir()}
    assert left <= {"__pycache__"}  # TensorFlow's AutoGraph makes modules there
    assert waiting_in(tmp_path / "spool") == []
