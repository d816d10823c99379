"""Estimators of TensorFlow 2.15, with a function that says how they are fed."""

from __future__ import annotations

import tempfile

import numpy as np
import tensorflow as tf

from tests.zoo.entries import zoo

rng = np.random.default_rng(8)
X = rng.normal(size=(16, 1)).astype("float32")
CITIES = np.array([["rome"], ["oslo"]] * 8, dtype=object)
ROWS = {"x": X[:3], "city": CITIES[:3]}
X_COLUMN = tf.feature_column.numeric_column("x")
CITY = tf.feature_column.indicator_column(
    tf.feature_column.categorical_column_with_vocabulary_list("city", ["rome", "oslo"])
)


def data(target):
    """A function of data, as Estimators take it."""
    rows = {"x": X, "city": CITIES.astype(str)}
    return lambda: tf.data.Dataset.from_tensor_slices((rows, target)).batch(8)


def receiver():
    """How it is fed when it is served."""
    placeholder = tf.compat.v1.placeholder
    fed = {"x": placeholder(tf.float32, [None, 1], "x"), "city": placeholder(tf.string, [None, 1], "city")}
    return tf.estimator.export.ServingInputReceiver(fed, fed)


def predicted(make, *keys):
    """What the Estimator itself predicts, by name; one is made of a checkpoint's folder again."""

    def predict(estimator, feed):
        if not isinstance(estimator, tf.estimator.Estimator):
            estimator = make(str(estimator))
        rows = {"x": feed["x"], "city": feed["city"].astype(str)}
        answers = list(estimator.predict(lambda: tf.data.Dataset.from_tensors(rows)))
        return {key: np.array([answer[key] for answer in answers]) for key in keys}

    return predict


def linear(folder):
    """On two columns."""
    return tf.estimator.LinearRegressor([X_COLUMN, CITY], model_dir=folder)


@zoo(
    "TensorFlow tutorial: a linear regression",
    ROWS,
    predict=predicted(linear, "predictions"),
    serving_input_receiver_fn=receiver,
)
def linear_regressor():
    return linear(tempfile.mkdtemp()).train(data(2 * X), steps=2)


@zoo("an Estimator without a serving function", predict=lambda estimator, feed: None)
def estimator_without_a_serving_function():
    return linear(tempfile.mkdtemp()).train(data(2 * X), steps=2)


def model_fn(features, labels, mode, params):
    """As the guide on custom Estimators."""
    net = tf.compat.v1.feature_column.input_layer(features, [X_COLUMN, CITY])
    net = tf.compat.v1.layers.dense(net, params["units"], activation=tf.nn.relu)
    logits = tf.compat.v1.layers.dense(net, 3)
    predictions = {"scores": tf.nn.softmax(logits), "best": tf.reduce_max(logits, axis=-1, keepdims=True)}
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions=predictions)
    loss = tf.compat.v1.losses.sparse_softmax_cross_entropy(labels=labels, logits=logits)
    train = tf.compat.v1.train.AdamOptimizer().minimize(loss, tf.compat.v1.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train)


def custom(folder):
    """Of the function above."""
    return tf.estimator.Estimator(model_fn, params={"units": 4}, model_dir=folder)


@zoo(
    "TensorFlow guide: a custom model_fn, two outputs",
    ROWS,
    predict=predicted(custom, "scores", "best"),
    serving_input_receiver_fn=receiver,
)
def custom_estimator():
    return custom(tempfile.mkdtemp()).train(data(np.arange(16) % 3), steps=2)
