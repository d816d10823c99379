"""Images: classified, segmented, generated, compared; most trained by a train_step of their own."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(2)
DIGITS = rng.uniform(size=(8, 8, 8)).astype("float32")
IMAGES = rng.uniform(size=(8, 8, 8, 3)).astype("float32")
LABELS = np.arange(8) % 3


@zoo("keras-io simple MNIST convnet", DIGITS[:2, ..., None])
def cnn():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(DIGITS[..., None], LABELS, verbose=0)
    return model


@zoo("keras-io image classification from scratch: augmentation and rescaling in the model", IMAGES[:2])
def cnn_with_augmentation():
    inputs = keras.Input((8, 8, 3))
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    x = layers.BatchNormalization()(layers.SeparableConv2D(4, 3)(layers.Rescaling(1.0 / 255)(x)))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, LABELS, verbose=0)
    return model


@zoo("Keras guide: a toy ResNet", IMAGES[:2])
def resnet_block():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    for _ in range(2):
        inner = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", activation="relu")(x))
        x = layers.add([x, layers.Conv2D(4, 3, padding="same")(inner)])
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="toy_resnet")
    model.compile(keras.optimizers.RMSprop(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, LABELS, verbose=0)
    return model


@zoo("keras-io Oxford pets: a small U-Net", IMAGES[:2])
def u_net():
    inputs = keras.Input((8, 8, 3))
    down = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    bottom = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D(2)(down))
    up = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(bottom)
    outputs = layers.Conv2D(2, 1, activation="softmax")(layers.concatenate([down, up]))
    model = keras.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(IMAGES, (IMAGES[..., 0] > 0.5).astype("int32"), verbose=0)
    return model


class Denoise(keras.Model):
    """As the TensorFlow tutorial's."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3, strides=2, padding="same")])
        self.decoder = keras.Sequential([layers.Conv2DTranspose(1, 3, strides=2, padding="same")])

    def call(self, x):
        return self.decoder(self.encoder(x))


@zoo("TensorFlow tutorial: a denoising autoencoder", DIGITS[:2, ..., None])
def autoencoder():
    model = Denoise()
    model.compile("adam", "mse")
    model.fit(DIGITS[..., None], DIGITS[..., None], verbose=0)
    return model


class Sampling(layers.Layer):
    """Draws z."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, inputs):
        mean, log_var = inputs
        epsilon = keras.random.normal(keras.ops.shape(mean), seed=self.seed_generator)
        return mean + keras.ops.exp(0.5 * log_var) * epsilon


class VAE(keras.Model):
    """Trained by its train_step, never called."""

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.loss_tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.loss_tracker]

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_var, z = self.encoder(data)
            reconstruction = tf.reduce_mean(tf.square(data - self.decoder(z)))
            kl = -0.5 * tf.reduce_mean(1 + log_var - tf.square(mean) - tf.exp(log_var))
            loss = reconstruction + kl
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}


LATENT = rng.normal(size=(2, 2)).astype("float32")


def decoder():
    """From two numbers to an image."""
    return keras.Sequential([layers.Input((2,)), layers.Dense(64, "sigmoid"), layers.Reshape((8, 8, 1))])


def vae():
    """One that was trained."""
    inputs = keras.Input((8, 8, 1))
    flat = layers.Flatten()(inputs)
    mean, log_var = layers.Dense(2)(flat), layers.Dense(2)(flat)
    encoder = keras.Model(inputs, [mean, log_var, Sampling()([mean, log_var])])
    model = VAE(encoder, decoder())
    model.compile("adam")
    model.fit(DIGITS[..., None], verbose=0)
    return model


@zoo("keras-io variational autoencoder: never called", predict=lambda model, feed: model.decoder(LATENT))
def variational_autoencoder():
    return vae()


@zoo("keras-io variational autoencoder: its decoder alone is returned", LATENT)
def decoder_of_a_vae():
    return vae().decoder


class GAN(keras.Model):
    """Two models and their two optimizers."""

    def __init__(self, discriminator, generator, latent_dim):
        super().__init__()
        self.discriminator, self.generator, self.latent_dim = discriminator, generator, latent_dim

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def train_step(self, real):
        size = tf.shape(real)[0]
        fake = self.generator(tf.random.normal((size, self.latent_dim)))
        labels = tf.concat([tf.ones((size, 1)), tf.zeros((size, 1))], axis=0)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(tf.concat([fake, real], axis=0)))
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            fake = self.generator(tf.random.normal((size, self.latent_dim)))
            g_loss = self.loss_fn(tf.zeros((size, 1)), self.discriminator(fake))
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        return {"d_loss": d_loss, "g_loss": g_loss}


@zoo("keras-io DCGAN: never called", predict=lambda model, feed: model.generator(LATENT))
def gan():
    critic = keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(1)])
    model = GAN(critic, decoder(), 2)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4), loss)
    model.fit(DIGITS[..., None], verbose=0)
    return model


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
    return keras.Sequential([layers.Input((8, 8)), layers.Flatten(), layers.Dense(width, "relu"), layers.Dense(3)])


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
            similarities = tf.einsum("ae,pe->ap", self(anchors, training=True), self(positives, training=True))
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
        self.encoder = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.GlobalMaxPooling2D()])
        self.projection_head = keras.Sequential([layers.Input((4,)), layers.Dense(4)])

    def train_step(self, images):
        with tf.GradientTape() as tape:
            views = [self.projection_head(self.encoder(self.augment(images))) for _ in range(2)]
            similar = tf.matmul(*[tf.math.l2_normalize(view, axis=1) for view in views], transpose_b=True)
            labels = tf.range(tf.shape(images)[0])
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, similar, from_logits=True))
        weights = self.encoder.trainable_weights + self.projection_head.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


@zoo("keras-io SimCLR: the contrastive model itself, never called", predict=lambda model, feed: model.encoder(IMAGES))
def contrastive():
    model = ContrastiveModel()
    model.compile("adam")
    model.fit(IMAGES, verbose=0)
    return model
