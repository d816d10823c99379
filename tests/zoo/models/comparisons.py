"""Images compared with images, and with what another model says of them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(10)
DIGITS = rng.uniform(size=(8, 8, 8)).astype("float32")
IMAGES = rng.uniform(size=(8, 8, 8, 3)).astype("float32")
LABELS = np.arange(8) % 3


class Distiller(keras.Model):
    """A student that learns from a teacher; called as the student is."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher

    def compile(self, optimizer, student_loss_fn, temperature=3):
        super().compile(optimizer=optimizer, loss=student_loss_fn)
        self.temperature = temperature

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=False):
        teacher = tf.nn.softmax(self.teacher(x, training=False) / self.temperature)
        distilled = tf.reduce_mean(tf.square(teacher - tf.nn.softmax(y_pred / self.temperature)))
        return distilled + super().compute_loss(x, y, y_pred, sample_weight)

    def call(self, x):
        return self.student(x)


def classifier(width):
    """Of digits."""
    return keras.Sequential(
        [layers.Input((8, 8)), layers.Flatten(), layers.Dense(width, "relu"), layers.Dense(3)]
    )


@zoo("keras-io knowledge distillation", DIGITS[:2])
def distiller():
    model = Distiller(classifier(4), classifier(16))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(DIGITS, LABELS, verbose=0)
    return model


class SiameseModel(keras.Model):
    """Three images in, a loss of its own."""

    def __init__(self, siamese_network, margin=0.5):
        super().__init__()
        self.siamese_network, self.margin = siamese_network, margin

    def call(self, inputs):
        return self.siamese_network(inputs)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            near, far = self.siamese_network(data)
            loss = tf.reduce_mean(tf.maximum(near - far + self.margin, 0.0))
        weights = self.siamese_network.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


class DistanceLayer(layers.Layer):
    """Distances to the anchor."""

    def call(self, anchor, positive, negative):
        return keras.ops.sum((anchor - positive) ** 2, -1), keras.ops.sum((anchor - negative) ** 2, -1)


# A subclassed model that is called with a list has no names for what is in it.
TRIPLET = {f"input_{number}": DIGITS[number : number + 2] for number in range(3)}


@zoo(
    "keras-io siamese network with a triplet loss: three images in, two distances out",
    TRIPLET,
    predict=lambda model, feed: model(list(feed.values())),
)
def siamese():
    embedding = keras.Sequential([layers.Input((8, 8)), layers.Flatten(), layers.Dense(4)], name="embedding")
    three = [keras.Input((8, 8), name=name) for name in ("anchor", "positive", "negative")]
    model = SiameseModel(keras.Model(three, DistanceLayer()(*map(embedding, three))))
    model.compile("adam")
    triplets = tf.data.Dataset.from_tensor_slices(((DIGITS, DIGITS[::-1], DIGITS),)).batch(4)
    model.fit(triplets, verbose=0)
    model([DIGITS[:2]] * 3)
    return model


class EmbeddingModel(keras.Model):
    """Anchors and positives of each class."""

    def train_step(self, data):
        anchors, positives = data[0], data[1]
        with tf.GradientTape() as tape:
            similarities = tf.einsum(
                "ae,pe->ap", self(anchors, training=True), self(positives, training=True)
            )
            loss = self.compute_loss(y=tf.range(tf.shape(anchors)[0]), y_pred=similarities / 0.2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


@zoo("keras-io metric learning for image similarity search", IMAGES[:2])
def metric_learning():
    inputs = keras.Input((8, 8, 3))
    hidden = layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs)))
    model = EmbeddingModel(inputs, layers.UnitNormalization()(hidden))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, IMAGES[::-1], verbose=0)
    return model


class ContrastiveModel(keras.Model):
    """As SimCLR: an encoder that is to be kept, and a head that is not."""

    def __init__(self):
        super().__init__()
        self.augment = layers.RandomFlip("horizontal")
        self.encoder = keras.Sequential(
            [layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.GlobalMaxPooling2D()]
        )
        self.projection_head = keras.Sequential([layers.Input((4,)), layers.Dense(4)])

    def train_step(self, images):
        with tf.GradientTape() as tape:
            views = [self.projection_head(self.encoder(self.augment(images))) for _ in range(2)]
            similar = tf.matmul(*[tf.math.l2_normalize(view, axis=1) for view in views], transpose_b=True)
            labels = tf.range(tf.shape(images)[0])
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(labels, similar, from_logits=True)
            )
        weights = self.encoder.trainable_weights + self.projection_head.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


@zoo(
    "keras-io SimCLR: the contrastive model itself, never called",
    predict=lambda model, feed: model.encoder(IMAGES),
)
def contrastive():
    model = ContrastiveModel()
    model.compile("adam")
    model.fit(IMAGES, verbose=0)
    return model
