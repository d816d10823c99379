"""A real Estimator: its newest checkpoint under ``estimator_checkpoint``, and a SavedModel that can serve.

TensorFlow 2.15 is the last with Estimators:

    .venv-estimator/bin/python examples/estimator.py
"""

import tempfile

import tensorflow as tf
from sklearn.datasets import load_wine

from mlwrap import load_model, tracked_training

FEATURES = ["alcohol", "malic_acid", "flavanoids", "color_intensity", "proline"]
COLUMNS = [tf.feature_column.numeric_column(name) for name in FEATURES]


def wine(batch: int, *, repeat: bool):
    """178 wines of three cultivars."""
    frame, label = load_wine(return_X_y=True, as_frame=True)
    frame = (frame - frame.mean()) / frame.std()
    columns = {name: frame[name].to_numpy("float32") for name in FEATURES}
    data = tf.data.Dataset.from_tensor_slices((columns, label.to_numpy()))
    return (data.shuffle(178, seed=0).repeat() if repeat else data).batch(batch)


def serving():
    """How the exported model is fed: five columns of floats."""
    return tf.estimator.export.build_raw_serving_input_receiver_fn(
        {name: tf.keras.Input((), name=name, dtype=tf.float32) for name in FEATURES}
    )()


@tracked_training(experiment="wine", ignore="model_dir", serving_input_receiver_fn=serving)
def train(model_dir: str, *, hidden_units=(16, 8), steps: int = 300, batch: int = 32):
    estimator = tf.estimator.DNNClassifier(
        hidden_units=hidden_units,
        feature_columns=COLUMNS,
        n_classes=3,
        model_dir=model_dir,
        config=tf.estimator.RunConfig(tf_random_seed=0, save_checkpoints_steps=100, log_step_count_steps=50),
    )
    estimator.train(lambda: wine(batch, repeat=True), steps=steps)
    estimator.evaluate(lambda: wine(batch, repeat=False))
    return estimator


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        train(folder)
    checkpoint = load_model(train.last_run.model_uri)  # the Estimator's own folder is gone by now
    print(f"{train.last_run.model_uri}: {tf.train.latest_checkpoint(checkpoint)}")
