"""A model in plain TensorFlow, without Keras, becomes a SavedModel under the name ``saved_model``.

python examples/saved_model.py
"""

import tensorflow as tf
from sklearn.datasets import load_diabetes

from mlwrap import load_model, tracked_training


class Linear(tf.Module):
    """What a patient's ten measurements say of the progression of diabetes a year later."""

    def __init__(self, features: int):
        super().__init__()
        self.weights = tf.Variable(tf.zeros([features, 1]), name="weights")
        self.bias = tf.Variable(tf.zeros([1]), name="bias")

    @tf.function(input_signature=[tf.TensorSpec([None, 10], tf.float32)])
    def __call__(self, x):
        return x @ self.weights + self.bias


@tracked_training(experiment="diabetes")
def train(*, learning_rate: float = 0.5, steps: int = 500):
    x, y = load_diabetes(return_X_y=True)
    x, y = tf.constant(x, tf.float32), tf.constant(y[:, None], tf.float32)
    model = Linear(x.shape[1])
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(learning_rate * gradient)
    return {"saved_model": model, "mse": float(loss)}


if __name__ == "__main__":
    model = train()["saved_model"]
    again = load_model(train.last_run.model_uri)
    patient = tf.constant(load_diabetes().data[:1], tf.float32)
    before, loaded = (float(m(patient)[0, 0]) for m in (model, again))
    print(f"{train.last_run.model_uri}: {before:.3f} before, {loaded:.3f} loaded")
