"""Keras on JAX or on PyTorch: trained, logged, loaded by stock MLflow and by us, with no TensorFlow about."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import threading
import zipfile
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlwrap import load_model, model_run, tracked_training
from mlwrap._run.run import recorder_of
from mlwrap._savers.keras import snapshot
from mlwrap._savers.keras.optimizers import name_publicly
from mlwrap.errors import LoadError
from mlwrap.keras import MetricsCallback
from mlwrap.testing import capture_runs
from tests.snapshots import hashes, saved
from tests.spools import folder_of

if importlib.util.find_spec("tensorflow") is not None:
    pytest.skip(".venv-jax and .venv-torch run these; here is TensorFlow", allow_module_level=True)

BACKEND = "torch" if importlib.util.find_spec("torch") else "jax"
os.environ["KERAS_BACKEND"] = BACKEND
keras = pytest.importorskip("keras")

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = X[:, :2]
PARTS = """
import keras

@keras.saving.register_keras_serializable("parts")
class Scale(keras.layers.Layer):
    def call(self, x):
        return 3 * x
"""


@pytest.fixture
def model():
    """A small functional model, compiled."""
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(3, "relu")(inputs)))
    model.compile("adam", "mse")
    return model


@pytest.fixture(autouse=True)
def _without_tensorflow():
    """Neither before nor after."""
    assert keras.backend.backend() == BACKEND
    yield
    assert "tensorflow" not in sys.modules


def test_a_training_is_logged_and_its_model_comes_back(model, store: str):
    """Predictions, metrics, signature and requirements, and the next step of the training."""

    @tracked_training
    def train():
        history = model.fit(X, Y, epochs=2, shuffle=False, verbose=0)
        return model, history

    assert train()[0] is model
    run, (logged,) = train.last_run, train.last_run.models
    assert (logged.name, logged.status) == ("keras_model", "READY")
    points = mlflow.MlflowClient().get_metric_history(run.run_id, "loss")
    assert [p.step for p in points] == [0, 1]

    expected = model.predict(X, verbose=0)
    again = load_model(logged.uri)
    for loaded in (again, mlflow.keras.load_model(logged.uri)):
        np.testing.assert_allclose(loaded.predict(X, verbose=0), expected, rtol=1e-5)
    stock = mlflow.pyfunc.load_model(logged.uri)
    np.testing.assert_allclose(stock.predict(X), expected, rtol=1e-5)
    ((spec,), (out,)) = stock.metadata.signature.inputs.inputs, stock.metadata.signature.outputs.inputs
    assert (spec.type, spec.shape, out.shape) == (np.dtype("float32"), (-1, 4), (-1, 2))

    location = mlflow.get_logged_model(logged.uri.removeprefix("models:/")).artifact_location
    requirements = Path(location, "requirements.txt").read_text().splitlines()
    assert f"keras=={keras.__version__}" in requirements
    assert f"{BACKEND}=={importlib.metadata.version(BACKEND).partition('+')[0]}" in requirements
    assert not [line for line in requirements if line.startswith("tensorflow")]

    for each in (model, again):
        each.fit(X, Y, shuffle=False, verbose=0)
    for before, after in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5)


def test_a_fit_is_logged_while_it_runs(model):
    """Keras calls the callback from threads of its own; a checkpoint holds the weights of its epoch."""
    with capture_runs() as runs, model_run("r") as run:
        callback = MetricsCallback(every=1, checkpoint_every=1)
        history = model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[callback])
        run.record(history)
    (found,) = runs
    assert found.metrics["loss"] == list(enumerate(history.history["loss"]))
    assert sorted(step for step, _ in found.metrics["batch/loss"]) == [1, 2, 3, 4]
    assert [value for _, value in found.metrics["learning_rate"]] == pytest.approx([0.001, 0.001])
    # The two checkpoints, and the model that the history is of.
    assert [(made.step, made.error) for made in found.models] == [(0, None), (1, None), (0, None)]


def test_a_tensor_is_a_number(store: str):
    """Of this backend; one is waited for at the run's end at the latest."""
    with capture_runs() as runs, model_run("r") as run:
        for step in range(3):
            run.log_metric("loss", keras.ops.sum(keras.ops.ones(step)), step=step)
            run.log_metric("one", keras.ops.ones((1, 1)), step=step)
    assert sorted(runs[0].metrics["loss"]) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert sorted(runs[0].metrics["one"]) == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_a_layer_of_ones_own_comes_back(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Registered in a module, which is imported for it only where that is trusted."""
    (tmp_path / "backend_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    parts = importlib.import_module("backend_parts")
    model = keras.Sequential([keras.layers.Input((4,)), parts.Scale(), keras.layers.Dense(2)])
    with model_run("r") as run:
        run.log_model(model)
    sys.modules.pop("backend_parts")
    keras.saving.get_custom_objects().pop("parts>Scale")
    with pytest.raises(LoadError, match="trust=True"):
        load_model(run.model_uri)
    again = load_model(run.model_uri, trust=True)
    np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)


class Subclassed(keras.Model):
    """A class of this test's."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_what_fit_was_fed_is_the_signature(model, store: str):
    """Nothing is traced here: types come from the arrays, and of a subclassed model all."""
    subclassed = Subclassed()
    subclassed.compile("sgd", "mse")
    with model_run("r") as run:
        for each in (model, subclassed):
            each.fit(X.astype("float64"), Y, verbose=0)
        run.log_model(model, "functional")
        with pytest.warns(UserWarning, match="can't find .*Subclassed by name"):
            run.log_model(subclassed, "subclassed")
    for logged in run.models:
        (spec,) = mlflow.models.get_model_info(logged.uri).signature.inputs.inputs
        assert (spec.type, spec.shape) == (np.dtype("float64"), (-1, 4))
    stock = mlflow.pyfunc.load_model(run.models[0].uri)
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(stock.predict(X.astype("float64")), expected, rtol=1e-5)


SERVED = """
import sys
import mlflow
import numpy as np

x = np.load("x.npy")
for name in ("layered", "subclassed"):
    stock = mlflow.pyfunc.load_model("runs:/{run}/" + name)
    for feed in (x, x[:1], np.concatenate([x, x])):
        np.testing.assert_allclose(stock.predict(feed)[:1], np.load(name + ".npy")[:1], rtol=1e-4)
assert "keras" not in sys.modules
"""


@pytest.mark.skipif(BACKEND != "torch", reason="on JAX Keras exports nothing without TensorFlow")
def test_models_of_a_script_predict_without_it(store: str, python):
    """A program that PyTorch exports: classes of this test, without ``**kwargs``; training goes on."""

    class Plus(keras.layers.Layer):
        def __init__(self):
            super().__init__()

        def call(self, x):
            return x + 1

    inputs = keras.Input((4,))
    hidden = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(Plus()(inputs)))
    models = {"layered": keras.Model(inputs, keras.layers.Dense(2)(hidden)), "subclassed": Subclassed()}
    with model_run("r", verify="load") as run:
        for name, model in models.items():
            model.compile("adam", "mse")
            model.fit(X, Y, verbose=0)
            with pytest.warns(
                UserWarning, match="predicts with it in any process, from a program of PyTorch's"
            ):
                run.log_model(model, name, input_example=X)
            np.save(name, model.predict(X, verbose=0))
            model.fit(X, Y, verbose=0)
    for logged in run.models:
        tags = mlflow.get_logged_model(logged.uri.removeprefix("models:/")).tags
        assert tags["mlwrap.forms"] == "training, serving"
        assert tags["mlwrap.verified"].startswith("ok (by mlflow.pyfunc")
    np.save("x", X)
    python(SERVED.format(run=run.run_id))


def test_an_optimizer_is_written_by_its_public_name(model, store: str):
    """PyTorch's own class of it is found on no other backend; one in another optimizer, too."""
    nested = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    nested.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    with model_run("r") as run:
        for each in (model, nested):
            each.fit(X, Y, verbose=0)
            run.log_model(each)
    for each, logged in zip((model, nested), run.models, strict=True):
        location = mlflow.get_logged_model(logged.uri.removeprefix("models:/")).artifact_location
        with zipfile.ZipFile(Path(location, "data/model.keras")) as archive:
            text = archive.read("config.json").decode()
        assert '"module": "keras.optimizers"' in text
        assert "keras.src.backend" not in text
        again = load_model(logged)
        assert type(again.optimizer) is type(each.optimizer)
        assert int(again.optimizer.iterations) == int(each.optimizer.iterations) == 1


STRICT = """
import keras

@keras.saving.register_keras_serializable("strict")
class Strict(keras.layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = units

    def call(self, x):
        return x

    def get_config(self):
        return {**super().get_config(), "units": self.units}
"""


def test_a_class_that_does_not_take_its_configuration_is_said(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A registered layer without ``**kwargs``: when it is saved, as on TensorFlow."""
    (tmp_path / f"strict_{BACKEND}.py").write_text(STRICT)
    monkeypatch.syspath_prepend(str(tmp_path))
    strict = importlib.import_module(f"strict_{BACKEND}")
    with (
        model_run("r") as run,
        pytest.warns(UserWarning, match=r"strict>Strict can't be made.*does not take .*'trainable'"),
    ):
        run.log_model(keras.Sequential([keras.layers.Input((4,)), strict.Strict(3)]))


def test_a_backend_that_is_missing_is_named(model, store: str, python):
    """Where Keras can't be imported for want of it: which one, and what to do."""
    with model_run("r") as run:
        run.log_model(model)
    script = f"""
from mlwrap import load_model
from mlwrap.errors import LoadError
try:
    load_model({run.model_uri!r})
except LoadError as error:
    print(error)
"""
    said = python(script, KERAS_BACKEND="tensorflow").stdout
    assert "not its backend tensorflow" in said
    assert f"trained on {BACKEND}. Set KERAS_BACKEND={BACKEND}, which is installed" in said


def test_a_layer_alone_comes_back(store: str):
    """With what it learned; stock MLflow has no form to compute with here, which a message says."""
    layer = keras.layers.Normalization()
    layer.adapt(X)
    with (
        model_run("r", verify="load") as run,
        pytest.warns(UserWarning, match=f"layer 'keras_layer'.*on {BACKEND} Keras exports no SavedModel"),
    ):
        run.log_model(layer, input_example=X)
    convert = keras.ops.convert_to_numpy
    np.testing.assert_allclose(convert(load_model(run)(X)), convert(layer(X)), rtol=1e-5)
    assert mlflow.get_logged_model(run.model_uri.removeprefix("models:/")).tags["mlwrap.verified"] == "ok"


def test_a_lambda_needs_trust(store: str):
    """Its code came with the model."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)])
    with model_run("r") as run, pytest.warns(UserWarning, match="lambda"):
        run.log_model(model)
    with pytest.raises(LoadError, match="trust=True"):
        load_model(run.model_uri)
    np.testing.assert_allclose(load_model(run.model_uri, trust=True).predict(X, verbose=0), 2 * X)


@pytest.mark.skipif(BACKEND != "torch", reason="a layer of PyTorch's needs PyTorch")
def test_a_module_of_pytorchs_is_no_reason_to_pickle(store: str):
    """Keras would write it as one; it is FAILED, and says why."""
    import torch  # noqa: PLC0415 - of one environment

    wrapped = keras.layers.TorchModuleWrapper(torch.nn.Linear(4, 2), name="linear")
    model = keras.Sequential([keras.layers.Input((4,)), wrapped])
    with model_run("r") as run, pytest.warns(UserWarning, match=r"PyTorch modules in it \(linear\)"):
        run.log_model(model)
    assert run.models[0].status == "FAILED"


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_what_is_saved_while_it_trains_is_what_was(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Row 56. These write into the memory of what was there before, so a snapshot is a copy; by hash."""
    monkeypatch.setattr(snapshot, "MIN_BYTES", 0)
    went_on, real = threading.Event(), snapshot.Snapshot.write_folder

    def late(self, folder):
        assert went_on.wait(60)
        return real(self, folder)

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            saved(self.model, tmp_path / f"epoch{epoch}")
            name_publicly(tmp_path / f"epoch{epoch}" / "config.json")
            expected.append(hashes(tmp_path / f"epoch{epoch}"))

        def on_train_batch_end(self, batch, logs=None):
            if len(expected) == 1 and batch == 1:
                went_on.set()

    expected: list[dict[str, str]] = []
    monkeypatch.setattr(snapshot.Snapshot, "write_folder", late)
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2),
        ]
    )
    model.compile(optimizer, "mse", metrics=["mae"])
    with model_run("r", delivery="off") as run:
        callbacks = [Keep(), MetricsCallback(checkpoint_every=1)]
        model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=callbacks)
    logged = recorder_of(run).models.logged
    assert [made.status for made in logged.values()] == ["STAGED", "STAGED"]
    folder = folder_of(run).path
    assert [hashes(folder / staged / "data/model.unzipped") for staged in logged] == expected
    assert expected[0] != expected[1]
