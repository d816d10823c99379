"""Every kind of Keras model, through MLflow and back: by stock MLflow, by us, and in another process."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlwrap import load_model, model_run, tracked_training
from mlwrap.errors import LoadError, MlwrapWarning, SaveError
from tests.integration.keras_kinds import KINDS, WORDS, X, Y, parts_of, sequential

tf = pytest.importorskip("tensorflow")


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request: pytest.FixtureRequest):
    """Each Keras that is installed here."""
    return pytest.importorskip(request.param, reason=f"{request.param} is not in this environment")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """A folder of the user's own modules, on the path."""
    folder = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture
def parts(keras, folder: Path):
    """Layers, losses and so on of the user's own."""
    return parts_of(keras, folder)


def is_keras_3(keras) -> bool:
    """The generation whose models MLflow has a flavor of its own for."""
    return keras.__version__.startswith("3.")


def log(model, name: str = "model", warns: str | None = None):
    """Log a model; gives it as MLflow has it."""
    with (
        model_run("r") as run,
        pytest.warns(MlwrapWarning, match=warns) if warns else contextlib.nullcontext(),
    ):
        run.log_model(model, name)
    assert [m.status for m in run.models] == ["READY"]
    return mlflow.get_logged_model(run.model_uri.removeprefix("models:/"))


def same(found, expected) -> None:
    """Predictions are equal, whatever they come in."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for key in expected:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-6)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def _as_mlflow_has_it(name, dtype, shape):
    """Text is told as Python objects of any shape, for MLflow's own type for it refuses frames and bytes."""
    return (name, "|O", (-1,)) if np.dtype(dtype).kind == "U" else (name, np.dtype(dtype).str, shape)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_comes_back_and_predicts_the_same(keras, parts, store: str, name: str):
    """With MLflow's generic loader, with the flavor's own, and with ours."""
    kind = KINDS[name]
    if kind.keras_3 and not is_keras_3(keras):
        pytest.skip("only Keras 3 has it")
    model = kind.make(keras, parts)
    feed = tf.constant(kind.feed) if kind.feed is WORDS else kind.feed
    expected = model.predict(feed, verbose=0)
    logged = log(model, warns=kind.warns)
    stray = {"Stray": parts.Stray, "astray": parts.astray} if name == "stray parts" else {}
    flavor = importlib.import_module("mlflow.keras" if is_keras_3(keras) else "mlflow.tensorflow")

    if kind.trust or stray:
        with pytest.raises(LoadError, match="trust=True" if kind.trust else "register_keras_serializable"):
            load_model(logged.model_uri)
    with keras.saving.custom_object_scope(stray):
        loaded = load_model(logged.model_uri, trust=kind.trust)
        assert type(loaded) is type(model)
        same(loaded.predict(feed, verbose=0), expected)
        unsafe = {"load_model_kwargs" if is_keras_3(keras) else "keras_model_kwargs": {"safe_mode": False}}
        own = flavor.load_model(logged.model_uri, **(unsafe if kind.trust else {}))
        same(own.predict(feed, verbose=0), expected)
        if not kind.trust and (kind.pyfunc or not is_keras_3(keras)):
            same(mlflow.pyfunc.load_model(logged.model_uri).predict(kind.feed), expected)

    info = mlflow.models.get_model_info(logged.model_uri)
    inputs = [(spec.name, spec.type.str, spec.shape) for spec in info.signature.inputs.inputs]
    assert inputs == [_as_mlflow_has_it(*each) for each in kind.inputs]


def test_training_goes_on_where_it_was(keras, parts, store: str):
    """The optimizer's state comes back: the next step gives the very weights that it would have given."""
    model = sequential(keras, parts)
    again = load_model(log(model).model_uri)
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 1
    for each in (model, again):
        each.fit(X, Y, shuffle=False, verbose=0)
    for expected, found in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def not_built(keras, parts):
    """Nobody called it."""
    return keras.Sequential([keras.layers.Dense(2)])


def half_built(keras, parts):
    """Its own build() makes none of its layers' weights."""

    class Late(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def build(self, shape):
            self.built = True

        def call(self, x):
            return self.dense(x)

    model = Late()
    model.build((None, 4))
    return model


def no_config(keras, parts):
    """A layer that can't tell what it was made with."""

    class Rigid(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    return keras.Sequential([keras.layers.Input((4,)), Rigid(lambda x: x)])


def test_what_has_no_config_keeps_its_weights(keras, parts, store: str):
    """READY, and stock MLflow predicts with it."""
    model = no_config(keras, parts)
    logged = log(model, warns=r"(?s)'model' of run 'r' can't be written.*weights are kept.*get_config\(\)")
    same(mlflow.pyfunc.load_model(logged.model_uri).predict(X), model.predict(X, verbose=0))


def no_weight(keras, parts):
    """A weight that can't be read."""

    class Broken(keras.layers.Dense):
        def save_own_variables(self, store):
            raise RuntimeError("the device is gone")

    return keras.Sequential([keras.layers.Input((4,)), Broken(2)])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (not_built, "no weights yet.*Call it on data once"),
        (half_built, "no weights yet.*Call it on data once"),
        (no_weight, "Keras can't write the model.*the device is gone"),
    ],
)
def test_what_cannot_be_saved_is_said_and_reaches_the_caller(parts, store: str, spool, make, words: str):
    """Why, with what to do; FAILED in MLflow; nothing half-written is left; strict raises."""
    made = make(parts.keras, parts)

    @tracked_training
    def train():
        return made

    with pytest.warns(MlwrapWarning, match=f"(?s)could not be saved.*{words}"):
        assert train() is made
    (logged,) = train.last_run.models
    assert logged.status == "FAILED"
    assert mlflow.get_logged_model(logged.uri.removeprefix("models:/")).status.value == "FAILED"
    assert not list(spool.rglob("*.keras"))
    with pytest.raises(SaveError, match=f"(?s){words}") as caught, model_run("s", strict=True) as run:
        run.log_model(made)
    assert caught.value.value is made


def test_another_process_finds_what_it_needs(folder: Path, store: str, python):
    """The module that registers a layer is noted; load_model imports it, if it is installed or trusted."""
    keras = pytest.importorskip("keras")
    parts = parts_of(keras, folder)
    model = KINDS["own parts"].make(keras, parts)
    logged = log(model)
    flavor = mlflow.models.get_model_info(logged.model_uri).flavors["mlwrap"]
    assert flavor["modules"] == [parts.__name__]
    np.save("x.npy", X)
    script = f"""
import sys, numpy as np
from mlwrap import load_model
from mlwrap.errors import LoadError
uri, x = {logged.model_uri!r}, np.load("x.npy")
try:
    load_model(uri)
except LoadError as error:
    print(error)
assert {parts.__name__!r} not in sys.modules
np.save("y.npy", load_model(uri, trust=True).predict(x, verbose=0))
"""
    done = python(script, PYTHONPATH=f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert f"classes of {parts.__name__}" in done.stdout
    assert "trust=True" in done.stdout
    same(np.load("y.npy"), model.predict(X, verbose=0))


SCRIPT = """
@keras.saving.register_keras_serializable("mine")
class Own(keras.layers.Dense):
    pass

class Stray(keras.layers.Dense):
    pass

def made_in_a_function():
    @keras.saving.register_keras_serializable("mine")
    class Inner(keras.layers.Dense):
        pass
    return Inner(2)

model = keras.Sequential([keras.layers.Input((4,)), Own(2), Stray(2), made_in_a_function()])
"""


def test_what_is_of_a_script_is_warned_of(keras, store: str):
    """Registered or not, another process has no such __main__; nor does it run what a function makes."""
    script = {"__name__": "__main__", "keras": keras}
    exec(SCRIPT, script)  # as Python runs a script
    with pytest.warns(MlwrapWarning) as caught, model_run("r") as run:
        run.log_model(script["model"])
    said = "\n".join(str(warning.message) for warning in caught)
    assert "mine>Own is registered here, but it is of __main__ (a script or a notebook)" in said
    assert "mine>Inner is registered here, but it is" in said
    assert "Move it to a module" in said
    assert re.search(r"can't find \S*Stray by name", said)
