"""Text, tables and dictionaries in; dictionaries, lists and single columns out; preprocessing alone."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(1)
X = rng.normal(size=(16, 4)).astype("float32")
Y = X[:, :1]
REVIEWS = np.array(["a great movie", "an awful plot", "great actors", "awful"] * 4, dtype=object)
STARS = np.array([1, 0, 1, 0] * 4, dtype="float32")[:, None]
TITLES = np.array(["the sea", "a war", "the wind", "war"] * 4, dtype=object)


def tensors(array):
    """Text as TensorFlow's."""
    return tf.constant(array.tolist())


def vectorized(texts, **options):
    """A TextVectorization that has learned."""
    layer = layers.TextVectorization(max_tokens=20, output_sequence_length=4, **options)
    layer.adapt(tensors(texts))
    return layer


@zoo("keras-io text classification from scratch: the end-to-end model", REVIEWS[:3, None])
def text_in():
    text = keras.Input((1,), dtype="string")
    hidden = layers.Embedding(21, 8)(vectorized(REVIEWS)(text))
    outputs = layers.Dense(1, "sigmoid")(layers.GlobalMaxPooling1D()(hidden))
    model = keras.Model(text, outputs)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(tensors(REVIEWS)[:, None], STARS, verbose=0)
    return model


def custom_standardization(data):
    """As the IMDB tutorial strips its HTML."""
    return tf.strings.regex_replace(tf.strings.lower(data), "<br />", " ")


@zoo("TensorFlow tutorial: text classification with a standardization of the script's", REVIEWS[:3, None])
def text_in_own_standardization():
    model = keras.Sequential(
        [
            layers.Input((1,), dtype="string"),
            vectorized(REVIEWS, standardize=custom_standardization),
            layers.Embedding(21, 8),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    model.fit(tensors(REVIEWS)[:, None], STARS, verbose=0)
    return model


@zoo(
    "keras-io customer ticket routing: several text inputs",
    {"title": TITLES[:3, None], "body": REVIEWS[:3, None]},
)
def several_text_inputs():
    title, body = (keras.Input((1,), dtype="string", name=name) for name in ("title", "body"))
    parts = [
        layers.GlobalAveragePooling1D()(layers.Embedding(21, 4)(vectorized(texts)(text)))
        for text, texts in ((title, TITLES), (body, REVIEWS))
    ]
    model = keras.Model({"title": title, "body": body}, layers.Dense(1)(layers.concatenate(parts)))
    model.compile("adam", "mse")
    model.fit({"title": tensors(TITLES)[:, None], "body": tensors(REVIEWS)[:, None]}, STARS, verbose=0)
    return model


@zoo("Keras guide: several inputs and outputs, by name", {"a": X[:3], "b": X[:3, :2]})
def dict_in_dict_out():
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    both = layers.Dense(8, "relu")(layers.concatenate([a, b]))
    outputs = {
        "priority": layers.Dense(1, name="priority")(both),
        "department": layers.Dense(3, name="department")(both),
    }
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile("adam", {"priority": "mse", "department": "mse"})
    model.fit({"a": X, "b": X[:, :2]}, {"priority": Y, "department": X[:, :3]}, verbose=0)
    return model


class Multitask(keras.Model):
    """A dictionary in and a dictionary out, in a class of the script's."""

    def __init__(self, width):
        super().__init__()
        self.body = layers.Dense(width, "relu")
        self.click, self.price = layers.Dense(1), layers.Dense(2)

    def call(self, inputs):
        hidden = self.body(keras.ops.concatenate([inputs["user"], inputs["item"]], axis=-1))
        return {"click": self.click(hidden), "price": self.price(hidden)}


@zoo("a multi-task recommender, subclassed: dict in, dict out", {"user": X[:3], "item": X[:3, :2]})
def subclassed_dict_in_dict_out():
    model = Multitask(8)
    model.compile("adam", {"click": "mse", "price": "mse"})
    model.fit({"user": X, "item": X[:, :2]}, {"click": Y, "price": X[:, :2]}, verbose=0)
    return model


@zoo("an age and gender network: a list of outputs", X[:3])
def list_of_outputs():
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(1, name="age")(hidden), layers.Dense(2, name="gender")(hidden)])
    model.compile("adam", ["mse", "mse"])
    model.fit(X, [Y, X[:, :2]], verbose=0)
    return model


class TwoHeads(keras.Model):
    """A tuple out."""

    def __init__(self):
        super().__init__()
        self.mean, self.deviation = layers.Dense(1), layers.Dense(1, "softplus")

    def call(self, x):
        return self.mean(x), self.deviation(x)


@zoo("a probabilistic regression, subclassed: a tuple of one-column outputs", X[:3])
def subclassed_tuple_of_columns():
    model = TwoHeads()
    model.compile("adam", ["mse", "mse"])
    model.fit(X, (Y, Y), verbose=0)
    return model


@keras.saving.register_keras_serializable("zoo")
class Gate(layers.Layer):
    """A layer of the script's."""

    def call(self, inputs):
        a, b = inputs
        return a * keras.ops.sigmoid(b)


@zoo("several inputs, a layer of the script's, one-column outputs", {"a": X[:3], "b": X[:3]})
def one_column_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    hidden = Gate()([a, b])
    model = keras.Model([a, b], {"low": layers.Dense(1)(hidden), "high": layers.Dense(1)(hidden)})
    model.compile("adam", {"low": "mse", "high": "mse"})
    model.fit({"a": X, "b": X}, {"low": Y, "high": Y}, verbose=0)
    return model


CITIES = np.array(["rome", "oslo", "rome", "lima"] * 4, dtype=object)[:, None]


@zoo("keras-io structured data: a word and numbers in", {"city": CITIES[:3], "numbers": X[:3]})
def words_and_numbers():
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(tensors(CITIES))
    scale = layers.Normalization()
    scale.adapt(X)
    city, numbers = keras.Input((1,), name="city", dtype="string"), keras.Input((4,), name="numbers")
    joined = layers.concatenate([lookup(city), scale(numbers)])
    model = keras.Model({"city": city, "numbers": numbers}, layers.Dense(1)(joined))
    model.compile("adam", "mse")
    model.fit({"city": tensors(CITIES), "numbers": X}, Y, verbose=0)
    return model


TABLE = {"age": rng.integers(20, 60, size=16).astype("float32")[:, None], "city": CITIES}
ROWS = {"age": TABLE["age"][:3], "city": CITIES[:3]}


def feature_space():
    """A FeatureSpace that has learned."""
    space = keras.utils.FeatureSpace(
        features={"age": keras.utils.FeatureSpace.float_normalized(), "city": "string_categorical"},
        output_mode="concat",
    )
    columns = {"age": tf.constant(TABLE["age"][:, 0]), "city": tensors(CITIES[:, 0])}
    space.adapt(tf.data.Dataset.from_tensor_slices(columns))
    return space


@zoo("keras-io FeatureSpace: the inference model, from raw rows", ROWS)
def feature_space_model():
    space = feature_space()
    raw, encoded = space.get_inputs(), space.get_encoded_features()
    hidden = layers.Dense(4, "relu")(encoded)
    model = keras.Model(raw, layers.Dense(1, "sigmoid")(hidden))
    model.compile("adam", "binary_crossentropy")
    model.fit({"age": TABLE["age"], "city": tensors(CITIES)}, STARS, verbose=0)
    return model


@zoo(
    "keras-io FeatureSpace: the object itself, from the columns of a table",
    {name: column.ravel() for name, column in ROWS.items()},
    predict=lambda space, feed: space({"age": feed["age"], "city": tensors(feed["city"])}),
)
def feature_space_alone():
    return feature_space()


@zoo(
    "Keras guide: an adapted Normalization as the result",
    X[:3],
    predict=lambda layer, feed: layer(feed),
)
def normalization_alone():
    layer = layers.Normalization()
    layer.adapt(X)
    return layer


@zoo(
    "Keras guide: an adapted StringLookup as the result",
    CITIES[:3].ravel(),
    predict=lambda layer, feed: layer(tensors(feed)),
)
def string_lookup_alone():
    layer = layers.StringLookup()
    layer.adapt(tensors(CITIES))
    return layer


@zoo("Keras guide: preprocessing as a model of its own", X[:3])
def preprocessing_model():
    layer = layers.Normalization()
    layer.adapt(X)
    return keras.Sequential([layers.Input((4,)), layer, layers.Discretization([-1.0, 0.0, 1.0])])
