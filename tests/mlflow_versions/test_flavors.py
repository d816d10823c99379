"""Models of MLflow's flavors, in the formats that each MLflow has."""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from sklearn.cluster import KMeans

import mlwrap
from mlwrap._savers.mlflow_flavors import FLAVORS
from mlwrap.errors import LoadError, MlwrapWarning
from tests.faults.servers import Server
from tests.faults.weights import Weights

DATA = np.random.default_rng(0).normal(size=(30, 2))
HAS_SKOPS = find_spec("skops") is not None  # MLflow's requirement since it has that format
LIGHTGBM = next(flavor for flavor in FLAVORS if flavor.name == "lightgbm")


def clusters() -> KMeans:
    """A fitted model."""
    return KMeans(3, n_init=1, random_state=0).fit(DATA)


def test_a_model_of_scikit_learn_is_loaded_by_mlwrap_and_by_mlflow(
    server: Server, old_server_is_named, monkeypatch: pytest.MonkeyPatch
):
    """Without pickle where this MLflow has skops; else by ``trust=True`` alone."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    model = clusters()
    with old_server_is_named(), mlwrap.model_run("r", experiment="flavors") as run:
        run.log_model(model, trust=not HAS_SKOPS)
    # An older server answers 500 to what stock MLflow looks for first, which its client repeats for a minute.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    uri = run.models[0].uri
    for loaded in (
        mlwrap.load_model(uri, trust=not HAS_SKOPS),
        mlflow.pyfunc.load_model(uri),
    ):
        np.testing.assert_array_equal(loaded.predict(DATA), model.predict(DATA))
    if not HAS_SKOPS:
        with pytest.raises(LoadError, match="it is a pickle"):
            mlwrap.load_model(uri)


@pytest.mark.skipif(HAS_SKOPS, reason="this MLflow has a format without pickle")
def test_a_model_is_pickled_by_trust_alone(store: str):
    """The warning says what to pass."""
    with (
        mlwrap.model_run("r") as run,
        pytest.warns(MlwrapWarning, match="Pass trust=True to have it pickled"),
    ):
        run.log_model(clusters())
    assert [model.status for model in run.models] == ["FAILED"]


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_says_it_is_skops_is_not_opened(tmp_path: Path):
    """MLflow before skops reads a pickle, whatever the MLmodel says of its format."""
    flavor = {"data": "model.pkl", "model_class": "lightgbm.sklearn.LGBMClassifier", "code": None}
    flavor |= {"serialization_format": "skops", "skops_trusted_types": [], "lgb_version": "4"}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text(yaml.dump({"flavors": {"lightgbm": flavor}}))
    for name in ("model.pkl", "model.skops"):
        (folder / name).write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(LoadError):
        LIGHTGBM.load(folder, {})
    assert not (tmp_path / "ran").exists()


def test_models_load_where_mlflow_may_run_no_code(store: str, monkeypatch: pytest.MonkeyPatch):
    """MLflow 3.18's variable forbids pyfunc, pickle and code; mlwrap needs none of them."""
    monkeypatch.setenv("MLFLOW_ALLOW_MODEL_CODE_EXECUTION", "false")
    with mlwrap.model_run("r") as run:
        run.log_model(Weights(1000), "weights")
        if HAS_SKOPS:
            run.log_model(clusters(), "clusters")
    assert mlwrap.load_model(f"runs:/{run.run_id}/weights").size == 1000
    if HAS_SKOPS:
        loaded = mlwrap.load_model(f"runs:/{run.run_id}/clusters")
        np.testing.assert_array_equal(loaded.predict(DATA), clusters().predict(DATA))
