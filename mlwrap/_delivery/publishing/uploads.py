"""Upload files to an artifact location, several at a time, and check that they arrived.

A large file is uploaded in parts where the store takes parts, so that an interruption loses little of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from mlwrap._delivery.publishing.upload_in_parts import UploadProgress, is_large, upload_in_parts
from mlwrap._mlflow.artifact_stores.s3_parts import parts_of
from mlwrap._mlflow.client import Client

_MAX_UPLOADS = 8
_NOTE_SECONDS = 0.2  # files that arrive within this time are saved in the progress together


class Upload(NamedTuple):
    """A file to upload.

    Attributes:
        file: The local file.
        path: Its path at the artifact location.
    """

    file: Path
    path: str


def upload_files(
    client: Client, location: str, uploads: Mapping[str, Upload], progress: UploadProgress
) -> None:
    """Upload the files that have not arrived yet.

    Args:
        client: The client of the MLflow to deliver to.
        location: The artifact location.
        uploads: The files, by keys that name them in ``progress``.
        progress: What an earlier delivery has uploaded; updated here.

    Raises:
        Exception: The first upload that failed; those that had begun are finished, and no other begins.
    """
    missing = {key: upload for key, upload in uploads.items() if key not in progress.arrived}
    large = {key: upload for key, upload in missing.items() if is_large(upload.file)}
    store = parts_of(location) if large else None
    with ThreadPoolExecutor(_MAX_UPLOADS) as pool:
        key_by_upload = {
            pool.submit(client.upload, location, upload.file, upload.path): key
            for key, upload in missing.items()
            if store is None or key not in large
        }
        failed = _note_arrived(key_by_upload, progress.arrived, progress.save)
    if failed is not None:
        raise failed
    if store is not None:
        for key, upload in large.items():
            upload_in_parts(store, upload.file, upload.path, key, progress)


def _note_arrived(
    key_by_upload: Mapping[Future[None], str], arrived: set[str], save: Callable[[], None]
) -> BaseException | None:
    """Save which files have arrived, until all have; after a failure, cancel the rest and return it."""
    failed: BaseException | None = None
    pending = set(key_by_upload)
    while pending:
        done, pending = wait(pending, _NOTE_SECONDS, FIRST_EXCEPTION)
        new = {
            key_by_upload[upload] for upload in done if not upload.cancelled() and upload.exception() is None
        }
        if new:
            arrived |= new
            save()
        for upload in done:
            failed = failed or (None if upload.cancelled() else upload.exception())
        if failed is not None:
            for upload in pending:
                upload.cancel()  # running uploads continue and may still arrive
    return failed


def lost_uploads(client: Client, location: str, uploads: Iterable[Upload]) -> list[Upload]:
    """Return the files that a store does not list: MLflow's client takes a proxy's page for success."""
    uploads = list(uploads)
    folders = {_folder(upload.path) for upload in uploads}
    with ThreadPoolExecutor(_MAX_UPLOADS) as pool:
        listed = pool.map(lambda folder: client.uploaded_sizes(location, folder), folders)
        sizes = {path: size for folder_sizes in listed for path, size in folder_sizes.items()}
    return [upload for upload in uploads if not _is_listed(upload, sizes)]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _is_listed(upload: Upload, sizes: Mapping[str, int | None]) -> bool:
    """Return whether a file is in the store, with its length if the store lists lengths."""
    return upload.path in sizes and sizes[upload.path] in {None, upload.file.stat().st_size}
