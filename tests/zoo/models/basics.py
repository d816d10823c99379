"""Models of Keras's guides: the three ways to make one, and parts of one's own."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(0)
X = rng.normal(size=(16, 4)).astype("float32")
Y = X[:, :1] * 2 + 1
FEED = X[:3]


def fitted(model, loss="mse", **options):
    """Compile and fit, as all guides do."""
    model.compile("adam", loss, **options)
    model.fit(X, Y, epochs=1, verbose=0)
    return model


@zoo("Keras guide: the Sequential model", FEED)
def sequential():
    return fitted(keras.Sequential([layers.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1)]))


@zoo("TensorFlow tutorial: a Sequential model without an Input layer", FEED)
def sequential_built_by_fit():
    return fitted(keras.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.2), layers.Dense(1)]))


@zoo("Keras guide: the functional API; wide and deep", FEED)
def functional():
    inputs = keras.Input((4,), name="features")
    deep = layers.Dense(8, "relu")(inputs)
    outputs = layers.Dense(1)(layers.concatenate([inputs, deep]))
    return fitted(keras.Model(inputs, outputs, name="wide_and_deep"))


@zoo("Keras guide: functions of keras.ops between layers", FEED)
def functional_with_operations():
    inputs = keras.Input((4,))
    scaled = keras.ops.tanh(inputs) * 2.0
    return fitted(keras.Model(inputs, layers.Dense(1)(keras.ops.concatenate([scaled, inputs], axis=-1))))


@keras.saving.register_keras_serializable("zoo")
class Configured(keras.Model):
    """Registered, and with a configuration."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = layers.Dense(units, "relu")
        self.head = layers.Dense(1)

    def call(self, x):
        return self.head(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@zoo("Keras guide: a subclassed model, registered, with get_config", FEED)
def subclassed_with_get_config():
    return fitted(Configured(8))


class MyModel(keras.Model):
    """As the TensorFlow quickstart for experts has it."""

    def __init__(self, units):
        super().__init__()
        self.d1 = layers.Dense(units, activation="relu")
        self.d2 = layers.Dense(1)

    def call(self, x):
        return self.d2(self.d1(x))


@zoo("TensorFlow quickstart for experts: a subclassed model without get_config, own training loop", FEED)
def subclassed_without_get_config():
    model = MyModel(8)
    loss_object, optimizer = keras.losses.MeanSquaredError(), keras.optimizers.Adam()

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_object(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    for x, y in tf.data.Dataset.from_tensor_slices((X, Y)).batch(8):
        train_step(x, y)
    return model


class Plain(keras.Model):
    """No arguments, no configuration needed, nobody registered it."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, x):
        return self.dense(x)


@zoo("a subclassed model that takes no arguments, not registered", FEED)
def subclassed_without_arguments():
    return fitted(Plain())


@keras.saving.register_keras_serializable("zoo")
class Linear(layers.Layer):
    """As the guide's first layer, but for ``**kwargs``."""

    def __init__(self, units=2):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), initializer="random_normal")

    def call(self, x):
        return keras.ops.matmul(x, self.w)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@zoo("a registered layer whose `__init__` takes no `**kwargs`", FEED)
def layer_without_kwargs():
    return fitted(keras.Sequential([layers.Input((4,)), Linear(3), layers.Dense(1)]))


@keras.saving.register_keras_serializable("zoo")
class Scale(layers.Layer):
    """A layer as it should be."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@zoo("Keras guide: a custom layer, registered", FEED)
def custom_layer_registered():
    return fitted(keras.Sequential([layers.Input((4,)), Scale(3.0), layers.Dense(1)]))


class Antirectifier(layers.Layer):
    """As the example of that name: not registered."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1] * 2, 4), initializer="he_normal", name="kernel")

    def call(self, inputs):
        inputs = inputs - keras.ops.mean(inputs, axis=-1, keepdims=True)
        both = keras.ops.concatenate([keras.ops.relu(inputs), keras.ops.relu(-inputs)], axis=-1)
        return keras.ops.matmul(both, self.kernel)


@zoo("keras-io antirectifier: a custom layer, not registered", FEED)
def custom_layer_not_registered():
    return fitted(keras.Sequential([layers.Input((4,)), Antirectifier(), layers.Dense(1)]))


def huber_like(y_true, y_pred):
    """A loss."""
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


def swishish(x):
    """An activation."""
    return x * keras.ops.sigmoid(1.5 * x)


class Bias(keras.metrics.Mean):
    """A metric."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_pred - y_true, sample_weight)


@zoo("Keras guide: custom loss, metric and activation, none registered", FEED)
def custom_loss_metric_activation():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(8, activation=swishish), layers.Dense(1)])
    return fitted(model, huber_like, metrics=[Bias(name="bias")])


@zoo("a Lambda layer with a lambda", FEED)
def lambda_layer():
    return fitted(keras.Sequential([layers.Input((4,)), layers.Lambda(lambda x: x**2), layers.Dense(1)]))


class CustomStep(keras.Model):
    """Customizing what happens in fit()."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@zoo("Keras guide: own train_step in a functional model's class", FEED)
def own_train_step():
    inputs = keras.Input((4,))
    return fitted(CustomStep(inputs, layers.Dense(1)(inputs)))
