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
    model.compile(
        keras.optimizers.RMSprop(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
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
        self.encoder = keras.Sequential(
            [layers.Input((8, 8, 1)), layers.Conv2D(4, 3, strides=2, padding="same")]
        )
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
