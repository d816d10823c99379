"""A name or value that no store takes is set aside, named with its reason, and the rest arrives."""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
import zlib
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

import mlwrap
from mlwrap._delivery.create_run import create_run
from mlwrap._delivery.deliver import deliver
from mlwrap._journal.records import AnyRecord, Artifact, Metrics, RunEnded, RunStarted, StagedFile
from mlwrap._spool.open_run import open_run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import spool_root
from mlwrap.errors import MlwrapWarning, Refused
from tests.faults.servers import Server

LARGEST = 2**63 - 1
OLD, NEW = (StagedFile(size=len(text), crc=zlib.crc32(text)) for text in (b"old", b"newer"))
ODD_NAMES = {
    "a hash": "x#y.txt",
    "a question mark": "x?y.txt",
    "an escape": "x%2fy.txt",
    "a percent sign": "100%.txt",
    "a blank": " ",
    "a control character": "x\x01y",
    "a line's end": "x\ny",
    "no UTF-8": "x\udce9y",
    "a URL": "file:/etc/x",
    "long": "n" * 300,
    "deep": "/".join(["p" * 100] * 30),
    "what looks renamed": "-x23-",
}


@pytest.fixture(params=["sqlite", "http"])
def uri(
    request: pytest.FixtureRequest, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A store of MLflow's, reached directly or over HTTP."""
    if request.param == "http":
        server: Server = request.getfixturevalue("on_sqlite")
        found = server.uri
    else:
        shutil.copy(empty_store, tmp_path / "work" / "mlflow.db")
        found = f"sqlite:///{tmp_path / 'work' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found)
    mlflow.set_tracking_uri(found)
    return found


def recorded(uri: str, *records: AnyRecord, files: dict[str, str] | None = None) -> RunFolder:
    """A run folder with these records, as an older mlwrap may have left it, and these files staged."""
    key = uuid.uuid4().hex
    first = RunStarted(
        key=key, name="r", time=1, tracking_uri=uri, folder=str(Path.cwd()), experiment="refused"
    )
    run = open_run(spool_root(os.environ["MLWRAP_SPOOL"]), first)
    for name, content in (files or {}).items():
        path = run.folder.path / "staged" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for record in records:
        run.append(record)
    run.end(RunEnded(status="FINISHED", time=2))
    run.release()
    return run.folder


def run_of(key: str) -> Run:
    """The run in MLflow."""
    (run,) = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name("refused").experiment_id], f"tags.`mlwrap.key` = '{key}'"
    )
    return run


def artifacts(run: Run, folder: str | None = None) -> set[str]:
    """The paths of a run's artifacts."""
    found: set[str] = set()
    for entry in MlflowClient().list_artifacts(run.info.run_id, folder):
        found |= artifacts(run, entry.path) if entry.is_dir else {entry.path}
    return found


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES.keys())
def test_an_artifact_with_an_odd_name_is_stored_and_its_name_is_kept(uri: str, name: str):
    """Stock MLflow gives it back, and tells what it was called."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with mlwrap.model_run("r", experiment="refused") as run:
            run.log_text("content", name)
            run.log_text("plain", "plain.txt")
    assert run.wait()
    found = run_of(run.key)
    assert found.info.status == "FINISHED"
    (stored,) = artifacts(found) - {"plain.txt", "artifact_names.json"}
    assert mlflow.artifacts.load_text(f"runs:/{run.run_id}/{stored}") == "content"
    names = mlflow.artifacts.load_dict(f"runs:/{run.run_id}/artifact_names.json")
    assert names == {stored: name}
    assert ["is stored as" in str(w.message) for w in caught if w.category is MlwrapWarning] == [True]


def test_a_file_and_a_folder_of_one_name_are_both_stored(uri: str):
    """Whichever comes first keeps its name."""
    with (
        pytest.warns(MlwrapWarning, match="file and a folder would have the same"),
        mlwrap.model_run("r", experiment="refused") as run,
    ):
        run.log_text("1", "a")
        run.log_text("2", "a/b")
        run.log_text("3", "c/d")
        run.log_text("4", "c")
    found = run_of(run.key)
    assert artifacts(found) == {"a", "a-x-/b", "c/d", "c-x-", "artifact_names.json"}
    assert found.info.status == "FINISHED"


def test_an_artifact_that_can_never_be_stored_is_set_aside_and_the_rest_arrives(uri: str):
    """Of a journal whose names nobody changed: a file where a folder has to be."""
    folder = recorded(
        uri,
        Artifact(staged="staged/1-a/a", path="a"),
        Artifact(staged="staged/2-b/b", path="a/b"),
        Artifact(staged="staged/3-c/c", path="c"),
        Metrics.of({"after": 1.0}, step=0, time=1),
        files={"1-a/a": "1", "2-b/b": "2", "3-c/c": "3"},
    )
    (synced,) = mlwrap.sync()
    assert synced.error is not None
    assert "a/b" in synced.error
    run = run_of(folder.key)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"after": 1.0}
    assert artifacts(run) == {"a", "c"}
    assert "'a/b'" in run.data.tags["mlwrap.refused"]
    assert (folder.path / "staged/2-b/b").read_text() == "2"
    assert not (folder.path / "staged/3-c").exists()


def test_a_step_that_no_database_holds_costs_no_other_point(uri: str):
    """It is named, and the points before and after it are there."""
    folder = recorded(
        uri,
        Metrics.of({"x": 1.0}, step=0, time=1),
        Metrics.of({"bad": 2.0}, step=LARGEST + 1, time=2),
        Metrics.of({"x": 3.0}, step=1, time=3),
    )
    assert deliver(folder).ended
    run = run_of(folder.key)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"x": 3.0}
    assert "'bad'" in run.data.tags["mlwrap.refused"]
    assert len(MlflowClient().get_metric_history(run.info.run_id, "x")) == 2


def test_the_largest_step_is_followed_by_itself(uri: str):
    """There is no larger one, and no point is lost."""
    with mlwrap.model_run("r", experiment="refused") as run:
        run.log_metric("x", 1.0)
        run.log_metric("x", 2.0, step=LARGEST)
        run.log_metric("x", 3.0)
    history = MlflowClient().get_metric_history(run.run_id, "x")
    assert sorted((m.step, m.value) for m in history) == [(0, 1.0), (LARGEST, 2.0), (LARGEST, 3.0)]


def test_what_is_refused_is_kept_and_sync_says_so_again(uri: str):
    """Its run is whole in MLflow; each later sync tries once more."""
    folder = recorded(
        uri,
        Artifact(staged="staged/1-a/a", path="a"),
        Artifact(staged="staged/2-b/b", path="a/b"),
        files={"1-a/a": "1", "2-b/b": "2"},
    )
    for _ in range(2):
        with pytest.raises(Refused, match="MLflow has the run, but not the artifact 'a/b'"):
            deliver(folder)
    assert run_of(folder.key).info.status == "FINISHED"


@pytest.mark.parametrize("uri", ["http"], indirect=True)
def test_a_folder_that_is_delivered_late_replaces_nothing_that_was_logged_after_it(uri: str):
    """One of its files could not be stored at first; the other one is there in a later version."""
    folder = recorded(
        uri,
        Artifact(staged="staged/1-data/data", path="data", files={f"data/{name}": OLD for name in "ab"}),
        Artifact(staged="staged/2-data/data", path="data", files={"data/a": NEW}),
        files={"1-data/data/a": "old", "1-data/data/b": "old", "2-data/data/a": "newer"},
    )
    run_id = create_run(folder).run_id
    MlflowClient().log_text(run_id, "a folder in the place of the file", "data/b/c")
    with pytest.raises(Refused, match="MLflow has the run, but not the artifact 'data'"):
        deliver(folder)
    repository = get_artifact_repository(run_of(folder.key).info.artifact_uri)
    repository.delete_artifacts("data/b")
    deliver(folder)
    assert artifacts(run_of(folder.key)) == {"data/a", "data/b"}
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/data/a") == "newer"
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/data/b") == "old"
