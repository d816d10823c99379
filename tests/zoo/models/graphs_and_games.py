"""Graphs, games and recommendations."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(4)
NODES = rng.normal(size=(6, 5, 4)).astype("float32")
ADJACENCY = (rng.uniform(size=(5, 5)) > 0.5).astype("float32")
STATES = rng.normal(size=(10, 4)).astype("float32")
PAIRS = rng.integers(0, 5, size=(10, 2)).astype("int32")


class MessagePassing(layers.Layer):
    """Neighbours' features, by an adjacency that is fixed."""

    def __init__(self, units, adjacency):
        super().__init__()
        self.adjacency = keras.ops.convert_to_tensor(adjacency)
        self.dense = layers.Dense(units, "relu")

    def call(self, x):
        return self.dense(keras.ops.matmul(self.adjacency, x))


@zoo("keras-io node classification: message passing on a fixed adjacency", NODES[:2])
def graph_network():
    inputs = keras.Input((5, 4))
    x = MessagePassing(4, ADJACENCY)(MessagePassing(4, ADJACENCY)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.compile("adam", "mse")
    model.fit(NODES, NODES[..., :2], verbose=0)
    return model


class GNNNodeClassifier(keras.Model):
    """Takes indices of nodes, and holds the graph itself."""

    def __init__(self, features, edges):
        super().__init__()
        self.features, self.edges = tf.constant(features), tf.constant(edges)
        self.hidden, self.head = layers.Dense(4, "relu"), layers.Dense(3)

    def call(self, node_indices):
        sources, targets = self.edges[0], self.edges[1]
        messages = tf.gather(self.hidden(self.features), sources)
        gathered = tf.math.unsorted_segment_mean(messages, targets, tf.shape(self.features)[0])
        return self.head(tf.gather(gathered, node_indices))


@zoo("keras-io node classification: the graph is in the model, indices go in", np.array([0, 3, 4]))
def graph_in_the_model():
    model = GNNNodeClassifier(NODES[0], np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]]))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.arange(5), np.arange(5) % 3, verbose=0)
    return model


def steps(model, loss_of, count=3):
    """A loop of one's own."""
    optimizer = keras.optimizers.Adam(0.01)
    for _ in range(count):
        with tf.GradientTape() as tape:
            loss = loss_of()
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


@zoo("keras-io actor-critic: two outputs, trained in a loop", STATES[:3])
def actor_critic():
    inputs = keras.Input((4,))
    common = layers.Dense(8, "relu")(inputs)
    model = keras.Model(inputs, [layers.Dense(2, "softmax")(common), layers.Dense(1)(common)])

    def loss():
        probabilities, value = model(STATES)
        return -tf.reduce_mean(tf.math.log(probabilities[:, 0]) * (1 - value[:, 0])) + tf.reduce_mean(
            value**2
        )

    steps(model, loss)
    return model


class ActorCritic(keras.Model):
    """As the TensorFlow tutorial: subclassed, a tuple out."""

    def __init__(self, num_actions, num_hidden_units):
        super().__init__()
        self.common = layers.Dense(num_hidden_units, activation="relu")
        self.actor, self.critic = layers.Dense(num_actions), layers.Dense(1)

    def call(self, inputs):
        x = self.common(inputs)
        return self.actor(x), self.critic(x)


@zoo("TensorFlow tutorial: actor-critic, subclassed", STATES[:3])
def subclassed_actor_critic():
    model = ActorCritic(2, 8)
    steps(model, lambda: tf.reduce_mean(model(STATES)[1] ** 2) - tf.reduce_mean(model(STATES)[0]))
    return model


@zoo("a policy gradient: REINFORCE in a GradientTape", STATES[:3])
def policy_gradient():
    model = keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(2, "softmax")])

    def loss():
        return -tf.reduce_mean(tf.math.log(model(STATES)[:, 0]) * STATES[:, 0])

    model(STATES)
    steps(model, loss)
    return model


@zoo("keras-io deep Q-learning: model and target network, by name", STATES[:3], of=lambda both: both["model"])
def deep_q_network():
    model, target = (keras.Sequential([layers.Input((4,)), layers.Dense(2)]) for _ in range(2))
    steps(model, lambda: tf.reduce_mean((model(STATES) - target(STATES)) ** 2))
    target.set_weights(model.get_weights())
    return {"model": model, "target": target}


class RecommenderNet(keras.Model):
    """Pairs of ids in: as the example has it."""

    def __init__(self, num_users, num_items, embedding_size, **kwargs):
        super().__init__(**kwargs)
        self.user = layers.Embedding(num_users, embedding_size, embeddings_initializer="he_normal")
        self.item = layers.Embedding(num_items, embedding_size, embeddings_initializer="he_normal")
        self.user_bias, self.item_bias = layers.Embedding(num_users, 1), layers.Embedding(num_items, 1)

    def call(self, inputs):
        user, item = inputs[:, 0], inputs[:, 1]
        match = keras.ops.sum(self.user(user) * self.item(item), axis=1, keepdims=True)
        return keras.ops.nn.sigmoid(match + self.user_bias(user) + self.item_bias(item))


@zoo("keras-io collaborative filtering for MovieLens", PAIRS[:3])
def recommender():
    model = RecommenderNet(5, 5, 4)
    model.compile(keras.optimizers.Adam(0.001), keras.losses.BinaryCrossentropy())
    model.fit(PAIRS, rng.uniform(size=10), verbose=0)
    return model


@zoo(
    "a two-tower recommender: ids of users and items, a dot product",
    {"user": PAIRS[:3, :1], "item": PAIRS[:3, 1:]},
)
def two_towers():
    ids = [keras.Input((1,), name=name, dtype="int32") for name in ("user", "item")]
    towers = [layers.Flatten()(layers.Embedding(5, 4)(one)) for one in ids]
    model = keras.Model(ids, layers.Dot(axes=1)(towers))
    model.compile("adam", "mse")
    model.fit([PAIRS[:, :1], PAIRS[:, 1:]], rng.uniform(size=10), verbose=0)
    return model
