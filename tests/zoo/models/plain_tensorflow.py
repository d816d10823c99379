"""TensorFlow without Keras."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(6)
X = rng.normal(size=(16, 3)).astype("float32")
Y = (X @ np.array([[1.0], [2.0], [3.0]])).astype("float32")
FEED = X[:3]


class Regression(tf.Module):
    """As the guide on core APIs trains one."""

    def __init__(self):
        super().__init__()
        self.w, self.b = tf.Variable(tf.zeros([3, 1])), tf.Variable(tf.zeros([1]))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def __call__(self, x):
        return x @ self.w + self.b


def trained(module):
    """Gradient descent by hand."""
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((module(tf.constant(X)) - Y) ** 2)
        for variable, gradient in zip(
            module.trainable_variables, tape.gradient(loss, module.trainable_variables), strict=True
        ):
            variable.assign_sub(0.1 * gradient)
    return module


@zoo(
    "TensorFlow guide: a tf.Module and a loop of one's own",
    FEED,
    predict=lambda module, feed: module(tf.constant(feed)),
)
def module():
    return trained(Regression())


class Untraced(tf.Module):
    """No tf.function: only Python can call it."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.zeros([3, 1]))

    def __call__(self, x):
        return x @ self.w


@zoo("TensorFlow guide: a tf.Module whose `__call__` is plain Python", predict=lambda module, feed: None)
def module_without_functions():
    return trained(Untraced())


class Statistics(Regression):
    """Several outputs, by name."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def __call__(self, x):
        y = x @ self.w + self.b
        return {"mean": y, "interval": tf.concat([y - 1.0, y + 1.0], axis=-1)}


@zoo("a tf.Module with several outputs", FEED, predict=lambda module, feed: module(tf.constant(feed)))
def module_with_several_outputs():
    return Statistics()


class TwoInputs(tf.Module):
    """Two tensors in, a column and a number of columns out."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, "left"),
            tf.TensorSpec([None, 3], tf.float32, "right"),
        ]
    )
    def __call__(self, left, right):
        both = (left + right) * self.scale
        return {"sum": both, "total": tf.reduce_sum(both, axis=-1, keepdims=True)}


@zoo(
    "a tf.Module with several inputs and outputs",
    {"left": FEED, "right": FEED},
    predict=lambda module, feed: module(tf.constant(feed["left"]), tf.constant(feed["right"])),
)
def module_with_two_inputs():
    return TwoInputs()


@zoo(
    "a tf.function alone, with what it closes over",
    FEED,
    predict=lambda function, feed: function(tf.constant(feed)),
)
def function():
    w = tf.Variable(tf.ones([3, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def predict(x):
        return tf.nn.softmax(x @ w)

    return predict


WEIGHTS = tf.Variable(tf.ones([3, 2]))  # a concrete function keeps none alive


@zoo("a concrete function", FEED, predict=lambda function, feed: function(tf.constant(feed)))
def concrete_function():
    traced = tf.function(lambda x: x @ WEIGHTS, autograph=False)
    return traced.get_concrete_function(tf.TensorSpec([None, 3], tf.float32))


EXPORTED = keras.Sequential([layers.Input((3,)), layers.Dense(1)])


@zoo("Keras guide: an ExportArchive", FEED, predict=lambda archive, feed: EXPORTED(feed))
def export_archive():
    archive = keras.export.ExportArchive()
    archive.track(EXPORTED)
    archive.add_endpoint("serve", EXPORTED.call, input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    return archive


@zoo("model.export: the path of a SavedModel", FEED, predict=lambda path, feed: EXPORTED(feed))
def path_of_a_saved_model():
    path = Path("exported")
    EXPORTED.export(str(path), verbose=False)
    return path


@zoo("TensorFlow guide: tf.train.Checkpoint", predict=lambda checkpoint, feed: None)
def checkpoint():
    regression = trained(Regression())
    return tf.train.Checkpoint(model=regression, step=tf.Variable(3))


@zoo("a loop in numpy: weights as arrays", predict=lambda weights, feed: None)
def numpy_loop():
    w = np.zeros((3, 1))
    for _ in range(5):
        w -= 0.1 * X.T @ (X @ w - Y) / len(X)
    return {"weights": w, "loss": float(np.mean((X @ w - Y) ** 2))}


class Tokens(tf.Module):
    """Text in."""

    def __init__(self):
        super().__init__()
        keys, values = tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, words):
        return self.table.lookup(words)


@zoo(
    "a lookup table in a tf.Module: text in",
    np.array(["a", "b", "c"], dtype=object),
    predict=lambda module, feed: module(tf.constant(feed.tolist())),
)
def module_with_a_table():
    return Tokens()
