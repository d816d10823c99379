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
