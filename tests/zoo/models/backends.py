"""Keras 3 on JAX and on PyTorch, with no TensorFlow about."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(9)
X = rng.normal(size=(16, 4)).astype("float32")
Y = X[:, :1]
FEED = X[:3]


def fitted(model, y=Y):
    """Compile and fit."""
    model.compile("adam", "mse")
    model.fit(X, y, verbose=0)
    return model


@zoo("Keras guide: the functional API", FEED)
def functional():
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, "relu")(inputs)
    return fitted(keras.Model(inputs, layers.Dense(1)(layers.concatenate([inputs, hidden]))))


@zoo("Keras guide: stacked GRUs", X[:3, :, None])
def recurrent():
    model = keras.Sequential([layers.Input((4, 1)), layers.GRU(4, return_sequences=True), layers.GRU(2)])
    model.compile("adam", "mse")
    model.fit(X[..., None], X[:, :2], verbose=0)
    return model


@zoo("Keras guide: several inputs, one output", {"a": FEED, "b": FEED})
def several_inputs():
    inputs = {name: keras.Input((4,), name=name) for name in ("a", "b")}
    model = keras.Model(inputs, layers.Dense(1)(layers.add(list(inputs.values()))))
    model.compile("adam", "mse")
    model.fit({"a": X, "b": X}, Y, verbose=0)
    return model


@zoo("keras-io actor-critic: two outputs", FEED)
def actor_critic():
    inputs = keras.Input((4,))
    common = layers.Dense(8, "relu")(inputs)
    return fitted(keras.Model(inputs, [layers.Dense(2)(common), layers.Dense(1)(common)]), [X[:, :2], Y])


@keras.saving.register_keras_serializable("zoo")
class Scale(layers.Layer):
    """A layer of the script's."""

    def call(self, x):
        return x * 3.0


@zoo("Keras guide: a custom layer, registered in the script", FEED)
def custom_layer():
    return fitted(keras.Sequential([layers.Input((4,)), Scale(), layers.Dense(1)]))


class Net(keras.Model):
    """Without get_config."""

    def __init__(self, units):
        super().__init__()
        self.hidden, self.head = layers.Dense(units, "relu"), layers.Dense(1)

    def call(self, x):
        return self.head(self.hidden(x))


@zoo(
    "Keras guide: subclassed, without get_config",
    FEED,
    predict=lambda model, feed: model.predict(feed, verbose=0),
)
def subclassed_without_get_config():
    return fitted(Net(8))


@zoo("Keras guide: quantised to int8 after the training", FEED)
def int8_quantised():
    model = fitted(keras.Sequential([layers.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)]))
    model.quantize("int8")
    return model


@zoo("Keras guide: mixed precision", FEED)
def mixed_float16():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(8, dtype="mixed_float16"), layers.Dense(1)])
    return fitted(model)
