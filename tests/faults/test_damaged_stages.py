"""What is staged is removed, cut or changed before it is delivered: MLflow is told, and the rest arrives."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

import mlwrap
from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Model, StagedFile
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import run_folders
from mlwrap._spool.staged_files import LARGE_BYTES
from mlwrap.errors import MlwrapWarning
from tests.faults.weights import Weights, register

SMALL, BIG = 1000, LARGE_BYTES + 1000  # bytes; what is big gets its checksum beside the training


def _remove(file: Path) -> None:
    file.unlink()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def _change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "removed": (_remove, "is gone from the run folder"),
    "cut": (_cut, "bytes long, and was"),
    "lengthened": (_lengthen, "bytes long, and was"),
    "changed": (_change, "was changed after it had been saved"),
}


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of its own, in which nothing is yet."""
    register(monkeypatch)
    shutil.copy(empty_store, tmp_path / "work" / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'work' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    return uri


def offline(log: Callable[[mlwrap.Run], object]) -> RunFolder:
    """Record a run that waits, with one thing logged before the end and a metric after it."""
    with mlwrap.model_run("r", delivery="off") as run:
        log(run)
        run.log_metric("after", 1.0)
    (folder,) = run_folders(Path(mlwrap.config.settings().spool or ""))
    return folder


def synced() -> tuple[Run, list[LoggedModel]]:
    """Deliver what waits; the run, and its models."""
    mlwrap.sync()
    client = MlflowClient()
    (run,) = client.search_runs(["0"])
    return run, list(client.search_logged_models(["0"]))


@pytest.mark.parametrize("size", [SMALL, BIG], ids=["small", "big"])
@pytest.mark.parametrize(("damage", "why"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_model_is_failed_with_the_file_and_the_reason(
    store: str, size: int, damage: Callable[[Path], None], why: str
):
    """The run has its end and what came after the model; the run and the model say what is wrong."""
    folder = offline(lambda run: run.log_model(Weights(size)))
    (file,) = folder.path.glob("staged/*/data/weights")
    damage(file)
    run, (model,) = synced()
    assert model.status.value == "FAILED"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["after"] == 1.0
    for said in (model.tags["mlwrap.error"], run.data.tags["mlwrap.refused"]):
        assert "data/weights" in said, said
        assert why in said, said


@pytest.mark.parametrize("size", [SMALL, BIG], ids=["small", "big"])
def test_an_undamaged_model_is_ready(store: str, size: int):
    """Its checksums are in the journal when the run has ended."""
    folder = offline(lambda run: run.log_model(Weights(size)))
    known: dict[str, StagedFile] = {}
    for record, _, *_ in read_records(folder.journal):
        known |= getattr(record, "files", {})
    assert known["data/weights"].size == size
    assert all(file.crc is not None for file in known.values())
    run, (model,) = synced()
    assert (run.info.status, model.status.value) == ("FINISHED", "READY")
    assert "mlwrap.refused" not in run.data.tags
    assert not folder.path.exists()


def test_a_model_whose_stage_is_gone_is_failed(store: str):
    """Nothing is left of it, so that nothing is kept."""
    folder = offline(lambda run: run.log_model(Weights()))
    shutil.rmtree(folder.path / "staged")
    run, (model,) = synced()
    assert (run.info.status, model.status.value) == ("FINISHED", "FAILED")
    assert "gone" in run.data.tags["mlwrap.refused"]
    mlwrap.sync()
    assert not folder.path.exists()


def test_a_damaged_model_that_is_mended_becomes_ready(store: str):
    """What is left of it stays in the run folder, and a later sync tries again."""
    folder = offline(lambda run: run.log_model(Weights()))
    (file,) = folder.path.glob("staged/*/data/weights")
    data = file.read_bytes()
    _cut(file)
    _, (model,) = synced()
    assert model.status.value == "FAILED"
    assert folder.path.exists()
    file.write_bytes(data)
    run, (model,) = synced()
    assert model.status.value == "READY"
    assert "mlwrap.refused" not in run.data.tags
    assert model.tags["mlwrap.error"] == ""
    assert not folder.path.exists()


@pytest.mark.parametrize(("damage", "why"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_artifact_is_named_and_the_others_arrive(
    store: str, damage: Callable[[Path], None], why: str
):
    """It is in no store as something else than what was logged."""

    def log(run: mlwrap.Run) -> None:
        run.log_text("one", "one.txt")
        run.log_text("two", "two.txt")

    folder = offline(log)
    (file,) = folder.path.glob("staged/*/one.txt")
    damage(file)
    run, _ = synced()
    artifacts = [file.path for file in MlflowClient().list_artifacts(run.info.run_id)]
    assert artifacts == ["two.txt"]
    assert run.info.status == "FINISHED"
    assert "one.txt" in run.data.tags["mlwrap.refused"]
    assert why in run.data.tags["mlwrap.refused"] or "gone" in run.data.tags["mlwrap.refused"]


def test_a_file_that_was_added_to_a_stage_is_not_delivered(store: str):
    """Only what the saver wrote is the model."""
    folder = offline(lambda run: run.log_model(Weights()))
    (stage,) = folder.path.glob("staged/*")
    (stage / "stray.py").write_text("import os")
    _, (model,) = synced()
    assert model.status.value == "READY"
    assert not (Path(model.artifact_location.removeprefix("file://")) / "stray.py").exists()


def test_the_record_of_a_model_tells_its_files_when_the_save_returns(store: str):
    """Lengths of all, checksums of those that are small."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", MlwrapWarning)
        with mlwrap.model_run("r", delivery="off") as run:
            run.log_model(Weights(SMALL))
            (folder,) = run_folders(Path(mlwrap.config.settings().spool or ""))
            (record,) = (
                entry.record for entry in read_records(folder.journal) if isinstance(entry.record, Model)
            )
            assert set(record.files) == {"config.json", "data/weights"}
            assert record.files["data/weights"].size == SMALL
            assert record.files["data/weights"].crc is not None
