"""Publish a staged file or folder as an artifact of its run."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from pathlib import Path, PurePosixPath

import msgspec

from mlwrap._delivery.publishing.publish_model import has_arrived
from mlwrap._journal.names import artifact_path
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Artifact
from mlwrap._mlflow.client import Client
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.staged_files import check_contents
from mlwrap.errors import DeliveryError, Refused, Unreachable


def publish_artifact(
    client: Client, folder: RunFolder, record: Artifact, run_id: str, progress: Progress
) -> None:
    """Upload an artifact.

    Args:
        client: The client of the MLflow to deliver to.
        folder: The run folder that contains the staged files.
        record: The artifact's record.
        run_id: MLflow's id of the run.
        progress: The progress of the run's delivery. If it is lost, or the artifact was set aside, later
            artifacts may have replaced it.

    Raises:
        Damaged: The staged files differ from the saved ones.
        Refused: They are gone, and MLflow does not have them.
    """
    if progress.rebuilt or record.staged in progress.held:
        is_known = bool(record.files)
        record = _without_replaced(folder, record, progress)
        if is_known and not record.files:
            return
    staged = folder.staged_path(record.staged)
    path = str(artifact_path(record.path))
    if staged.exists():
        check_contents(staged.parent, record.files)
        client.log_artifact(run_id, staged, path)
        if client.is_remote:
            _check_arrived(client, run_id, staged, path)
    elif not (progress.rebuilt and _is_there(client, record, run_id)):
        raise Refused("its file is gone from the run folder, so it is lost.")


def _without_replaced(folder: RunFolder, record: Artifact, progress: Progress) -> Artifact:
    """Return an artifact without the files that later artifacts replace; remove these from its stage.

    One that is delivered late would otherwise replace what was logged after it.
    """
    artifacts = (other for other, _ in read_records(folder.journal) if isinstance(other, Artifact))
    from_here = itertools.dropwhile(lambda other: other.staged != record.staged, artifacts)
    later = [other for other in itertools.islice(from_here, 1, None) if other.staged not in progress.held]
    replaced = {_target(other, name) for other in later for name in other.files}
    files = {name: file for name, file in record.files.items() if _target(record, name) not in replaced}
    stage = folder.staged_path(record.staged).parent
    for name in record.files.keys() - files.keys():
        (stage / name).unlink(missing_ok=True)
    return msgspec.structs.replace(record, files=files)


def _target(record: Artifact, name: str) -> PurePosixPath:
    """Return the path of a staged file among the run's artifacts."""
    return artifact_path(record.path).parent / name


def _check_arrived(client: Client, run_id: str, staged: Path, path: str) -> None:
    """Check that the store has the files, because MLflow's client takes a proxy's page for success."""
    if staged.is_dir():
        files = {
            f"{path}/{file.relative_to(staged).as_posix()}": file
            for file in staged.rglob("*")
            if file.is_file()
        }
        sizes = client.artifact_sizes(run_id, path) if files else {}
    else:
        files = {path: staged}
        sizes = client.artifact_sizes(run_id, path.rpartition("/")[0])
    for name, file in files.items():
        if not has_arrived(file, name, sizes):
            raise Unreachable(f"the artifact {name!r} was sent, and is not there.")


def _is_there(client: Client, record: Artifact, run_id: str) -> bool:
    """Return whether MLflow has an artifact from an earlier delivery whose progress is lost."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DeliveryError, OSError):
        downloaded = client.download(run_id, record.path, Path(folder)).parent
        check_contents(downloaded, record.files)
        return bool(record.files)
    return False
