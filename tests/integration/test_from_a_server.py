"""Models that a server keeps come as one copy, which is looked after."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner

from mlwrap import load_model, model_run
from mlwrap._cli.commands import cli
from mlwrap.errors import LoadError
from tests.faults.servers import Server, mlflow_server

tf = pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def server(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server that keeps the artifacts, too."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, folder / "mlflow.db")
    with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", folder) as started:
        yield started


@pytest.fixture
def logged(server: Server, monkeypatch: pytest.MonkeyPatch):
    """Log a checkpoint with one value to the server; gives the run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)

    def log(value: float = 1.0, **options: object):
        with model_run("r", experiment="served") as run:
            run.log_model(tf.train.Checkpoint(v=tf.Variable([value])), **options)
        return run

    return log


def restored(source: object, **options: object) -> float:
    """The value of a checkpoint."""
    target = tf.train.Checkpoint(v=tf.Variable([0.0]))
    return float(load_model(source, into=target, **options).v[0])


def test_three_loads_leave_one_copy(logged, tmp_path: Path):
    """In the user's cache folder; 'mlwrap clean --cache' empties it, but for what this process uses."""
    run = logged(2.0)
    assert [restored(source) for source in (run, run.model_uri, run.run_id)] == [2.0, 2.0, 2.0]
    (copy,) = (tmp_path / "home" / ".cache" / "mlwrap" / "models").iterdir()
    assert f"models:/{copy.name}" == run.model_uri
    assert copy.stat().st_mode & 0o777 == 0o700
    done = CliRunner().invoke(cli, ["clean", "--cache"])
    assert (done.exit_code, done.output) == (0, "")  # a checkpoint restores later, so it is still in use


def test_a_version_is_loaded_by_its_alias(logged):
    """The alias is set over HTTP, and moves on."""
    for value, version in ((3.0, "1"), (4.0, "2")):
        run = logged(value, register_as="served@best")
        assert run.models[0].registered == f"models:/served/{version}"
        assert restored("models:/served@best") == value
    assert restored("models:/served/1") == 3.0
    assert restored("models:/served/latest") == 4.0


def test_a_version_whose_source_is_an_artifact_location(logged, server: Server):
    """As older MLflows register models, and whoever calls MLflow's client."""
    client = mlflow.MlflowClient(server.uri)
    name = f"by-location-{uuid.uuid4().hex}"
    client.create_registered_model(name)
    for value in (1.0, 2.0):
        run = logged(value)
        model = client.get_logged_model(run.models[0].uri.removeprefix("models:/"))
        assert model.artifact_location.startswith("mlflow-artifacts:/")
        client.create_model_version(name, source=model.artifact_location, model_id=model.model_id)
    assert [restored(f"models:/{name}/{version}") for version in (1, 2, "latest")] == [1.0, 2.0, 2.0]


def test_a_copy_that_was_damaged_is_not_opened(logged, tmp_path: Path):
    """And the way out is the one that the error names."""
    run = logged()
    restored(run)
    (file,) = (tmp_path / "home" / ".cache").rglob("*.index")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(LoadError, match=r"\.index is not the file that was logged.*mlwrap clean --cache"):
        restored(run)


def test_the_cache_is_as_large_as_one_likes(logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """MLWRAP_CACHE_SIZE; what nobody uses any more makes room for the next."""
    module = tf.Module()
    module.v = tf.Variable(1.0)
    monkeypatch.setenv("MLWRAP_CACHE_SIZE", "0")
    runs = []
    for _ in range(2):
        with model_run("m", experiment="served") as run, pytest.warns(match="nothing in the SavedModel"):
            run.log_model(module)
        runs.append(run)
    for run in (*runs, runs[0]):
        assert float(load_model(run).v) == 1.0
        (copy,) = (tmp_path / "home" / ".cache" / "mlwrap" / "models").iterdir()
        assert f"models:/{copy.name}" == run.model_uri


def test_a_server_that_lost_the_files(logged, server: Server):
    """One sentence, and nothing half downloaded."""
    run = logged()
    model_id = run.model_uri.removeprefix("models:/")
    (folder,) = server.artifacts.rglob(model_id)
    shutil.rmtree(folder)
    with pytest.raises(LoadError, match=f"{model_id} could not be downloaded|no MLmodel"):
        restored(run)
