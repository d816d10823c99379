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


class ResidualWrapper(keras.Model):
    """A model around a model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, inputs, *args, **kwargs):
        return inputs + self.model(inputs, *args, **kwargs)


@zoo("TensorFlow tutorial: time series, the residual wrapper", SERIES[:3])
def residual_wrapper():
    inner = keras.Sequential(
        [layers.LSTM(4, return_sequences=True), layers.Dense(2, kernel_initializer="zeros")]
    )
    return fitted(ResidualWrapper(inner), SERIES, SERIES)


@zoo("a dilated convolutional forecaster, as WaveNet", SERIES[:3])
def convolutional_forecaster():
    x = inputs = keras.Input((6, 2))
    for rate in (1, 2, 4):
        x = layers.Conv1D(4, 2, padding="causal", dilation_rate=rate, activation="relu")(x)
    return fitted(keras.Model(inputs, layers.Dense(1)(x[:, -1])), SERIES, NEXT)


class TransformerBlock(layers.Layer):
    """As in the example: no configuration."""

    def __init__(self, embed_dim, num_heads, ff_dim, rate=0.1):
        super().__init__()
        self.att = layers.MultiHeadAttention(num_heads=num_heads, key_dim=embed_dim)
        self.ffn = keras.Sequential([layers.Dense(ff_dim, activation="relu"), layers.Dense(embed_dim)])
        self.layernorm1, self.layernorm2 = (layers.LayerNormalization(epsilon=1e-6) for _ in range(2))
        self.dropout1, self.dropout2 = layers.Dropout(rate), layers.Dropout(rate)

    def call(self, inputs):
        out1 = self.layernorm1(inputs + self.dropout1(self.att(inputs, inputs)))
        return self.layernorm2(out1 + self.dropout2(self.ffn(out1)))


class TokenAndPositionEmbedding(layers.Layer):
    """As in the example: no configuration."""

    def __init__(self, maxlen, vocab_size, embed_dim):
        super().__init__()
        self.token_emb = layers.Embedding(input_dim=vocab_size, output_dim=embed_dim)
        self.pos_emb = layers.Embedding(input_dim=maxlen, output_dim=embed_dim)

    def call(self, x):
        positions = self.pos_emb(keras.ops.arange(0, keras.ops.shape(x)[-1], 1))
        return self.token_emb(x) + positions


@zoo(
    "keras-io text classification with a Transformer: layers without get_config",
    TOKENS[:3],
)
def transformer_block():
    inputs = keras.Input((6,))
    x = TransformerBlock(8, 2, 8)(TokenAndPositionEmbedding(6, 20, 8)(inputs))
    outputs = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    return fitted(keras.Model(inputs, outputs), TOKENS, LABELS, "sparse_categorical_crossentropy")


@zoo("keras-io miniature GPT: a list of outputs, of which one has a loss", TOKENS[:3])
def miniature_gpt():
    inputs = keras.Input((6,), dtype="int32")
    x = TransformerBlock(8, 2, 8)(TokenAndPositionEmbedding(6, 20, 8)(inputs))
    model = keras.Model(inputs, [layers.Dense(20)(x), x])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=[loss, None])
    model.fit(TOKENS, TOKENS, verbose=0)
    return model


@zoo("keras-io timeseries classification: attention of Keras's own", SERIES[:3])
def attention():
    inputs = keras.Input((6, 2))
    attended = layers.MultiHeadAttention(num_heads=2, key_dim=4)(inputs, inputs)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(attended + inputs))
    return fitted(keras.Model(inputs, layers.Dense(1)(x)), SERIES, NEXT)


@zoo(
    "keras-io sequence-to-sequence: encoder and decoder",
    {"encoder_inputs": SERIES[:3], "decoder_inputs": SERIES[:3, :4]},
)
def sequence_to_sequence():
    encoder, decoder = (
        keras.Input((None, 2), name="encoder_inputs"),
        keras.Input((None, 2), name="decoder_inputs"),
    )
    _, *states = layers.LSTM(4, return_state=True)(encoder)
    hidden = layers.LSTM(4, return_sequences=True)(decoder, initial_state=states)
    model = keras.Model([encoder, decoder], layers.Dense(2)(hidden))
    return fitted(model, [SERIES, SERIES[:, :4]], SERIES[:, :4])


VOCABULARY = list("abcdefg ")


class CharacterModel(keras.Model):
    """As the TensorFlow tutorial on text generation."""

    def __init__(self, vocab_size, embedding_dim, rnn_units):
        super().__init__()
        self.embedding = layers.Embedding(vocab_size, embedding_dim)
        self.gru = layers.GRU(rnn_units, return_sequences=True, return_state=True)
        self.dense = layers.Dense(vocab_size)

    def call(self, inputs, states=None, return_state=False, training=False):
        x, states = self.gru(self.embedding(inputs), initial_state=states, training=training)
        x = self.dense(x)
        return (x, states) if return_state else x


@zoo("TensorFlow tutorial: text generation, the character model", TOKENS[:3] % 8)
def character_model():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return fitted(CharacterModel(8, 4, 4), TOKENS % 8, TOKENS % 8, loss)


class OneStep(tf.Module):
    """One character after another: text in, text out."""

    def __init__(self, model, ids_from_chars, chars_from_ids):
        super().__init__()
        self.model, self.ids_from_chars, self.chars_from_ids = model, ids_from_chars, chars_from_ids

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, inputs):
        ids = self.ids_from_chars(tf.strings.unicode_split(inputs, "UTF-8")).to_tensor()
        return self.chars_from_ids(tf.argmax(self.model(ids)[:, -1], axis=-1))


@zoo("TensorFlow tutorial: text generation, one step as a tf.Module", np.array(["abc", "gad"], dtype=object))
def text_generator():
    model = CharacterModel(9, 4, 4)
    model(TOKENS % 8)
    ids = layers.StringLookup(vocabulary=VOCABULARY)
    chars = layers.StringLookup(vocabulary=ids.get_vocabulary(), invert=True)
    return OneStep(model, ids, chars)
