"""Upload a large file in parts, and continue where an earlier delivery stopped: no part is sent twice.

The store keeps the parts that have arrived, and its id of the upload is saved in the delivery's progress.
A later delivery compares the checksum of each stored part with the file, and sends only the others.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from mlwrap._journal.progress import PartialUpload, Progress
from mlwrap._mlflow.artifact_stores.s3_parts import Part, S3Parts, parts_of
from mlwrap.errors import DeliveryError, Unreachable

_MIN_FILE_SIZE = 16 << 20  # bytes; a smaller file is sent in one request, anew after an interruption
_PART_SIZE = 5 << 20  # bytes; the smallest part that S3 takes, so that an interruption loses little
_MAX_PARTS = 10_000  # S3's limit for one file
_MAX_MEMORY = 256 << 20  # bytes of parts in memory at once
_MAX_PARALLEL = 10
# Parts in flight are lost if the process is killed. So after an interruption parts are sent one at a time,
# and one more at a time only after so many have arrived.
_FIRST_PARALLEL, _PARTS_PER_PARALLEL = 4, 40
_NOTE_SECONDS = 0.2  # parts that arrive within this time are saved in the progress together


class UploadProgress(NamedTuple):
    """How far delivery got with some uploads, by the keys of the uploads.

    Attributes:
        arrived: The keys of the files that have arrived.
        partial: The files of which some parts have arrived.
        save: Saves both.
        rebuilt: Whether the progress of an earlier delivery is lost.
    """

    arrived: set[str]
    partial: dict[str, PartialUpload]
    save: Callable[[], None]
    rebuilt: bool = False


class _Sent(NamedTuple):
    part: Part
    is_new: bool  # else it was in the store already


def is_large(file: Path) -> bool:
    """Return whether a file is uploaded in parts, where the store takes parts."""
    limit = os.environ.get("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE") or _MIN_FILE_SIZE
    return file.stat().st_size >= int(limit)


def upload_in_parts(store: S3Parts, file: Path, path: str, key: str, progress: UploadProgress) -> None:
    """Upload the parts of a file that have not arrived yet, and make the file of all parts.

    Args:
        store: The artifact location.
        file: The local file.
        path: Its path at the location.
        key: Its key in ``progress``.
        progress: What an earlier delivery has uploaded; updated here.

    Raises:
        Unreachable: The store did not answer, or does not have what was sent.
        Refused: The store refuses the file.
    """
    size = file.stat().st_size
    new = PartialUpload(location=store.tracking_uri, path=path, size=size, part_size=_size_of_parts(size))
    upload = progress.partial.get(key) or (new if progress.rebuilt else None)
    stored: dict[int, Part] | None = None
    if upload is not None and (upload.size, upload.part_size) != (new.size, new.part_size):
        abort(upload)  # the file, or the setting, is another one by now
    elif upload is not None:
        upload.upload_id = upload.upload_id or store.find(path)
        stored = store.stored(path, upload.upload_id) if upload.upload_id else None
    if upload is None or stored is None:
        if upload is not None and _is_complete(store, file, new):
            _note_complete(key, progress)
            return
        progress.partial[key] = upload = new
        progress.save()  # before the request: if its answer is lost, the upload is looked for
        upload.upload_id = store.create(path, file)
    progress.partial[key] = upload
    progress.save()
    store.complete(path, upload.upload_id, _send_missing(store, file, upload, stored or {}, progress.save))
    made = store.complete_object(path)
    if made is not None and made.size != size:
        raise Unreachable(f"{path} was sent with {size:,} bytes, and has {made.size:,} in the store.")
    _note_complete(key, progress)


def abort(upload: PartialUpload) -> None:
    """Remove the parts of a file that is given up from the store, as far as the store answers."""
    with contextlib.suppress(DeliveryError):
        store = parts_of(upload.location)
        upload_id = upload.upload_id or (store.find(upload.path) if store is not None else "")
        if store is not None and upload_id:
            store.abort(upload.path, upload_id)


def abort_uploads(progress: Progress, staged: str = "") -> None:
    """Remove the parts of incomplete files from their stores; see :func:`abort`.

    Args:
        progress: The progress of a run's delivery; updated here.
        staged: Staged path of the item whose files are given up; by default those of all items.
    """
    for item, model in progress.models.items():
        if not staged or item == staged:
            _abort_keys(model.partial, list(model.partial))
    keys = [key for key in progress.partial if not staged or f"{key}/".startswith(f"{staged}/")]
    _abort_keys(progress.partial, keys)


def _abort_keys(partial: dict[str, PartialUpload], keys: Sequence[str]) -> None:
    for key in keys:
        abort(partial.pop(key))


def _note_complete(key: str, progress: UploadProgress) -> None:
    progress.partial.pop(key, None)
    progress.arrived.add(key)
    progress.save()


def _size_of_parts(size: int) -> int:
    """Return the length of the parts of a file of ``size`` bytes; the same for each delivery."""
    wanted = int(os.environ.get("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE") or _PART_SIZE)
    return max(wanted, -(-size // _MAX_PARTS))


def _send_missing(
    store: S3Parts, file: Path, upload: PartialUpload, stored: Mapping[int, Part], save: Callable[[], None]
) -> list[Part]:
    """Send the parts that are not stored yet, several at a time; return all parts in their order."""

    def send(number: int) -> _Sent:
        data = _read(file, upload, number)
        part = stored.get(number)
        is_new = part is None or part.size != len(data) or not _matches(part, data)
        if part is None or is_new:
            part = store.send(upload.path, upload.upload_id, number, data)
        return _Sent(part, is_new)

    numbers = iter(_numbers(upload))
    max_parallel = max(1, min(_MAX_PARALLEL, _MAX_MEMORY // upload.part_size))
    first_parallel = 1 if stored else _FIRST_PARALLEL
    parts: dict[int, Part] = {}
    pending: set[Future[_Sent]] = set()
    new, noted = 0, time.monotonic()
    with ThreadPoolExecutor(max_parallel) as pool:
        while True:
            parallel = min(max_parallel, first_parallel + new // _PARTS_PER_PARALLEL)
            pending |= {
                pool.submit(send, number) for number in itertools.islice(numbers, parallel - len(pending))
            }
            if not pending:
                return [parts[number] for number in sorted(parts)]
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for sent in (future.result() for future in done):
                parts[sent.part.number] = sent.part
                new += sent.is_new
            upload.arrived = max(upload.arrived, len(parts))  # those found again are no progress
            if time.monotonic() - noted >= _NOTE_SECONDS:
                noted = time.monotonic()
                save()


def _read(file: Path, upload: PartialUpload, number: int) -> bytes:
    with file.open("rb", buffering=0) as stream:
        stream.seek((number - 1) * upload.part_size)
        left = min(upload.part_size, upload.size - stream.tell())
        chunks = []
        while left and (chunk := stream.read(left)):
            chunks.append(chunk)
            left -= len(chunk)
    return b"".join(chunks)


def _matches(part: Part, data: bytes) -> bool:
    """Return whether a stored part has the checksum of ``data``, by any checksum that the store keeps."""
    checksums = part.checksums
    if checksums.get("ETag", "").strip('"') == _md5(data).hexdigest():
        return True
    # The ETag of a part that the store has encrypted is no MD5.
    crc, sha256 = checksums.get("ChecksumCRC32"), checksums.get("ChecksumSHA256")
    return (crc is not None and crc == _base64(zlib.crc32(data).to_bytes(4, "big"))) or (
        sha256 is not None and sha256 == _base64(hashlib.sha256(data).digest())
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _is_complete(store: S3Parts, file: Path, upload: PartialUpload) -> bool:
    """Return whether an earlier delivery has completed the upload, and was killed before it noted that."""
    made = store.complete_object(upload.path)
    if made is None or made.size != upload.size:
        return False
    digests = [_md5(_read(file, upload, number)).digest() for number in _numbers(upload)]
    return made.etag == f"{_md5(b''.join(digests)).hexdigest()}-{len(digests)}"  # as S3 makes it of the parts


def _numbers(upload: PartialUpload) -> range:
    return range(1, -(-upload.size // upload.part_size) + 1)


def _md5(data: bytes) -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)
