"""Models whose code is in the script: stock MLflow predicts with them in a process that has none of it."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import mlflow
import pytest

from mlwrap import load_model, tracked_training
from mlwrap.errors import LoadError, MlwrapWarning

pytest.importorskip("tensorflow")

TRAIN = """
import numpy as np
import keras
import tensorflow as tf
from mlwrap import model_run


class Block(keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(x) + 1.0


class Net(keras.Model):
    def __init__(self, activation):
        super().__init__()
        self.hidden = keras.layers.Dense(3, activation)
        self.last = keras.layers.Dense(1)

    def call(self, x):
        return self.last(self.hidden(x))


def clean(text):
    return tf.strings.lower(text)


x = np.arange(12, dtype="float32").reshape(3, 4) / 12
with model_run("r") as run:
    model = Net(lambda x: tf.nn.relu(x))
    model.compile("adam", "mse")
    model.fit(x, x[:, :1], verbose=0)
    run.log_model(model, "net", input_example=x, verify="load")
    np.save("net.npy", model.predict(x, verbose=0))

    inputs = keras.Input((4,))
    layered = keras.Model(inputs, Block(2)(inputs))
    run.log_model(layered, "layered", verify="load")
    np.save("layered.npy", layered.predict(x, verbose=0))

    words = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=2, standardize=clean)
    words.adapt(["a great movie", "an awful plot"])
    inputs = keras.Input((1,), dtype="string")
    text = keras.Model(inputs, keras.layers.Flatten()(keras.layers.Embedding(9, 2)(words(inputs))))
    run.log_model(text, "text")
    np.save("text.npy", text.predict(tf.constant([["A movie"], ["plot"]]), verbose=0))
print(run.run_id)
"""

PREDICT = """
import mlflow
import numpy as np
import pandas as pd

x = np.arange(12, dtype="float32").reshape(3, 4) / 12
run = {run!r}
for name in ("net", "layered"):
    found = mlflow.pyfunc.load_model(f"runs:/{{run}}/{{name}}").predict(x)
    np.testing.assert_allclose(found, np.load(name + ".npy"), rtol=1e-5)
text = mlflow.pyfunc.load_model(f"runs:/{{run}}/text")
words = [["A movie"], ["plot"]]
feeds = [np.array(words), np.array(words, dtype=object), np.array(words, dtype=object)[:, 0]]
for feed in [*feeds, pd.DataFrame({{"words": [row[0] for row in words]}})]:
    np.testing.assert_allclose(text.predict(feed), np.load("text.npy"), rtol=1e-5)
"""


def test_models_of_a_script_predict_without_it(store: str, python):
    """A class without a configuration, a layer without ``**kwargs``, text with a function of the script."""
    keras = pytest.importorskip("keras")
    if not keras.__version__.startswith("3."):
        pytest.skip("Keras 2 is tested by kinds")
    run = python(TRAIN).stdout.split()[-1]
    python(PREDICT.format(run=run))
    models = {model.name: model for model in mlflow.search_logged_models(output_format="list")}
    assert {model.status.value for model in models.values()} == {"READY"}
    said = {name: model.tags.get("mlwrap.verified", "") for name, model in models.items()}
    assert said["net"] == (
        "ok (its weights are whole; they are restored into a model that only your code can make)"
    )
    assert said["layered"].startswith("ok (by mlflow.pyfunc; load_model() does not load it here")


BYTES = """
import mlflow
import numpy as np
import tensorflow as tf
from mlwrap import model_run


class Parse(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, examples):
        return tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]


def example(value):
    made = tf.train.Example()
    made.features.feature["x"].float_list.value.append(value)
    return made.SerializeToString()


with model_run("r") as run:
    run.log_model(Parse())
feed = np.array([example(1.5), example(-2.0)], dtype=object)
np.testing.assert_array_equal(mlflow.pyfunc.load_model(run.model_uri).predict(feed), [1.5, -2.0])
"""


def test_bytes_go_in(store: str, python):
    """Serialized examples: MLflow's type for text would refuse them."""
    python(BYTES)


def test_a_file_with_another_backends_optimizer_names_the_backend(store: str, tmp_path: Path):
    """As Keras itself writes it on PyTorch; mlwrap writes such names for none of its models."""
    keras = pytest.importorskip("keras")
    if not keras.__version__.startswith("3."):
        pytest.skip("Keras 2 has one backend")
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.save(tmp_path / "here.keras")
    with (
        zipfile.ZipFile(tmp_path / "here.keras") as here,
        zipfile.ZipFile(tmp_path / "there.keras", "w") as there,
    ):
        for name in here.namelist():
            content = here.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["compile_config"]["optimizer"] |= {
                    "module": "keras.src.backend.torch.optimizers.torch_adam",
                    "registered_name": "Adam",
                }
                content = json.dumps(config).encode()
            there.writestr(name, content)

    @tracked_training
    def train():
        return tmp_path / "there.keras"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlwrapWarning)
        train()
    with pytest.raises(LoadError, match=r"of the backend torch.*Load it with KERAS_BACKEND=torch"):
        load_model(train.last_run)
