"""Models of other frameworks, beside Keras's and alone: logged by mlwrap, loaded by everybody."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mlwrap import load_model, model_run, tracked_training
from mlwrap.errors import LoadError, MlwrapWarning, OptionError

X, _ = load_iris(return_X_y=True)


def clusters() -> KMeans:
    """Something that is trained fast."""
    return KMeans(3, n_init=1, random_state=0).fit(X)


def unsafe() -> object:
    """A model with a lambda in it."""
    return make_pipeline(FunctionTransformer(lambda x: 2 * x), KMeans(3, n_init=1, random_state=0)).fit(X)


def test_a_baseline_beside_a_keras_model(store: str):
    """Each is saved by its own saver, and stock MLflow finds the baseline by its name."""
    keras = pytest.importorskip("tensorflow").keras
    made = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])

    @tracked_training
    def train():
        return made, {"baseline": clusters()}

    train()
    assert {m.name: m.status for m in train.last_run.models} == {"keras_model": "READY", "baseline": "READY"}
    uri = f"runs:/{train.last_run.run_id}/baseline"
    expected = clusters().predict(X)
    for loaded in (mlflow.sklearn.load_model(uri), mlflow.pyfunc.load_model(uri), load_model(uri)):
        np.testing.assert_array_equal(loaded.predict(X), expected)


def test_its_requirements_are_what_is_installed(store: str):
    """Read from the installed packages; no child process loads the model to guess them."""
    with model_run("r") as run:
        logged = run.log_model(clusters())
    assert logged.name == "sklearn_model"
    folder = Path(mlflow.get_logged_model(logged.uri.removeprefix("models:/")).artifact_location)
    names = ("mlflow", "scikit-learn", "skops")
    assert (folder / "requirements.txt").read_text().split() == [f"{name}=={version(name)}" for name in names]
    files = {path.name for path in folder.rglob("*")}
    assert files == {
        "MLmodel", "conda.yaml", "model.skops", "python_env.yaml", "requirements.txt",
    }  # fmt: skip


def test_pickle_is_used_only_if_asked(store: str):
    """Without trust the model is FAILED; with it, it is logged, and loads with trust alone."""

    @tracked_training
    def train():
        return unsafe()

    with pytest.warns(MlwrapWarning, match=r"'sklearn_model' could not be saved.*Pass trust=True to have it"):
        model = train()
    assert train.last_run.models[0].status == "FAILED"
    trusting = tracked_training(trust=True)(lambda: model)
    assert trusting() is model
    uri = trusting.last_run.model_uri
    with pytest.raises(LoadError, match="it is a pickle"):
        load_model(uri)
    np.testing.assert_array_equal(load_model(uri, trust=True).predict(X), model.predict(X))
    with model_run("r") as run:
        run.log_model(model, trust=True)
        run.record({"again": model}, trust=True)
    assert {m.name: m.status for m in run.models} == {"sklearn_model": "READY", "again": "READY"}


def test_trust_is_yes_or_no():
    """Anything else is refused when the function is decorated."""
    with pytest.raises(OptionError, match="trust='pickle' can't be used: expected bool"):
        tracked_training(trust="pickle")


def test_the_runs_after_it_are_not_mlflows(store: str, python):
    """A saver imported MLflow, and not the user: no later run is made before somebody asks for it."""
    done = python(
        "import sys, mlwrap\n"
        "from sklearn.cluster import KMeans\n"
        "with mlwrap.model_run('r') as run:\n"
        "    print('mlflow' in sys.modules)\n"
        "    run.log_model(KMeans(2, n_init=1).fit([[0], [1], [2]]))\n"
        "    print('mlflow' in sys.modules)\n"
        "from mlwrap._run.run import recorder_of\n"
        "with mlwrap.model_run('s') as run:\n"
        "    print(recorder_of(run).folder.progress().asked)\n"
        "    print(run.run_id == sys.modules['mlflow'].active_run().info.run_id)\n"
    )
    assert done.stdout == "False\nTrue\nFalse\nTrue\n"
