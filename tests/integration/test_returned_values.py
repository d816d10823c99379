"""What a training returns, read back from MLflow by those who only know MLflow."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from PIL import Image

from mlwrap import load_model, model_run, tracked_training
from mlwrap.errors import MlwrapWarning, SaveError
from tests.spools import folder_of

tf = pytest.importorskip("tensorflow")
keras = tf.keras

X = np.arange(6, dtype="float32").reshape(2, 3)


@pytest.fixture(scope="module")
def model():
    """A small Keras model with weights."""
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    made.compile("sgd", "mse")
    return made


def artifacts(run_id: str, folder: str | None = None) -> set[str]:
    """Paths of all files among a run's artifacts."""
    found = set()
    for item in MlflowClient().list_artifacts(run_id, folder):
        found |= artifacts(run_id, item.path) if item.is_dir else {item.path}
    return found


def download(run_id: str, path: str) -> Path:
    """A copy of an artifact, by MLflow's own client."""
    return Path(MlflowClient().download_artifacts(run_id, path))


@dataclasses.dataclass
class Result:
    """What one training gives."""

    model: object
    predictions: np.ndarray
    scores: dict[str, float]
    table: pd.DataFrame
    curve: Figure
    report: str
    best_layer: str
    raw: bytes
    plots: Path


def test_everything_that_is_returned_is_in_mlflow(model, store: str, tmp_path: Path):
    """Each thing in its own form, by the name of its field; and the caller has the very object."""
    plots = tmp_path / "plots"
    plots.mkdir()
    (plots / "a.svg").write_text("<svg/>")
    table = pd.DataFrame({"digit": [0, 1], "share": [1 / 3, 2 / 3], "name": ["zero", "one"]})
    figure = Figure(figsize=(2, 1), dpi=100)
    figure.subplots().plot([1, 2])
    result = Result(
        model=model,
        predictions=model.predict(X, verbose=0),
        scores={"accuracy": 0.9},
        table=table,
        curve=figure,
        report="precision\nrecall",
        best_layer="dense",
        raw=b"\0\xff",
        plots=plots,
    )

    @tracked_training
    def train():
        return [result, {"embedding": tf.constant([[1.0, 2.0]])}]

    returned = train()
    assert returned[0] is result
    (plots / "a.svg").unlink()
    run = mlflow.get_run(train.last_run.run_id)
    run_id = run.info.run_id
    assert run.data.metrics == {"scores/accuracy": 0.9}
    assert run.data.tags["best_layer"] == "dense"
    assert artifacts(run_id) == {
        "curve.png",
        "embedding.npy",
        "plots/a.svg",
        "predictions.npy",
        "raw.bin",
        "report.txt",
        "table.csv",
    }
    np.testing.assert_array_equal(np.load(download(run_id, "predictions.npy")), result.predictions)
    np.testing.assert_array_equal(np.load(download(run_id, "embedding.npy")), [[1.0, 2.0]])
    pd.testing.assert_frame_equal(pd.read_csv(download(run_id, "table.csv")), table)
    with Image.open(download(run_id, "curve.png")) as picture:
        assert picture.size == (200, 100)
    assert download(run_id, "report.txt").read_text() == result.report
    assert download(run_id, "raw.bin").read_bytes() == b"\0\xff"
    assert (download(run_id, "plots") / "a.svg").read_text() == "<svg/>"
    (logged,) = train.last_run.models
    assert (logged.name, logged.status) == ("model", "READY")
    np.testing.assert_array_equal(load_model(logged.uri).predict(X, verbose=0), result.predictions)


def test_paths_to_models_are_models(model, store: str, tmp_path: Path):
    """As text or as a path; stock MLflow and mlwrap load them when the files themselves are gone."""
    best = tmp_path / "best.keras"
    served = tmp_path / "served"
    weights = tmp_path / "last.weights.h5"

    @tracked_training
    def train():
        model.save(best)
        model.save_weights(weights)
        module = tf.Module()
        module.kernel = tf.Variable(model.get_weights()[0])
        module.predict = tf.function(lambda x: {"y": x @ module.kernel})
        signature = module.predict.get_concrete_function(tf.TensorSpec([None, 3], tf.float32, name="x"))
        tf.saved_model.save(module, str(served), signatures=signature)
        saved = tf.train.Checkpoint(kernel=module.kernel).save(str(tmp_path / "ckpts" / "ckpt"))
        return {"best": best, "served": os.fsencode(served), "last": str(weights), "state": saved}

    returned = train()
    assert returned["best"] is best
    assert returned["served"] == os.fsencode(served)
    best.unlink()
    weights.unlink()
    run = train.last_run
    assert {m.name: m.status for m in run.models} == dict.fromkeys(
        ("best", "served", "last", "state"), "READY"
    )
    assert artifacts(run.run_id) == set()
    expected = model.predict(X, verbose=0)
    np.testing.assert_array_equal(load_model(f"runs:/{run.run_id}/best").predict(X, verbose=0), expected)
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(f"runs:/{run.run_id}/best").predict(X), expected)
    kernel = model.get_weights()[0]
    stock = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/served").predict({"x": X})
    np.testing.assert_allclose(stock["y"], X @ kernel, rtol=1e-5, atol=1e-6)
    ours = load_model(f"runs:/{run.run_id}/served").signatures["serving_default"](x=tf.constant(X))
    np.testing.assert_allclose(ours["y"], X @ kernel, rtol=1e-5, atol=1e-6)
    fresh = keras.models.clone_model(model)
    load_model(f"runs:/{run.run_id}/last", into=fresh)
    np.testing.assert_array_equal(fresh.predict(X, verbose=0), expected)
    target = tf.Variable(np.zeros_like(kernel))
    load_model(f"runs:/{run.run_id}/state", into={"kernel": target})
    np.testing.assert_array_equal(target, kernel)


def test_what_was_there_before_is_only_text(store: str, tmp_path: Path):
    """Settings that are returned along: a folder of data, a file of keys."""
    (tmp_path / "config.json").write_text("{}")
    with model_run("r") as run:
        folder = folder_of(run)
        later = folder.began() + 3600 * 10**9  # the files are from an hour before the run, as it were
        os.utime(folder.path / "writer.lock", ns=(later, later))
        run.record({"config": str(tmp_path / "config.json"), "data_dir": str(tmp_path)})
    assert artifacts(run.run_id) == set()
    tags = mlflow.get_run(run.run_id).data.tags
    assert (tags["config"], tags["data_dir"]) == (str(tmp_path / "config.json"), str(tmp_path))


def test_what_goes_wrong_costs_nothing_else(model, store: str, tmp_path: Path):
    """Each has a warning of its own that names it, and all the rest is in MLflow."""
    (tmp_path / "broken.keras").write_text("no zip")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"no graph")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "link").symlink_to("/etc/hostname")
    value = {
        "gone": tmp_path / "gone.csv",
        "zip": tmp_path / "broken.keras",
        "graph": tmp_path / "damaged",
        "linked": tmp_path / "linked",
        "objects": np.array([None]),
        "unknown": object(),
        "good": model,
        "array": X,
        "score": 0.5,
    }
    with model_run("r") as run, pytest.warns(MlwrapWarning) as said:
        run.record(value)
    told = [str(w.message) for w in said if issubclass(w.category, MlwrapWarning)]
    for words in (
        "'gone.csv' is not logged: ",
        "gone.csv is not there",
        "the model 'zip' could not be saved",
        "broken.keras is no .keras file that loads",
        "the model 'graph' could not be saved",
        "saved_model.pb is damaged",
        "'linked' is not logged",
        "linked/link is a link",
        "'objects.npy' is not logged: an array of Python objects",
        "no saver knows builtins.object (['unknown'])",
    ):
        assert sum(words in text for text in told) == 1, words
    assert len(told) == 6
    assert {m.name: m.status for m in run.models} == {"zip": "FAILED", "graph": "FAILED", "good": "READY"}
    assert artifacts(run.run_id) == {"array.npy"}
    assert mlflow.get_run(run.run_id).data.metrics == {"score": 0.5}


def test_strict_logs_the_rest_before_it_raises(model, store: str, tmp_path: Path):
    """The error carries all that was returned."""
    (tmp_path / "broken.keras").write_text("no zip")
    value = [tmp_path / "broken.keras", model, X]
    with pytest.raises(SaveError, match=r"broken\.keras") as caught, model_run("s", strict=True) as run:
        run.record(value)
    assert caught.value.value is value
    assert [m.status for m in run.models] == ["FAILED", "READY"]
    assert artifacts(run.run_id) >= {"array.npy"}


def test_secrets_in_texts_stay_out(store: str):
    """By the name of the key, and wherever else the same words stand."""
    with model_run("r", params={"api_key": "sk-0123456789abcdef"}) as run:
        run.record({"password": "hunter2hunter2", "report": "line\nkey sk-0123456789abcdef"})
    assert "hunter2" not in str(mlflow.get_run(run.run_id).data.tags)
    text = download(run.run_id, "report.txt").read_text()
    assert text.startswith("line\nkey ")
    assert "0123456789" not in text


def test_a_path_is_logged_as_a_model_on_request(model, store: str, tmp_path: Path):
    """Whenever it was written; a path that is no model is named in a warning."""
    model.save(tmp_path / "m.keras")
    with model_run("r") as run:
        run.log_model(str(tmp_path / "m.keras"), "old")
        with pytest.warns(MlwrapWarning, match=rf"no saver knows a model at '{tmp_path}', which is none"):
            assert run.log_model(tmp_path) is None
    np.testing.assert_array_equal(
        load_model(run.model_uri).predict(X, verbose=0), model.predict(X, verbose=0)
    )
