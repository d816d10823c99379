"""Keras layers as objects of their own: adapted, logged, given back, and computed with by stock MLflow."""

from __future__ import annotations

import mlflow
import numpy as np
import pandas as pd
import pytest

from mlwrap import load_model, model_run, tracked_training
from mlwrap.errors import LoadError, MlwrapWarning

tf = pytest.importorskip("tensorflow")

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
ROWS = {"age": np.array([1.0, 2.0, 3.0], "float32"), "kind": np.array(["x", "y", "x"])}


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request: pytest.FixtureRequest):
    """Each Keras that is installed here."""
    return pytest.importorskip(request.param, reason=f"{request.param} is not in this environment")


def normalization(keras):
    """Adapted, and never called."""
    layer = keras.layers.Normalization()
    layer.adapt(X)
    return layer, X


def text_vectorization(keras):
    """A vocabulary of sentences."""
    layer = keras.layers.TextVectorization(output_sequence_length=3)
    layer.adapt(np.array(["a cat", "the cat"]))
    return layer, np.array(["the cat", "a dog"])


def string_lookup(keras):
    """A vocabulary of words."""
    layer = keras.layers.StringLookup()
    layer.adapt(np.array(["a", "b"]))
    return layer, np.array(["b", "z"])


def dense(keras):
    """One that has weights, and was called."""
    layer = keras.layers.Dense(2)
    layer(X)
    return layer, X


def feature_space(keras, output_mode="concat"):
    """Several named inputs, of numbers and of text."""
    space = keras.utils.FeatureSpace(
        features={"age": "float_normalized", "kind": "string_categorical"}, output_mode=output_mode
    )
    space.adapt(tf.data.Dataset.from_tensor_slices(ROWS))
    return space, ROWS


def feature_space_by_name(keras):
    """Several named outputs, too."""
    return feature_space(keras, "dict")


def computed(layer, feed):
    """What the layer itself makes of data, which TensorFlow has to be given as tensors where it is text."""
    tensors = {name: tf.constant(part) for name, part in feed.items()} if isinstance(feed, dict) else None
    return layer(tensors if tensors is not None else tf.constant(feed))


def same(found, expected) -> None:
    """Equal, whatever they come in; MLflow's loader of signatures drops a last axis of 1, and names one."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name, part in expected.items():
            np.testing.assert_allclose(np.squeeze(found[name]), np.squeeze(part), rtol=1e-5)
    else:
        (part,) = found.values() if isinstance(found, dict) else (found,)
        np.testing.assert_allclose(part, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [normalization, text_vectorization, string_lookup, dense, feature_space, feature_space_by_name],
    ids=lambda make: make.__name__,
)
def test_a_layer_comes_back_and_computes_the_same(keras, store: str, make):
    """By ``load_model``, and by stock ``mlflow.pyfunc``, with what the layer takes."""
    layer, feed = make(keras)
    expected = computed(layer, feed)

    @tracked_training
    def prepare():
        return layer

    prepare()
    (logged,) = prepare.last_run.models
    assert (logged.name, logged.status) == ("keras_layer", "READY")
    again = load_model(logged)
    assert type(again) is type(layer)
    same(computed(again, feed), expected)
    stock = mlflow.pyfunc.load_model(logged.uri)
    same(stock.predict(feed), expected)
    if isinstance(feed, dict):
        same(stock.predict(pd.DataFrame(feed)), expected)


def test_a_layer_beside_the_model_is_a_model_of_its_own(keras, store: str):
    """``return model, vectorizer``; both are verified, with predictions."""
    layer, _ = normalization(keras)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])

    @tracked_training(verify="load", input_example={"keras_model": X, "keras_layer": X})
    def train():
        return model, layer

    train()
    models = {
        made.name: mlflow.get_logged_model(made.uri.removeprefix("models:/"))
        for made in train.last_run.models
    }
    assert set(models) == {"keras_model", "keras_layer"}
    assert {model.tags["mlwrap.verified"] for model in models.values()} == {"ok"}
    assert models["keras_layer"].tags["mlwrap.forms"] == "training, serving"


def test_a_layer_that_was_never_called_is_saved(keras, store: str):
    """What it takes nobody knows, so that stock MLflow can't compute with it: one sentence says so."""
    with model_run("r") as run, pytest.warns(MlwrapWarning, match=r"layer 'scale' of run 'r'.*never called"):
        run.log_model(keras.layers.Rescaling(0.5), "scale")
    again = load_model(run)
    np.testing.assert_allclose(again(X), X / 2)
    with pytest.raises(LoadError, match="Leave into= out"):
        load_model(run, into=again)


def test_the_file_of_a_layer_is_none_of_a_model(keras, store: str, tmp_path):
    """A ``.keras`` file that a FeatureSpace wrote: it comes back, and has no generic flavor."""
    space, rows = feature_space(keras)
    space.save(str(tmp_path / "space.keras"))

    @tracked_training
    def prepare():
        return tmp_path / "space.keras"

    prepare()
    (logged,) = prepare.last_run.models
    same(computed(load_model(logged), rows), computed(space, rows))
    assert "python_function" not in mlflow.models.get_model_info(logged.uri).flavors
