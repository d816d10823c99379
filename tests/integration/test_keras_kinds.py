"""Every kind of Keras model, through MLflow and back: by stock MLflow, by us, and in another process."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlwrap import load_model, model_run
from mlwrap.errors import LoadError, MlwrapWarning
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
    inputs = info.signature and [(s.name, s.type.str, s.shape) for s in info.signature.inputs.inputs]
    if kind.inputs is not None:
        assert inputs == [(n, np.dtype(t).str, s) for n, t, s in kind.inputs]
    elif is_keras_3(keras):
        assert inputs is None
