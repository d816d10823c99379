"""``input_example=`` as MLflow stores it: read back by MLflow's own code, beside the signature it tells."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model

from mlwrap import load_model, model_run, tracked_training
from mlwrap._mlflow.undocumented import SAVE_EXAMPLE
from mlwrap._recording.logged_model import LoggedModel
from mlwrap.errors import MlwrapWarning

tf = pytest.importorskip("tensorflow")
keras = tf.keras


@pytest.fixture(scope="module")
def model():
    """A small Keras model, whose signature is float32 (any, 3)."""
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])


X = np.arange(6, dtype="float32").reshape(2, 3)


def folder(logged: LoggedModel) -> Path:
    """Where a logged model's files lie."""
    return Path(mlflow.get_logged_model(logged.uri.removeprefix("models:/")).artifact_location)


def test_an_array(model, store: str):
    """From the decorator: MLflow reads it back, with the type of the model's signature, and it predicts."""

    @tracked_training(input_example=X)
    def train():
        return model

    train()
    (logged,) = train.last_run.models
    stock = Model.load(logged.uri)
    again = stock.load_input_example(str(folder(logged)))
    np.testing.assert_array_equal(again, X)
    assert again.dtype == "float32"
    np.testing.assert_allclose(
        mlflow.pyfunc.load_model(logged.uri).predict(again), model.predict(X, verbose=0), rtol=1e-5
    )
    served = json.loads((folder(logged) / "serving_input_example.json").read_text())
    assert served == {"inputs": X.tolist()}
    assert mlflow.pyfunc.load_model(logged.uri).input_example.tolist() == X.tolist()
    assert type(load_model(logged)) is type(model)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)], ids=str)
def test_an_array_of_another_type(store: str, shape):
    """What Keras casts and completes, stock pyfunc takes, too: the signature is the example's."""
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    x = X.astype("float64").reshape(shape)
    with model_run("r") as run:
        run.log_model(model, input_example=x)
    predicted = mlflow.pyfunc.load_model(run.model_uri).predict(x)
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), rtol=1e-5)


def test_a_dataset_decides_the_type_that_no_example_tells(store: str):
    """What TensorFlow traced ``fit`` with; arrays of numpy Keras casts before."""
    fitted = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    fitted.compile("sgd", "mse")
    x = X.astype("float64")
    fitted.fit(tf.data.Dataset.from_tensors((x, x[:, :1])), verbose=0)
    with model_run("r") as run:
        run.log_model(fitted)
    predicted = mlflow.pyfunc.load_model(run.model_uri).predict(x)
    np.testing.assert_allclose(predicted, fitted.predict(x, verbose=0), rtol=1e-5)


def test_several_arrays(store: str):
    """By name, as the model takes them."""
    a, b = keras.layers.Input((2,), name="a"), keras.layers.Input((1,), name="b")
    two = keras.Model([a, b], keras.layers.Dense(1)(keras.layers.concatenate([a, b])))
    example = {"a": np.ones((2, 2), "float32"), "b": np.zeros((2, 1), "float32")}
    with model_run("r") as run:
        run.log_model(two, input_example=example)
    again = Model.load(run.model_uri).load_input_example(str(folder(run.models[0])))
    assert set(again) == {"a", "b"}
    for name, array in example.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == "float32"


def silent():
    """What tells nothing of inputs: a checkpoint."""
    return tf.train.Checkpoint(v=tf.Variable([1.0]))


def test_an_example_tells_the_signature_that_the_model_does_not(store: str):
    """Its types and shapes, with a batch of any size; what comes out nobody has seen."""
    with model_run("r") as run:
        run.log_model(silent(), "without")
        run.log_model(silent(), "with", input_example=X)
    without, signed = (Model.load(logged.uri).signature for logged in run.models)
    assert without is None
    (spec,) = signed.inputs.inputs
    assert (spec.type, spec.shape) == (np.dtype("float32"), (-1, 3))
    assert signed.outputs is None


def test_a_frame(store: str):
    """Columns with types of their own; the signature is one of columns."""
    frame = pd.DataFrame({"width": [1.5, 2.5], "kind": ["a", "b"]})
    with model_run("r") as run:
        run.log_model(silent(), input_example=frame)
    stock = Model.load(run.model_uri)
    pd.testing.assert_frame_equal(stock.load_input_example(str(folder(run.models[0]))), frame)
    assert stock.signature.inputs.input_dict()["width"].type.name == "double"


def test_one_that_does_not_fit_costs_a_warning(model, store: str):
    """The model is logged, with its own signature; no example is."""
    with (
        model_run("r") as run,
        pytest.warns(MlwrapWarning, match=r"takes float32 \(any, 3\), .* float32 \(2, 2\)"),
    ):
        run.log_model(model, input_example=X[:, :2])
    assert run.models[0].status == "READY"
    stock = Model.load(run.model_uri)
    assert stock.saved_input_example_info is None
    assert stock.signature is not None


def test_one_that_mlflow_will_not_write_costs_a_warning(model, store: str, monkeypatch: pytest.MonkeyPatch):
    """Delivery says so, to the training and on the model; the model is READY and loads."""

    def fail(*args: object) -> None:
        raise mlflow.MlflowException("no such type")

    monkeypatch.setattr(f"{SAVE_EXAMPLE.module}.{SAVE_EXAMPLE.name}", fail)
    with (
        pytest.warns(
            MlwrapWarning, match=r"'keras_model': its input_example could not be written.*such type"
        ),
        model_run("r") as run,
    ):
        run.log_model(model, input_example=X)
    logged = mlflow.get_logged_model(run.model_uri.removeprefix("models:/"))
    assert "no such type" in logged.tags["mlwrap.trouble"]
    load_model(run)


WIDE = np.random.default_rng(0).normal(size=(8, 3))
FRAME = pd.DataFrame(WIDE, columns=["a", "b", "c"])


class Plus(keras.layers.Layer):
    """A layer that no other process finds, so that its model gets a serving form."""

    def call(self, x):
        return x + 1


def flat(layers=()):
    """Of Keras's own layers, and perhaps others."""
    return keras.Sequential([keras.layers.Input((3,)), *layers, keras.layers.Dense(1)])


def image():
    """An image of one channel."""
    return keras.Sequential([keras.layers.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])


def two():
    """Two inputs."""
    inputs = [keras.layers.Input((3,), name=name) for name in ("a", "b")]
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.add(inputs)))


class Subclassed(keras.Model):
    """A class of this test's."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x)


IMAGES = np.random.default_rng(0).normal(size=(8, 6, 6))


@pytest.mark.parametrize("split", [0.0, 0.5], ids=["whole", "split"])
@pytest.mark.parametrize(
    ("make", "x"),
    [
        (flat, WIDE),
        (flat, (9 * WIDE).astype("int64")),
        (lambda: flat([Plus()]), WIDE),
        (Subclassed, WIDE),
        (image, IMAGES),
        (two, {"a": WIDE, "b": WIDE.astype("float32")}),
    ],
    ids=["float64", "int64", "own layer", "subclassed", "completed", "two inputs"],
)
def test_what_fit_was_fed_decides_the_types(store: str, make, x, split: float):
    """Arrays of numpy, which Keras casts before anything is traced: stock pyfunc takes what ``fit`` took."""
    model = make()
    model.compile("sgd", "mse")
    with model_run("r") as run:
        model.fit(x, np.zeros((8, 1)), verbose=0, validation_split=split)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MlwrapWarning)
            run.log_model(model)
    predicted = mlflow.pyfunc.load_model(run.model_uri).predict(x)
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), rtol=1e-4)


@pytest.mark.parametrize(
    "make", [flat, lambda: flat([Plus()]), Subclassed], ids=["plain", "own layer", "subclassed"]
)
@pytest.mark.parametrize("by_example", [False, True], ids=["fit", "example"])
def test_a_frame_is_evaluated_by_stock_mlflow(store: str, make, by_example: bool):
    """A model of one flat input that was fed a frame: its columns are the signature, in any order."""
    model = make()
    model.compile("sgd", "mse")
    with model_run("r") as run:
        model.fit(WIDE if by_example else FRAME, np.zeros((8, 1)), verbose=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MlwrapWarning)
            run.log_model(model, input_example=FRAME if by_example else None, verify="load")
    verified = mlflow.get_logged_model(run.model_uri.removeprefix("models:/")).tags["mlwrap.verified"]
    assert verified.startswith("ok")
    stock = mlflow.pyfunc.load_model(run.model_uri)
    expected = model.predict(WIDE, verbose=0)
    np.testing.assert_allclose(stock.predict(FRAME[["c", "a", "b"]]), expected, rtol=1e-4)
    config = {"log_explainer": False, "log_model_explainability": False}
    found = mlflow.models.evaluate(
        run.model_uri,
        FRAME.assign(target=0.0),
        targets="target",
        model_type="regressor",
        evaluator_config=config,
    )
    assert found.metrics["mean_squared_error"] == pytest.approx(float(np.mean(expected**2)), rel=1e-3)
