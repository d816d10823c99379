"""Less precise, fine-tuned, tuned, on several devices."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(5)
X = rng.normal(size=(16, 4)).astype("float32")
Y = X[:, :1]
FEED = X[:3]


def network(width=8, **options):
    """Two layers."""
    return keras.Sequential(
        [layers.Input((4,)), layers.Dense(width, "relu", **options), layers.Dense(1, **options)]
    )


def fitted(model):
    """Compile and fit."""
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    return model


@zoo("Keras guide: mixed precision", FEED)
def mixed_float16():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        inputs = keras.Input((4,))
        hidden = layers.Dense(8, "relu")(inputs)
        return fitted(keras.Model(inputs, layers.Dense(1, dtype="float32")(hidden)))
    finally:
        keras.mixed_precision.set_global_policy("float32")


@zoo("weights and sums in bfloat16", FEED)
def mixed_bfloat16():
    return fitted(network(dtype="mixed_bfloat16"))


@zoo("Keras guide: quantised to int8 after the training", FEED)
def int8_quantised():
    model = fitted(network())
    model.quantize("int8")
    return model


@zoo("keras-io parameter-efficient fine-tuning: enable_lora", FEED)
def lora():
    model = fitted(network())
    for layer in model.layers:
        layer.enable_lora(2)
    return fitted(model)


@zoo("transfer learning: a frozen base", FEED)
def frozen_base():
    base = fitted(network())
    base.trainable = False
    inputs = keras.Input((4,))
    return fitted(keras.Model(inputs, layers.Dense(1)(base(inputs, training=False))))


@zoo("Keras guide: MirroredStrategy", FEED)
def mirrored_strategy():
    with tf.distribute.MirroredStrategy().scope():
        return fitted(network())


@zoo("an averaging optimizer: EMA of the weights", FEED)
def averaged_weights():
    model = network()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    model.fit(X, Y, verbose=0)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return model


@zoo("a search for the best width: the best model and its history", FEED, of=lambda both: both[0])
def tuner_loop():
    trials = []
    for width in (2, 4):
        model = network(width)
        model.compile("adam", "mse")
        history = model.fit(X, Y, validation_split=0.25, epochs=2, verbose=0)
        trials.append((min(history.history["val_loss"]), model, history))
    _, best_model, history = min(trials, key=lambda trial: trial[0])
    return best_model, history


@zoo(
    "numbers of type float64 as numpy makes them",
    X[:3].astype("float64"),
    input_example=X[:3].astype("float64"),
)
def float64_data():
    model = network()
    model.compile("adam", "mse")
    model.fit(X.astype("float64"), Y.astype("float64"), verbose=0)
    return model


class Ensemble(keras.Model):
    """Models in a model."""

    def __init__(self, members):
        super().__init__()
        self.members = members

    def call(self, x):
        return keras.ops.mean(keras.ops.stack([member(x) for member in self.members]), axis=0)


@zoo("an ensemble of trained models", FEED)
def ensemble():
    model = Ensemble([fitted(network()) for _ in range(2)])
    model(X)
    return model


@zoo("spectral normalisation around a layer", FEED)
def wrapped_layer():
    model = keras.Sequential(
        [layers.Input((4,)), layers.SpectralNormalization(layers.Dense(3)), layers.Dense(1)]
    )
    return fitted(model)
