"""Keras 2: of TensorFlow 2.15, or tf_keras on today's."""

from __future__ import annotations

import importlib.util

import numpy as np
import tensorflow as tf

from tests.zoo.entries import zoo

if importlib.util.find_spec("tf_keras") is not None:
    import tf_keras as keras
else:
    from tensorflow import keras

layers = keras.layers
rng = np.random.default_rng(7)
X = rng.normal(size=(16, 4)).astype("float32")
Y = X[:, :1]
FEED = X[:3]


def fitted(model, x=X, y=Y):
    """Compile and fit."""
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)
    return model


@zoo("Keras 2: Sequential", FEED)
def legacy_sequential():
    return fitted(keras.Sequential([layers.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)]))


class Net(keras.Model):
    """Without get_config."""

    def __init__(self, units):
        super().__init__()
        self.hidden, self.head = layers.Dense(units, "relu"), layers.Dense(1)

    def call(self, x):
        return self.head(self.hidden(x))


@zoo("Keras 2: subclassed, without get_config", FEED)
def legacy_subclassed():
    return fitted(Net(8))


@zoo("Keras 2: LSTM", X[:3, :, None])
def legacy_lstm():
    return fitted(keras.Sequential([layers.Input((4, 1)), layers.LSTM(4), layers.Dense(1)]), X[..., None])


@zoo("Keras 2: two outputs, one column each", FEED)
def legacy_two_outputs():
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs, {"low": layers.Dense(1, name="low")(inputs), "high": layers.Dense(1, name="high")(inputs)}
    )
    return fitted(model, y={"low": Y, "high": Y})


class TwoHeads(keras.Model):
    """Two outputs of a class of the script's."""

    def __init__(self):
        super().__init__()
        self.low, self.high = layers.Dense(1), layers.Dense(1)

    def call(self, inputs):
        return {"low": self.low(inputs["a"]), "high": self.high(inputs["b"])}


@zoo("Keras 2: subclassed, dict in, dict out", {"a": FEED, "b": FEED})
def legacy_dict_in_dict_out():
    return fitted(TwoHeads(), {"a": X, "b": X}, {"low": Y, "high": Y})


@zoo(
    "Keras 2: DenseFeatures of feature columns",
    {"age": FEED[:, :1], "city": np.array([["rome"], ["oslo"], ["lima"]], dtype=object)},
)
def legacy_feature_columns():
    age = tf.feature_column.numeric_column("age")
    city = tf.feature_column.categorical_column_with_vocabulary_list("city", ["rome", "oslo"])
    inputs = {"age": keras.Input((1,), name="age"), "city": keras.Input((1,), name="city", dtype="string")}
    features = layers.DenseFeatures([age, tf.feature_column.indicator_column(city)])(inputs)
    cities = tf.constant([["rome"], ["oslo"]] * 8)
    return fitted(keras.Model(inputs, layers.Dense(1)(features)), {"age": X[:, :1], "city": cities})


@zoo("Keras 2: a Lambda layer", FEED)
def legacy_lambda():
    return fitted(keras.Sequential([layers.Input((4,)), layers.Lambda(lambda x: x * 2), layers.Dense(1)]))
