"""The kinds of Keras models that people train: how each is made, what it is fed, what becomes of it."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# A module of the user's own, as it lies on the path.
PARTS = '''
"""Parts of models, registered with Keras."""

import {keras} as keras
import tensorflow as tf

register = keras.saving.register_keras_serializable("parts")


@register
class Scale(keras.layers.Layer):
    def __init__(self, factor=2.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {{**super().get_config(), "factor": self.factor}}


@register
class Half(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1) / 2


@register
class Error(keras.metrics.MeanAbsoluteError):
    pass


@register
def thrice(x):
    return 3 * x


@register
def mean_error(y_true, y_pred):
    return tf.reduce_mean(tf.abs(y_true - y_pred), axis=-1)


@register
class Near(keras.initializers.Constant):
    pass


@register
class Tiny(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


@register
class Pair(Tiny):
    def call(self, inputs):
        return self.dense(inputs["a"]) + self.dense(inputs["b"])


class Stray(keras.layers.Layer):
    def call(self, x):
        return x + 1


def astray(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)
'''

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = X[:, :2]
WHOLE = (10 * X).astype("int32")
WORDS = np.array([["cat"], ["the cat"], ["a cat"]])


class Kind(NamedTuple):
    """A kind of model.

    Attributes:
        make: Makes one, of a Keras and the module of ``PARTS``.
        feed: What it predicts from; text is made a tensor, for Keras 3 takes none of numpy's.
        inputs: Its signature: name, type and shape of each input.
        warns: What is said when it is saved.
        trust: Whether it loads only with ``trust=True``.
        pyfunc: Whether MLflow's generic loader can predict with it, where it is of Keras 3.
        keras_3: Whether only Keras 3 has it.
    """

    make: Callable[[Any, types.ModuleType], Any]
    feed: Any = X
    inputs: Any = ((None, "float32", (-1, 4)),)
    warns: str | None = None
    trust: bool = False
    pyfunc: bool = True
    keras_3: bool = False


def parts_of(keras: Any, folder: Any) -> types.ModuleType:
    """Write the parts for a Keras into ``folder``, which is on the path, and import them."""
    name = f"parts_{keras.__name__}"
    folder.joinpath(f"{name}.py").write_text(PARTS.format(keras=keras.__name__))
    return importlib.import_module(name)


def sequential(keras, parts):
    """Layers in a row, compiled and fitted."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, Y, verbose=0)
    return model


def lazy(keras, parts):
    """Has no input until it is called."""
    model = keras.Sequential([keras.layers.Dense(2)])
    model(X)
    return model


def functional(keras, parts):
    """A graph of layers, with a skip."""
    inputs = keras.Input((None, 4))
    hidden = keras.layers.Dense(4)(inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.add([inputs, hidden])))


def subclassed(keras, parts):
    """A class of the user's, fitted on data of another type than it computes in."""
    model = parts.Tiny()
    model.compile("sgd", "mse")
    model.fit(WHOLE, Y, verbose=0)
    return model


def subclassed_called(keras, parts):
    """A class of the user's that was only called, and asked to predict."""
    model = parts.Tiny()
    model(X)
    return model


def subclassed_dictionary(keras, parts):
    """A class of the user's that takes a dictionary."""
    model = parts.Pair()
    model.compile("sgd", "mse")
    model.fit({"a": X, "b": X}, Y, verbose=0)
    return model


def _two(keras):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b", dtype="int32")
    return a, b, [keras.layers.Dense(2)(a), keras.layers.Flatten()(keras.layers.Embedding(9, 2)(b))]


def several_inputs(keras, parts):
    """A list of inputs, fed by name."""
    a, b, hidden = _two(keras)
    return keras.Model([a, b], keras.layers.Dense(2)(keras.layers.concatenate(hidden)))


def dictionary_inputs(keras, parts):
    """A dictionary of inputs."""
    a, b, hidden = _two(keras)
    return keras.Model({"a": a, "b": b}, keras.layers.Dense(2)(keras.layers.concatenate(hidden)))


def several_outputs(keras, parts):
    """A dictionary of outputs."""
    a, b, (p, q) = _two(keras)
    return keras.Model({"a": a, "b": b}, {"p": p, "q": q})


def own_parts(keras, parts):
    """Layer, activation, initialiser, loss and metrics of the user's, all registered."""
    layers = [
        keras.layers.Input((4,)),
        keras.layers.Dense(2, activation=parts.thrice, kernel_initializer=parts.Near(0.5)),
        parts.Scale(3.0),
    ]
    model = keras.Sequential(layers)
    model.compile("sgd", parts.Half(), metrics=[parts.Error(), parts.mean_error])
    model.fit(X, Y, verbose=0)
    return model


def stray_parts(keras, parts):
    """Layer and loss of the user's that nobody registered."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2), parts.Stray()])
    model.compile("sgd", parts.astray)
    model.fit(X, Y, verbose=0)
    return model


def a_lambda(keras, parts):
    """Code in a layer."""
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)])


def a_named_function(keras, parts):
    """A registered function in a Lambda layer."""
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(parts.thrice)])


def mixed_precision(keras, parts):
    """Computes in float16, keeps float32."""
    policy = (
        "mixed_float16"
        if keras.__version__.startswith("3.")
        else keras.mixed_precision.Policy("mixed_float16")
    )
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, dtype=policy)])


def quantised(keras, parts):
    """Weights of eight bits."""
    model = keras.Sequential([keras.layers.Dense(2)])
    model.build((None, 4))
    model.quantize("int8")
    return model


def low_rank(keras, parts):
    """Fine-tuned through LoRA."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    model.layers[0].enable_lora(2)
    model.compile("sgd", "mse")
    model.fit(X, Y, epochs=2, verbose=0)
    return model


def words_looked_up(keras, parts):
    """A vocabulary that was learned."""
    lookup = keras.layers.StringLookup(output_mode="multi_hot")
    lookup.adapt(WORDS[:, 0])
    return keras.Sequential([keras.layers.Input((1,), dtype="string"), lookup, keras.layers.Dense(2)])


def words_of_text(keras, parts):
    """Text, split and looked up."""
    text = keras.layers.TextVectorization(output_mode="tf_idf")
    text.adapt(WORDS[:, 0])
    return keras.Sequential([keras.layers.Input((1,), dtype="string"), text, keras.layers.Dense(2)])


def normalised(keras, parts):
    """Mean and variance that were learned."""
    normalisation = keras.layers.Normalization()
    normalisation.adapt(X)
    return keras.Sequential([keras.layers.Input((4,)), normalisation, keras.layers.Dense(2)])


TWO = {"a": X, "b": np.arange(18, dtype="int32").reshape(6, 3) % 9}
BOTH = (("a", "float32", (-1, 4)), ("b", "int32", (-1, 3)))
TEXT = ((None, "<U0", (-1, 1)),)

KINDS = {
    "sequential": Kind(sequential),
    "lazy": Kind(lazy),
    "functional": Kind(functional, X.reshape(2, 3, 4), inputs=((None, "float32", (-1, -1, 4)),)),
    "subclassed": Kind(subclassed, WHOLE, inputs=((None, "int32", (-1, 4)),)),
    "subclassed, not fitted": Kind(subclassed_called),
    "subclassed, dictionary": Kind(
        subclassed_dictionary,
        {"a": X, "b": X},
        inputs=(("a", "float32", (-1, 4)), ("b", "float32", (-1, 4))),
    ),
    "several inputs": Kind(several_inputs, TWO, BOTH),
    "dictionary inputs": Kind(dictionary_inputs, TWO, BOTH),
    "several outputs": Kind(several_outputs, TWO, BOTH),
    "own parts": Kind(own_parts),
    "stray parts": Kind(stray_parts, warns=r"can't find .*register_keras_serializable"),
    "lambda": Kind(a_lambda, warns="lambda", trust=True),
    "named function": Kind(a_named_function, keras_3=True),
    "mixed precision": Kind(mixed_precision),
    "quantised": Kind(quantised, keras_3=True),
    "low rank": Kind(low_rank, keras_3=True),
    "words": Kind(words_looked_up, WORDS, TEXT),
    "text": Kind(words_of_text, WORDS, TEXT),
    "normalised": Kind(normalised),
}
