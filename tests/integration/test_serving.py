"""Stock ``mlflow models serve`` serves what was logged: the right predictions come over HTTP."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from mlwrap import model_run
from tests.faults.servers import free_port, running

tf = pytest.importorskip("tensorflow")
ESTIMATORS = importlib.util.find_spec("tensorflow_estimator") is not None
X = np.arange(6, dtype="float32").reshape(2, 3)
_START_SECONDS = 240


@contextlib.contextmanager
def served(uri: str, folder: Path) -> Iterator[str]:
    """MLflow's own server for a model, in this environment; gives its address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", uri),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    # It starts the uvicorn that the shell finds.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with running(command, folder / "serve.log", lambda: _answers(address), _START_SECONDS, env=env):
        yield address


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def predictions(address: str, payload: bytes) -> Any:
    """What the server says to a request."""
    request = urllib.request.Request(
        f"{address}/invocations", payload, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["predictions"]


def logged(value: Any, **options: Any) -> tuple[str, bytes]:
    """Log a model; gives its URI and MLflow's own example of a request to its server."""
    with model_run("r") as run:
        run.log_model(value, **options)
    location = mlflow.get_logged_model(run.model_uri.removeprefix("models:/")).artifact_location
    return run.model_uri, Path(location, "serving_input_example.json").read_bytes()


def test_a_keras_model(store: str, tmp_path: Path):
    """Lists of numbers and the example that was logged; what does not fit the signature is refused."""
    model = tf.keras.Sequential([tf.keras.layers.Input((3,)), tf.keras.layers.Dense(2)])
    uri, example = logged(model, input_example=X)
    expected = model.predict(X, verbose=0)
    with served(uri, tmp_path) as address:
        np.testing.assert_allclose(predictions(address, example), expected, rtol=1e-5)
        lists = json.dumps({"inputs": (X + 1).tolist()}).encode()
        np.testing.assert_allclose(predictions(address, lists), model.predict(X + 1, verbose=0), rtol=1e-5)
        with pytest.raises(urllib.error.HTTPError) as caught:
            predictions(address, b'{"inputs": [[1.0, 2.0]]}')
        assert caught.value.code == 400


class Scaled(tf.Module):
    """A module with a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(3.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def __call__(self, x):
        return self.scale * x


@pytest.mark.skipif(ESTIMATORS, reason="the same files and the same loader as on today's TensorFlow")
def test_a_saved_model(store: str, tmp_path: Path):
    """A tf.Module, called with one tensor."""
    uri, example = logged(Scaled(), input_example=X)
    with served(uri, tmp_path) as address:
        np.testing.assert_allclose(predictions(address, example), 3 * X)


@pytest.mark.skipif(not ESTIMATORS, reason="Estimators left TensorFlow with 2.16; .venv-estimator has them")
def test_an_estimators_export(store: str, tmp_path: Path):
    """Fed by the names of its serving signature."""
    columns = [tf.feature_column.numeric_column("x")]
    estimator = tf.estimator.LinearRegressor(columns, model_dir=str(tmp_path / "training"))
    x = np.arange(4, dtype="float32")

    def data():
        return tf.data.Dataset.from_tensors(({"x": x[:, None]}, 2 * x[:, None]))

    estimator.train(data, steps=1)

    def receiver():
        feature = tf.compat.v1.placeholder(tf.float32, [None, 1], "x")
        return tf.estimator.export.ServingInputReceiver({"x": feature}, {"x": feature})

    uri, example = logged(estimator, serving_input_receiver_fn=receiver, input_example={"x": x[:, None]})
    expected = [row["predictions"] for row in estimator.predict(data)]
    with served(uri, tmp_path) as address:
        answer = predictions(address, example)
    np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5)
