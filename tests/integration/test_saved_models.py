"""Every kind of SavedModel: logged, loaded by stock MLflow in both ways and by mlwrap, predictions equal."""

from __future__ import annotations

import json
import marshal
import sys
from pathlib import Path
from typing import Any

import mlflow
import mlflow.tensorflow
import numpy as np
import pytest
from mlflow.pyfunc import scoring_server

from mlwrap import load_model, model_run, tracked_training
from mlwrap._loading.verify import verify
from mlwrap.errors import LoadError

tf = pytest.importorskip("tensorflow")
keras = tf.keras

X = np.arange(6, dtype="float32").reshape(2, 3)
ANY = tf.TensorSpec([None, 3], tf.float32, name="x")


class Scale(tf.Module):
    """Callable for any batch, with a function beside."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[ANY])
    def __call__(self, x):
        return x * self.factor

    @tf.function(input_signature=[ANY])
    def half(self, x):
        return x / self.factor


class Two(tf.Module):
    """Two inputs of two types, one of them with a second axis of any size."""

    @tf.function(input_signature=[ANY, tf.TensorSpec([None, None], tf.int64, name="ids")])
    def __call__(self, x, ids):
        return {"y": x + 1.0, "count": tf.reduce_sum(ids, axis=1)}


class Traced(tf.Module):
    """Without any input signature: its form is the one that it was called in."""

    @tf.function
    def __call__(self, x):
        return x + 1.0


def traced():
    """What a training leaves behind."""
    model = Traced()
    model.__call__.get_concrete_function(ANY)
    return model


FACTOR = tf.Variable(2.0)  # a function keeps none of what it uses alive
SCALE = Scale()


def function():
    """A function alone, with a variable that it finds by name."""
    return tf.function(lambda x: x * FACTOR, input_signature=[ANY])


def exported(folder):
    """What was exported with signatures of its own, loaded."""
    model = Scale()
    tf.saved_model.save(model, str(folder), signatures={"predict": model.half, "other": model.__call__})
    return tf.saved_model.load(str(folder))


def archive():
    """Keras's way to export a model for serving, with a second endpoint."""
    export = pytest.importorskip("keras.export", reason="of Keras 3")
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    made = export.ExportArchive()
    made.track(model)
    made.add_endpoint("serve", model.call, input_signature=[ANY])
    made.add_endpoint("twice", lambda x: model.call(x) * 2.0, input_signature=[ANY])
    return made, model


def checked(value: Any, fed: Any, expected: Any) -> Any:
    """Log ``value``, compare what stock MLflow and mlwrap predict, and give back what mlwrap loads."""
    with model_run("r") as run:
        run.log_model(value)
    (logged,) = run.models
    assert (logged.name, logged.status) == ("saved_model", "READY")
    stock = mlflow.pyfunc.load_model(logged.uri)
    direct = mlflow.tensorflow.load_model(logged.uri)
    assert stock.metadata.signature is not None
    if isinstance(fed, dict):
        compare(stock.predict(fed), expected)
        compare(direct(**{name: tf.constant(value) for name, value in fed.items()}), expected)
        loaded = load_model(logged.uri)
        key = stock.metadata.flavors["tensorflow"]["signature_def_key"]
        compare(loaded.signatures[key](**{name: tf.constant(value) for name, value in fed.items()}), expected)
    else:
        compare(stock.predict(fed), expected)
        compare(direct(tf.constant(fed)), expected)
        loaded = load_model(logged.uri)
        compare(loaded(tf.constant(fed)), expected)
    compare(served(stock, fed), expected)
    return loaded


def test_bytecode_that_python_writes_into_the_store_is_no_change(store: str, monkeypatch: pytest.MonkeyPatch):
    """Stock MLflow imports the loader from the store; the model still loads, and mlwrap runs no bytecode."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    monkeypatch.delitem(sys.modules, "mlwrap_loader_1", raising=False)
    with model_run("r") as run:
        run.log_model(Two(), input_example={"x": X, "ids": IDS})
    mlflow.pyfunc.load_model(run.model_uri)
    logged = mlflow.get_logged_model(run.model_uri.removeprefix("models:/"))
    folder = Path(logged.artifact_location.removeprefix("file://"))
    (bytecode,) = folder.rglob("*.pyc")
    assert callable(load_model(run.model_uri))
    # A file of the same time and length, whose code is another.
    header = bytecode.read_bytes()[:16]
    bytecode.write_bytes(header + marshal.dumps(compile("raise SystemExit('planted')", "planted", "exec")))
    monkeypatch.delitem(sys.modules, "mlwrap_loader_1")
    assert verify(run.model_uri).startswith("ok")
    (bytecode.parent / "other.cpython-311.pyc").write_bytes(b"")
    with pytest.raises(LoadError, match=r"other\.cpython-311\.pyc was not logged"):
        load_model(run.model_uri)


def served(model: Any, fed: Any) -> Any:
    """What stock serving answers, to JSON as TensorFlow Serving takes it."""
    body = (
        {name: np.asarray(v).tolist() for name, v in fed.items()} if isinstance(fed, dict) else fed.tolist()
    )
    schema = model.metadata.get_input_schema()
    answer = scoring_server.invocations(json.dumps({"inputs": body}), "application/json", model, schema)
    assert answer.status == 200, answer.response
    return json.loads(answer.response)["predictions"]


def compare(got: Any, expected: Any) -> None:
    """Values by name where there are names."""
    if not isinstance(expected, dict):
        got, expected = {"": got}, {"": expected}
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-6)


IDS = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])


@pytest.mark.parametrize(
    ("make", "fed", "expected"),
    [
        (Scale, X, X * 2),
        (traced, X, X + 1),
        (Two, {"x": X, "ids": IDS}, {"y": X + 1, "count": [10, 26]}),
        (function, X, X * 2),
        (lambda: function().get_concrete_function(), X, X * 2),
        (lambda: SCALE.half, X, X / 2),
    ],
    ids=["module", "traced by calls", "two inputs", "tf.function", "ConcreteFunction", "method"],
)
def test_what_tensorflow_can_call_predicts_the_same_everywhere(store: str, make, fed, expected):
    """By stock pyfunc, the flavor's own loader, stock serving and mlwrap."""
    checked(make(), fed, expected)


def test_all_functions_of_a_module_come_back(store: str):
    """Not only the one that is served."""
    loaded = checked(Scale(), X, X * 2)
    np.testing.assert_array_equal(loaded.half(X), X / 2)
    assert float(loaded.factor) == 2.0


def test_what_was_exported_with_signatures_is_logged_with_them(store: str, tmp_path):
    """It was loaded, and is logged again; it is still callable, and that is the way in."""
    loaded = checked(exported(tmp_path / "exported"), X, X * 2)
    assert set(loaded.signatures) == {"predict", "other"}
    np.testing.assert_array_equal(loaded.signatures["predict"](x=tf.constant(X))["output_0"], X / 2)


def test_an_export_archive_is_logged_with_its_endpoints(store: str):
    """The first is served, as Keras has it."""
    made, model = archive()
    expected = model(X).numpy()
    loaded = checked(made, {"x": X}, {"output_0": expected})
    np.testing.assert_allclose(loaded.twice(X), expected * 2, rtol=1e-6)
    np.testing.assert_allclose(loaded.serve(X), expected, rtol=1e-6)


def test_a_returned_function_is_what_the_caller_gets(store: str):
    """The decorator dispatches on it, and gives the very object back."""
    returned = function()
    train = tracked_training(lambda: {"predict": returned, "loss": 0.5})
    assert train()["predict"] is returned
    np.testing.assert_array_equal(load_model(train.last_run.model_uri)(X), X * 2)


STRATEGY = """
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from mlwrap import load_model, model_run

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
ANY = tf.TensorSpec([None, 3], tf.float32, name="x")

class Scale(tf.Module):
    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(1.0)

    @tf.function(input_signature=[ANY])
    def __call__(self, x):
        return x * self.factor

x = np.arange(6, dtype="float32").reshape(2, 3)
with strategy.scope():
    module = Scale()
    model = tf.keras.Sequential([tf.keras.layers.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile("sgd", "mse")

@tf.function
def step():
    strategy.run(lambda: module.factor.assign_add(1.0))

step()
model.fit(x, x[:, :2], epochs=1, verbose=0)
checkpoint = tf.train.Checkpoint(module=module)
with model_run("distributed") as run:
    run.record({"module": module, "net": model, "state": checkpoint})
print(*(f"{logged.status}={logged.uri}" for logged in run.models))
np.save("expected.npy", model.predict(x, verbose=0))
"""


def test_models_of_a_distribution_strategy_load_without_one(store: str, python):
    """A module, a Keras model and a checkpoint of variables that were mirrored on two devices."""
    done = python(STRATEGY, MLWRAP_QUIET="1")
    assert "MlwrapWarning" not in done.stderr
    logged = [word.split("=") for word in done.stdout.split()[-3:]]
    assert [status for status, _ in logged] == ["READY"] * 3
    module, net, state = (uri for _, uri in logged)
    expected = np.load("expected.npy")
    np.testing.assert_array_equal(load_model(module)(X), X * 2)
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(module).predict(X), X * 2)
    np.testing.assert_allclose(load_model(net).predict(X, verbose=0), expected, rtol=1e-6)
    np.testing.assert_allclose(mlflow.pyfunc.load_model(net).predict(X), expected, rtol=1e-6)
    plain = Scale()
    load_model(state, into={"module": plain})
    assert float(plain.factor) == 2.0
