"""List, hash, zip and copy a model's files, reading each byte once for all of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlwrap._journal.records import StagedFile, Zip
from mlwrap._spool.staged_files import check_content, check_staged, damaged
from mlwrap.errors import Unreachable

MLMODEL = "MLmodel"
_CHUNK_SIZE = 1 << 20  # bytes
_PADDING = struct.Struct("<HHH")  # head of a padding field: its id, its length, and the alignment
_ZIPALIGN = 0xD935  # the field id of Android's zipalign
_MAX_WORKERS = 4  # files at a time; hashing and copying release the GIL


def local_path(location: str) -> Path | None:
    """Return the path of an artifact location on this machine's filesystem; ``None`` for any other."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(unquote(location)) if not parts.scheme else None  # as MLflow reads it


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return _digest_and_checksum(file)[0]


def _digest_and_checksum(file: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file, in hexadecimal, and its CRC-32."""
    sha256, crc = hashlib.sha256(), 0
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK_SIZE):
            sha256.update(chunk)
            crc = zlib.crc32(chunk, crc)
    return sha256.hexdigest(), crc


def list_files(folder: Path) -> list[str]:
    """Return the relative paths of the files in ``folder``, ``MLmodel`` last: it marks completion."""
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(paths, key=lambda path: (path == MLMODEL, path))


class _HashedFile(io.RawIOBase):
    """A file that a second thread hashes while it is written, from its first byte to its last.

    Args:
        path: The file.
        mode: The permissions of a new file.
        already_written: The range of bytes that the file already contains; they are only hashed.
    """

    def __init__(self, path: Path, mode: int, already_written: range = range(0)) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
        if not already_written:
            os.ftruncate(self._descriptor, 0)
        self._already_written = already_written
        self._position = 0
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._hashing: Future[None] | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write all of ``data``; a large buffer must not change afterwards."""
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None
        if len(data) < _CHUNK_SIZE:
            self._hash.update(data)
        else:
            self._hashing = self._thread.submit(self._hash.update, data)
        remaining = memoryview(data)
        if self._position in self._already_written:
            self._position += len(remaining)
            return len(data)
        while remaining:
            written = os.pwrite(self._descriptor, remaining, self._position)
            self._position += written
            remaining = remaining[written:]
        return len(data)

    def digest(self) -> str:
        """Cut the file off after the last written byte, and return its hash in hexadecimal."""
        self._thread.shutdown()
        os.ftruncate(self._descriptor, self._position)
        return self._hash.hexdigest()

    def close(self) -> None:
        if not self.closed:
            self._thread.shutdown()
            os.close(self._descriptor)
        super().close()


def assemble(
    staged: Path,
    zips: Mapping[str, Zip],
    into: Path,
    saved: Mapping[str, StagedFile] = {},
    added: AbstractSet[str] = frozenset(),
) -> dict[str, str]:
    """Write a model's files in the layout that loaders expect; keep what an earlier delivery did.

    Args:
        staged: The folder that the saver wrote.
        zips: Path of each zip file to make, uncompressed, and its contents.
        into: The folder for the files: ``staged`` itself, or an empty folder, in which case ``staged`` stays
            unchanged.
        saved: The saver's files, by relative path: only these are laid out, and they are compared with the
            staged files. Empty if unknown.
        added: Paths of the files that delivery wrote beside them, or in their place.

    Returns:
        SHA-256 of every file but ``MLmodel``, by its relative path.

    Raises:
        Damaged: The staged files differ from the saved ones.
    """
    manifest = {}
    for file, zipped in zips.items():
        folder, inner = staged / zipped.folder, f"{zipped.folder}/"
        if not (staged / file).exists():  # else an earlier delivery made it, and did not remove the folder
            members = {path.removeprefix(inner): saved[path] for path in saved if path.startswith(inner)}
            check_staged(folder, members)
            manifest[file] = _zip_folder(folder, zipped, into / file, members, in_place=into == staged)
        if into == staged:
            shutil.rmtree(folder, ignore_errors=True)
    folders = tuple(f"{zipped.folder}/" for zipped in zips.values())
    single = {
        path: file for path, file in saved.items() if not path.startswith(folders) and path not in added
    }
    check_staged(staged, single)
    expected = {*single, *added, *zips}
    others = []
    for path in list_files(staged):
        if path == MLMODEL or path in manifest or path.startswith(folders):
            continue
        if not saved or path in expected:
            others.append(path)
        elif into == staged:  # the staged folder becomes the model's own
            (staged / path).unlink()

    def hash_or_copy(path: str) -> str:
        if into == staged:
            sha256, crc = _digest_and_checksum(staged / path)
        else:
            sha256, crc = _copy_and_hash(staged / path, into / path)
        check_content(path, single.get(path), crc)
        return sha256

    large = {path for path in others if (staged / path).stat().st_size > _CHUNK_SIZE}
    with ThreadPoolExecutor(_MAX_WORKERS) as pool:  # a small file takes less time than the handover
        futures = {path: pool.submit(hash_or_copy, path) for path in large}
        manifest |= {path: hash_or_copy(path) for path in others if path not in large}
        manifest |= {path: future.result() for path, future in futures.items()}
    return dict(sorted(manifest.items()))


def _zip_folder(
    folder: Path, zipped: Zip, target: Path, saved: Mapping[str, StagedFile], *, in_place: bool
) -> str:
    """Make a zip file of a folder's content and return its SHA-256.

    Args:
        folder: The folder.
        zipped: The record of the folder.
        target: The zip file.
        saved: The saved files of the folder; empty if unknown.
        in_place: Whether the file with room for a header may become the zip file, and so disappear.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, already_written = target.with_name(f".{target.name}.part"), range(0)
    members = {}
    if zipped.around:
        padded, content = folder / zipped.around, range(zipped.start, zipped.start + zipped.length)
        members[padded] = content  # the first, so that its bytes stay in place behind the header
        if in_place:
            part, already_written = padded, content
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (not saved or path.relative_to(folder).as_posix() in saved):
            members.setdefault(path, range(path.stat().st_size))
    # The stream can't seek, so its hash is final: the zip's directory holds sizes and checksums.
    with _HashedFile(part, 0o600, already_written) as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for path, content in members.items():
                _add(archive, path, content, path.relative_to(folder).as_posix())
            for entry in archive.infolist():
                name = f"{zipped.folder}/{entry.filename}"
                check_content(name, saved.get(entry.filename), entry.CRC)
        sha256 = stream.digest()
    part.rename(target)
    return sha256


def _add(archive: zipfile.ZipFile, path: Path, content: range, name: str) -> None:
    """Add a range of a file's bytes; if it has an offset, behind a header exactly as long as the offset."""
    entry = zipfile.ZipInfo(name)  # a fixed time, so that the bytes are reproducible
    entry.file_size = len(content)
    if content.start:
        entry.CRC = 0  # the header's checksum follows the content
        room = content.start - len(entry.FileHeader(zip64=True))
        entry.extra = _PADDING.pack(_ZIPALIGN, room - 4, 1).ljust(room, b"\0")
    with (
        path.open("rb", buffering=0) as source,
        archive.open(entry, "w", force_zip64=content.start > 0) as member,  # the offset allows for zip64
    ):
        source.seek(content.start)
        remaining = len(content)
        while remaining:
            chunk = source.read(min(remaining, _CHUNK_SIZE))
            if not chunk:
                raise damaged(name, f"is {remaining:,} bytes shorter than it was when it had been saved")
            member.write(chunk)
            remaining -= len(chunk)


def _copy_and_hash(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file and return its SHA-256 and CRC-32."""
    target.parent.mkdir(parents=True, exist_ok=True)
    crc = 0
    with source.open("rb", buffering=0) as content, _HashedFile(target, 0o600) as stream:
        while chunk := content.read(_CHUNK_SIZE):
            crc = zlib.crc32(chunk, crc)
            stream.write(chunk)
        sha256 = stream.digest()
    shutil.copystat(source, target)
    return sha256, crc


@contextlib.contextmanager
def staging_dir(staged: Path, target: Path) -> Iterator[Path]:
    """Yield the folder to build ``target`` in: ``staged`` itself, or one beside the target.

    The folder is beside the target if the two are on different filesystems, and is removed unless renamed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    probe = staged.with_name(f".{staged.name}.part")
    probe.mkdir(exist_ok=True)
    try:
        probe.rename(part)  # the only sure test: st_dev is the same for two mounts of one filesystem
    except OSError as error:
        probe.rmdir()
        if error.errno != errno.EXDEV:
            raise
    else:
        part.rmdir()
        yield staged
        return
    try:
        part.mkdir()
        shutil.copystat(staged, part)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_copied(folder: Path, manifest: Mapping[str, str]) -> None:
    """Compare the files in a folder with the manifest.

    Raises:
        Unreachable: A file differs from its entry in the manifest.
    """
    with ThreadPoolExecutor(_MAX_WORKERS) as pool:
        for path, sha256 in zip(
            manifest, pool.map(lambda path: digest(folder / path), manifest), strict=True
        ):
            if sha256 != manifest[path]:
                raise Unreachable(f"{path} was not written to {folder} as it is, so the model stays here.")
