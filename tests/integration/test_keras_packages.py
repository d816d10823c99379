"""Models of classes of packages beside Keras: what is to be installed is named, at save and at load."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlwrap import load_model, model_run, tracked_training
from mlwrap.errors import LoadError

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

LAYERS = """
import keras


@keras.saving.register_keras_serializable("{package}")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class Backbone(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)

    def load_lora_weights(self, path):
        self.adapter = path
"""
X = np.arange(8, dtype="float32").reshape(2, 4)


@pytest.fixture(params=["keras_hub", "tiny_layers"])
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package beside Keras, with the files by which pip knows it, under another name in the one case."""
    name = request.param
    if importlib.util.find_spec(name) is not None:
        pytest.skip("the real one is installed")
    distribution = {"keras_hub": "keras-hub", "tiny_layers": "tiny-distribution"}[name]
    (tmp_path / "site" / name).mkdir(parents=True)
    (tmp_path / "site" / name / "__init__.py").write_text("")
    (tmp_path / "site" / name / "layers.py").write_text(LAYERS.format(package=name))
    info = tmp_path / "site" / f"{distribution.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "top_level.txt").write_text(f"{name}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield name, distribution, importlib.import_module(f"{name}.layers")
    keras.saving.get_custom_objects().pop(f"{name}>Twice", None)
    for module in (name, f"{name}.layers"):
        sys.modules.pop(module, None)


def test_what_to_install_is_named(store: str, package, python):
    """In the requirements, by its own name; and where it is missing, by the error of ``load_model``."""
    name, distribution, layers = package
    model = keras.Sequential([keras.layers.Input((4,)), layers.Twice(), keras.layers.Dense(2)])
    with model_run("r") as run:
        run.log_model(model)
    location = mlflow.get_logged_model(run.model_uri.removeprefix("models:/")).artifact_location
    assert f"{distribution}==1.2" in Path(location, "requirements.txt").read_text().splitlines()
    script = f"""
import mlflow, numpy as np
from mlwrap import load_model
from mlwrap.errors import LoadError
try:
    load_model({run.model_uri!r})
except LoadError as error:
    print(error)
x = np.arange(8, dtype="float32").reshape(2, 4)
np.save("predicted.npy", mlflow.pyfunc.load_model({run.model_uri!r}).predict(x))
"""
    said = python(script).stdout
    assert f"classes of {name}.layers, which can't be found here" in said
    assert f"pip install {distribution}==1.2" in said
    np.testing.assert_allclose(np.load("predicted.npy"), model.predict(X, verbose=0), rtol=1e-5)


def test_an_adapter_is_restored_into_its_backbone(store: str, package, tmp_path: Path):
    """``save_lora_weights("x.lora.h5")``, given as a path: with the method that reads it."""
    _, _, layers = package
    plain = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    plain.save_weights(tmp_path / "a.weights.h5")
    adapter = (tmp_path / "a.weights.h5").rename(tmp_path / "a.lora.h5")

    @tracked_training
    def tune():
        return adapter

    tune()
    (logged,) = tune.last_run.models
    assert logged.name == "weights"
    backbone = load_model(logged, into=layers.Backbone())
    assert Path(backbone.adapter).name == "model.lora.h5"
    with pytest.raises(LoadError, match="no load_lora_weights"):
        load_model(logged, into=plain)


def test_a_preset_comes_back_from_the_run(store: str, tmp_path: Path):
    """A folder of ``save_to_preset``, given as a path, is an artifact, which KerasHub reads."""
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=8,
    )
    backbone.save_to_preset(str(tmp_path / "tiny_bert"))

    @tracked_training
    def tune():
        return tmp_path / "tiny_bert"

    tune()
    folder = mlflow.artifacts.download_artifacts(
        run_id=tune.last_run.run_id, artifact_path="tiny_bert", dst_path=str(tmp_path / "downloaded")
    )
    again = keras_hub.models.BertBackbone.from_preset(folder)
    fed = {name: np.ones((2, 8), "int32") for name in ("token_ids", "segment_ids", "padding_mask")}
    expected = backbone.predict(fed, verbose=0)
    found = again.predict(fed, verbose=0)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)
