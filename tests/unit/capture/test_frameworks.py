"""Keras and TensorFlow objects are recorded by class and configuration; models and data are described."""

from __future__ import annotations

import numpy as np
import pytest

from mlwrap._capture.flatten import params

tf = pytest.importorskip("tensorflow", reason="Keras can run without TensorFlow")
keras = tf.keras


@pytest.fixture(params=["keras", "tf_keras"])
def api(request):
    """Each Keras that is installed here."""
    if request.param == "keras":
        return keras
    return pytest.importorskip("tf_keras", reason="only needed for Keras 2 next to Keras 3")


def texts(value):
    """What is recorded of one value ``v``."""
    return params({"v": value}).values


def test_an_optimizer_and_its_schedule(api):
    """Class names stand under the own name, configurations below it, at every level."""
    schedule = api.optimizers.schedules.ExponentialDecay(0.1, decay_steps=10, decay_rate=0.9)
    found = texts(api.optimizers.Adam(schedule))
    assert found["v"] == "Adam"
    assert found["v.beta_1"] == "0.9"
    assert found["v.learning_rate"] == "ExponentialDecay"
    assert found["v.learning_rate.decay_steps"] == "10"


def test_an_optimizer_with_a_plain_rate(api):
    """The rate is the number that the user gave, as near as float32 has it."""
    assert float(texts(api.optimizers.SGD(0.5))["v.learning_rate"]) == 0.5


def test_numbers_that_were_float32_are_written_shortest(api):
    """A filter on ``0.0003`` finds them: of an optimizer, a schedule in it, and what these hold."""
    assert texts(api.optimizers.Adam(3e-4))["v.learning_rate"] == "0.0003"
    found = texts(api.optimizers.SGD(float(np.float32(0.1)), momentum=1 / 3))
    assert (found["v.learning_rate"], found["v.momentum"]) == ("0.1", str(1 / 3))
    boundaries = api.optimizers.schedules.PiecewiseConstantDecay([1], [float(np.float32(0.1)), 0.01])
    assert texts(boundaries)["v.values"] == "[0.1, 0.01]"


def test_an_estimators_run_config_is_opened():
    """By the parts that can be given to it."""
    if not hasattr(tf, "estimator"):
        pytest.skip("tf.estimator left TensorFlow in 2.16")
    found = texts(tf.estimator.RunConfig(model_dir="there", save_summary_steps=7))
    assert (found["v.model_dir"], found["v.save_summary_steps"]) == ("there", "7")


def test_a_layer_and_what_it_is_made_of(api):
    """Initializers and regularizers inside a layer's configuration are taken apart as well."""
    found = texts(api.layers.Dense(2, kernel_regularizer=api.regularizers.L2(0.5)))
    assert (found["v"], found["v.units"]) == ("Dense", "2")
    assert found["v.kernel_initializer"] == "GlorotUniform"
    assert (found["v.kernel_regularizer"], found["v.kernel_regularizer.l2"]) == ("L2", "0.5")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("losses", "MeanSquaredError"),
        ("metrics", "Mean"),
        ("initializers", "GlorotUniform"),
        ("regularizers", "L2"),
        ("constraints", "MaxNorm"),
    ],
)
def test_other_components(api, module, name):
    """Losses, metrics, initializers, regularizers and constraints likewise, alone and in lists."""
    made = getattr(getattr(api, module), name)()
    assert texts(made)["v"] == name
    assert texts([made, "acc"])["v.0"] == name


def test_a_layer_without_a_configuration(api):
    """A custom layer that can't tell its configuration still has a class."""

    class Silent(api.layers.Layer):
        def get_config(self):
            raise NotImplementedError

    assert texts(Silent()) == {"v": "Silent"}


def test_models_are_described(api):
    """A model is what comes out, not what goes in: its type is enough."""
    found = texts(api.Sequential([api.layers.Dense(1)]))
    assert list(found) == ["v"]
    assert found["v"].endswith("Sequential")


class Generator(tf.Module):
    """A module with wrapped containers."""

    def __init__(self):
        super().__init__()
        self.options = {"units": 3}
        self.sizes = [64, 32]


def test_tracked_containers():
    """TensorFlow wraps the containers of its modules; they are recorded as what they hold."""
    module = Generator()
    assert texts(module) == {"v": f"{__name__}.Generator"}
    assert texts(module.options) == {"v.units": "3"}
    assert texts(module.sizes) == {"v": "[64, 32]"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tf.constant([1.0, 2.0]), "EagerTensor(2,) float32"),
        (lambda: tf.Variable([[1]]), "ResourceVariable(1, 1) int32"),
        (lambda: tf.float32, "float32"),
        (lambda: tf.TensorShape([None, 28]), "(None, 28)"),
        (lambda: tf.TensorSpec([2]), "TensorSpec(shape=(2,), dtype=tf.float32, name=None)"),
        (lambda: tf.keras.Input((2,)), "KerasTensor(None, 2) float32"),
        (
            lambda: tf.keras.callbacks.EarlyStopping,
            tf.keras.callbacks.EarlyStopping.__module__ + ".EarlyStopping",
        ),
    ],
)
def test_tensors_and_their_types(make, text):
    """Shape and dtype, never a value."""
    assert texts(make()) == {"v": text}


def test_datasets_are_never_iterated():
    """A dataset's elements are described without making one."""

    def explode():
        raise AssertionError("the dataset was iterated")
        yield 1

    dataset = tf.data.Dataset.from_generator(explode, output_signature=tf.TensorSpec((), tf.int64))
    assert "TensorSpec(shape=(), dtype=tf.int64" in texts(dataset)["v"]
    assert texts(iter(tf.data.Dataset.range(3)))["v"].endswith("OwnedIterator")


def test_functions():
    """Traced and plain functions go by their names."""
    assert texts(tf.function(test_functions)) == {"v": f"{__name__}.test_functions"}
    assert texts(tf.nn.relu)["v"].endswith("relu")


def test_estimators_are_described():
    """An Estimator is a model, whatever it inherits from."""
    if not hasattr(tf, "estimator"):
        pytest.skip("TensorFlow has no Estimators since 2.16")
    column = tf.feature_column.numeric_column("x")
    assert texts(tf.estimator.LinearRegressor([column]))["v"].endswith("LinearRegressorV2")
    assert texts(column)["v.key"] == "x"
