"""Publish staged files and folders as artifacts of their run."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from mlwrap._delivery.publishing.upload_in_parts import UploadProgress
from mlwrap._delivery.publishing.uploads import Upload, lost_uploads, upload_files
from mlwrap._journal.names import artifact_path
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Artifact
from mlwrap._mlflow.client import Client
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.staged_files import check_contents
from mlwrap.errors import DeliveryError, JournalError, Refused, Unreachable

_MAX_TOGETHER = 100


class ArtifactGroup:
    """Artifacts that are uploaded together, because no file of one replaces a file of another.

    Attributes:
        records: Their records, in the order of logging.
    """

    def __init__(self) -> None:
        self.records: list[Artifact] = []
        self._targets: set[PurePosixPath] = set()

    def accepts(self, record: Artifact) -> bool:
        """Return whether an artifact can join; one whose files are not known is uploaded by itself."""
        if not self.records:
            return True
        targets = (_target(record, name) for name in record.files)
        is_known = bool(record.files and self._targets)
        return len(self.records) < _MAX_TOGETHER and is_known and self._targets.isdisjoint(targets)

    def add(self, record: Artifact) -> None:
        """Add an artifact that is accepted."""
        self.records.append(record)
        self._targets.update(_target(record, name) for name in record.files)

    def clear(self) -> None:
        """Remove all artifacts."""
        self.records.clear()
        self._targets.clear()


def publish_together(
    client: Client,
    folder: RunFolder,
    records: Sequence[Artifact],
    progress: Progress,
    save: Callable[[], None],
) -> set[str]:
    """Upload several artifacts at a time, and return the staged paths of those that are in MLflow.

    The others, which could not be read or uploaded, are left to :func:`publish_artifact`. The arguments are
    those of it.
    """
    by_record: dict[str, dict[str, Upload]] = {}
    for record in records:
        if not _is_late(record, progress):
            with contextlib.suppress(Refused, JournalError, OSError):
                by_record[record.staged] = _uploads(folder, record)
    uploads = {key: upload for files in by_record.values() for key, upload in files.items()}
    location = _location(client, progress)
    with contextlib.suppress(Exception):  # publish_artifact() finds out whose fault it is
        upload_files(client, location, uploads, _upload_progress(progress, save))
    present = {key: upload for key, upload in uploads.items() if key in progress.uploaded}
    if client.is_remote:
        try:
            lost = lost_uploads(client, location, present.values())
        except DeliveryError:
            return set()
        present = {key: upload for key, upload in present.items() if upload not in lost}
        progress.uploaded.intersection_update(present)
    return {staged for staged, files in by_record.items() if files.keys() <= present.keys()}


def publish_artifact(
    client: Client, folder: RunFolder, record: Artifact, progress: Progress, save: Callable[[], None]
) -> None:
    """Upload an artifact.

    Args:
        client: The client of the MLflow to deliver to.
        folder: The run folder that contains the staged files.
        record: The artifact's record.
        progress: The progress of the run's delivery; updated here. If it is lost, or the artifact was set
            aside, later artifacts may have replaced it.
        save: Saves ``progress``.

    Raises:
        Damaged: The staged files differ from the saved ones.
        Refused: They are gone, and MLflow does not have them.
        Unreachable: They were sent, and are not there.
    """
    if _is_late(record, progress):
        is_known = bool(record.files)
        record = _without_replaced(folder, record, progress)
        if is_known and not record.files:
            return
    location = _location(client, progress)
    if folder.staged_path(record.staged).exists():
        uploads = _uploads(folder, record)
        upload_files(client, location, uploads, _upload_progress(progress, save))
        if client.is_remote and (lost := lost_uploads(client, location, uploads.values())):
            progress.uploaded.difference_update(uploads)
            raise Unreachable(f"the artifact {lost[0].path!r} was sent, and is not there.")
    elif not (progress.rebuilt and _is_there(client, location, record)):
        raise Refused("its file is gone from the run folder, so it is lost.")


def _upload_progress(progress: Progress, save: Callable[[], None]) -> UploadProgress:
    return UploadProgress(progress.uploaded, progress.partial, save, rebuilt=progress.rebuilt)


def _location(client: Client, progress: Progress) -> str:
    """Return where the run's artifacts are; an older delivery has not noted it."""
    progress.artifact_uri = progress.artifact_uri or client.existing_run(progress.run_id or "").artifact_uri
    return progress.artifact_uri


def _uploads(folder: RunFolder, record: Artifact) -> dict[str, Upload]:
    """Return the files of an artifact, by paths relative to the run folder.

    Raises:
        Damaged: They differ from the saved ones.
    """
    staged = folder.staged_path(record.staged)
    check_contents(staged.parent, record.files)
    files = [file for file in staged.rglob("*") if file.is_file()] if staged.is_dir() else [staged]
    return {
        folder.relative(file): Upload(
            file, str(artifact_path(record.path) / file.relative_to(staged).as_posix())
        )
        for file in files
    }


def _is_late(record: Artifact, progress: Progress) -> bool:
    """Return whether later artifacts may be in MLflow already."""
    return progress.rebuilt or record.staged in progress.held


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


def _is_there(client: Client, location: str, record: Artifact) -> bool:
    """Return whether MLflow has an artifact from an earlier delivery whose progress is lost."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DeliveryError, OSError):
        downloaded = client.download(location, record.path, Path(folder)).parent
        check_contents(downloaded, record.files)
        return bool(record.files)
    return False
