"""Time series and texts: recurrent, convolutional, with attention."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(3)
SERIES = rng.normal(size=(12, 6, 2)).astype("float32")
NEXT = SERIES[:, -1, :1]
TOKENS = rng.integers(1, 20, size=(12, 6)).astype("int32")
LABELS = np.arange(12) % 2


def fitted(model, x, y, loss="mse"):
    """Compile and fit."""
    model.compile("adam", loss)
    model.fit(x, y, batch_size=6, verbose=0)
    return model


@zoo("keras-io timeseries forecasting for weather", SERIES[:3])
def lstm_forecaster():
    inputs = keras.Input((6, 2))
    return fitted(keras.Model(inputs, layers.Dense(1)(layers.LSTM(4)(inputs))), SERIES, NEXT)


@zoo("Keras guide: stacked GRUs", SERIES[:3])
def stacked_gru():
    model = keras.Sequential(
        [layers.Input((None, 2)), layers.GRU(4, return_sequences=True), layers.GRU(4), layers.Dense(1)]
    )
    return fitted(model, SERIES, NEXT)


@zoo("keras-io bidirectional LSTM on IMDB, with masking", TOKENS[:3])
def bidirectional_lstm():
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Bidirectional(layers.LSTM(4))(layers.Embedding(20, 8, mask_zero=True)(inputs))
    return fitted(keras.Model(inputs, layers.Dense(1, "sigmoid")(x)), TOKENS, LABELS, "binary_crossentropy")


class FeedBack(keras.Model):
    """As the TensorFlow tutorial: an autoregressive RNN."""

    def __init__(self, units, out_steps):
        super().__init__()
        self.out_steps = out_steps
        self.lstm_cell = layers.LSTMCell(units)
        self.lstm_rnn = layers.RNN(self.lstm_cell, return_state=True)
        self.dense = layers.Dense(2)

    def call(self, inputs, training=None):
        x, *state = self.lstm_rnn(inputs)
        predictions = [self.dense(x)]
        for _ in range(1, self.out_steps):
            x, state = self.lstm_cell(predictions[-1], states=state, training=training)
            predictions.append(self.dense(x))
        return tf.transpose(tf.stack(predictions), [1, 0, 2])


@zoo("TensorFlow tutorial: time series, the autoregressive RNN", SERIES[:3])
def autoregressive_forecaster():
    return fitted(FeedBack(4, out_steps=3), SERIES, SERIES[:, :3])
