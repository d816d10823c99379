"""``verify="load"``: a fresh process loads what was logged, and what comes of it is said."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from mlwrap import model_run, sync, tracked_training
from mlwrap._cli.commands import cli
from mlwrap._journal.input_example import Example
from mlwrap._mlflow.model_files.files import assemble
from mlwrap.errors import MlwrapWarning, OptionError

tf = pytest.importorskip("tensorflow")
keras = tf.keras
X = np.arange(6, dtype="float32").reshape(2, 3)


def tags(uri: str) -> dict[str, str]:
    """What MLflow has of a verification."""
    return mlflow.get_logged_model(uri.removeprefix("models:/")).tags


def folder(uri: str) -> Path:
    """Where a logged model's files lie."""
    return Path(mlflow.get_logged_model(uri.removeprefix("models:/")).artifact_location)


@keras.utils.register_keras_serializable("of this test")
class OfThisModule(keras.layers.Layer):
    """A layer that Keras finds only where this module, which is of no installed package, was imported."""

    def call(self, x):
        return 2 * x


def test_what_only_serves_is_said(store: str, monkeypatch: pytest.MonkeyPatch):
    """A sender sees to it when all is delivered, and the run's end waits: one warning, and a tag."""
    monkeypatch.setenv("MLWRAP_DELIVERY", "sender")

    @keras.utils.register_keras_serializable("of this test")
    class OnlyHere(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    @tracked_training(verify="load")
    def train():
        return keras.Sequential([keras.layers.Input((3,)), OnlyHere()])

    with pytest.warns(MlwrapWarning) as warned:
        train()
    (model,) = train.last_run.models
    said = str(warned[-1].message)
    assert "load_model() will not load it as it is in another process" in said
    assert "OnlyHere" in said
    verified = tags(model.uri)["mlwrap.verified"]
    assert verified.startswith("ok (by mlflow.pyfunc; load_model() does not load it here: ")
    assert "OnlyHere" in verified
    assert model.status == "READY"
    assert mlflow.get_run(train.last_run.run_id).info.status == "FINISHED"


def test_what_waited_is_verified_when_it_is_delivered(store: str):
    """By another process, where the same prediction comes out; of two models the one that was asked for."""
    with model_run("r", delivery="off") as run:
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
        run.log_model(model, "checked", input_example=X, verify="load")
        run.log_model(model, "unchecked", input_example=X)
        own = keras.Sequential([keras.layers.Input((3,)), OfThisModule()])
        run.log_model(own, "own", input_example=X, verify="load")
    (done,) = sync()
    assert done.error is None
    found = {
        name: mlflow.search_logged_models(filter_string=f"name = '{name}'", output_format="list")[0].tags
        for name in ("checked", "unchecked", "own")
    }
    assert found["checked"]["mlwrap.verified"] == "ok"
    assert "mlwrap.verified" not in found["unchecked"]
    assert found["own"]["mlwrap.verified"] == "ok (with trust=True)"
    assert run.models[0].status == "STAGED"


@pytest.fixture
def command():
    """``mlwrap verify`` in this process."""

    def run(uri: object) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["verify", str(uri)])
        return done.exit_code, done.stdout.strip() or str(done.exception)

    return run


def test_a_prediction_is_compared(store: str, command, tmp_path: Path):
    """With that of the object that was saved; another one is an error that shows both."""
    with model_run("r") as run:
        run.log_model(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)]), input_example=X)
    assert command(run.model_uri) == (0, "ok (it loads; there was no prediction to compare)")
    assert "mlwrap.verified" not in tags(run.model_uri)
    changed = tmp_path / "changed"
    shutil.copytree(folder(run.model_uri), changed)
    example = Example(kind="array", inputs={"": X}, predicted={"": np.zeros((2, 2))})
    (changed / "mlwrap-example.npz").unlink()
    example.write(changed)
    _sign(changed)
    code, said = command(changed)
    assert code == 1
    assert "it loads, and predicts something else than before it was saved: the values differ" in said


def test_what_can_not_be_compared_is_said(store: str, command):
    """A checkpoint is restored into objects that only its code can make."""
    with model_run("r") as run:
        run.log_model(tf.train.Checkpoint(v=tf.Variable([1.0])))
    code, said = command(run.model_uri)
    assert (code, said[:25]) == (0, "ok (its files are whole; ")
    next(folder(run.model_uri).rglob("*.index")).unlink()
    code, said = command(run.model_uri)
    assert code == 1
    assert "was logged with the model, and is not there" in said


def test_verify_of_a_run_covers_its_models_and_no_checkpoint(store: str):
    """``model_run(verify=)`` as the decorator has it; a call of its own option decides for itself."""
    with model_run("r", verify="load") as run:
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
        run.log_model(model, "logged", input_example=X)
        run.log_model(model, "on the way", checkpoint=True)
        run.log_model(model, "not asked", verify="static")
    said = {model.name: tags(model.uri).get("mlwrap.verified") for model in run.models}
    assert said == {"logged": "ok", "on the way": None, "not asked": None}


class OnlyServes(keras.layers.Layer):
    """A layer that is not registered, so that its model needs a serving form."""

    def call(self, x):
        return 2 * x


@pytest.fixture
def served(store: str):
    """A run whose model has a training form and a serving form."""
    inputs = keras.layers.Input((3,))
    model = keras.Model(inputs, OnlyServes()(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlwrapWarning)  # Keras 2 finds the layer by its module
        with model_run("r") as run:
            run.log_model(model, input_example=X)
    return run


def test_verify_asks_the_serving_form_too(served, command, tmp_path: Path):
    """The training form loads; the serving form that is broken is said."""
    with keras.utils.custom_object_scope({"OnlyServes": OnlyServes}):
        assert command(served.model_uri)[0] == 0
        broken = tmp_path / "broken"
        shutil.copytree(folder(served.model_uri), broken)
        next(broken.rglob("variables.index")).write_bytes(b"")
        _sign(broken)
        code, said = command(broken)
    assert code == 1
    assert "mlflow.pyfunc does not load it, or can't predict" in said


def test_show_tells_the_forms_of_each_model(served, monkeypatch: pytest.MonkeyPatch):
    """And what was verified, or why a model could not be saved."""
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(cli, ["show", served.run_id]).output
    assert "training form: load_model() gives the model back, to train on" in shown
    assert "serving form: mlflow.pyfunc predicts without the training's code" in shown
    assert "not verified" in shown
    with model_run("r", verify="load") as run:
        run.log_model(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)]), input_example=X)
        run.log_model(tf.train.Checkpoint(v=tf.Variable([1.0])))
        with pytest.warns(MlwrapWarning, match="no weights yet"):
            run.log_model(keras.Sequential([keras.layers.Dense(2)]), "empty")
    shown = CliRunner().invoke(cli, ["show", run.run_id]).output
    assert "verified: every form loads, and predicts as before it was saved" in shown
    assert "serving form" not in shown
    assert "verified: ok (its files are whole" in shown
    assert "not saved: The Keras model" in shown


def test_a_way_to_verify_that_there_is_not():
    """Refused at decoration, and before a run begins."""
    with pytest.raises(OptionError, match="verify='twice' can't be used: expected 'static' or 'load'"):
        tracked_training(verify="twice")
    with pytest.raises(OptionError, match="verify='twice' can't be used: expected 'static' or 'load'"):
        model_run(verify="twice")


def _sign(model: Path) -> None:
    """Write the manifest anew."""
    file = model / "MLmodel"
    described = yaml.safe_load(file.read_text())
    described["flavors"]["mlwrap"]["manifest"] = assemble(model, {}, model)
    file.write_text(yaml.safe_dump(described))
