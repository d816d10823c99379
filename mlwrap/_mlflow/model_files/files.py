"""A model's files on this machine: listed, hashed, zipped and copied, each byte read once for all of it."""

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
_PADDING = struct.Struct("<HHH")  # begins that of a header: its kind, its length, and to what is aligned
_ZIPALIGN = 0xD935  # the kind that Android's zipalign writes
_MAX_WORKERS = 4  # files; what hashes and copies them lets go of the interpreter


def local_path(location: str) -> Path | None:
    """The path behind an artifact location on this machine's filesystem; ``None`` for any other."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(unquote(location)) if not parts.scheme else None  # as MLflow reads it


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return _digest_and_checksum(file)[0]


def _digest_and_checksum(file: Path) -> tuple[str, int]:
    """SHA-256 of a file, in hexadecimal, and its CRC-32."""
    found, crc = hashlib.sha256(), 0
    with file.open("rb", buffering=0) as stream:
        while piece := stream.read(_CHUNK_SIZE):
            found.update(piece)
            crc = zlib.crc32(piece, crc)
    return found.hexdigest(), crc


def list_files(folder: Path) -> list[str]:
    """Relative paths of the files in ``folder``, ``MLmodel`` last: where it is, all is."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: (path == MLMODEL, path))


class _Hashed(io.RawIOBase):
    """A file that is hashed in a thread beside while it is written, from its first byte to its last.

    Args:
        path: The file.
        mode: If it is new, who may read it.
        there: The bytes that are in it already, as they are to be: written to it, they are but hashed.
    """

    def __init__(self, path: Path, mode: int, there: range = range(0)) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
        if not there:
            os.ftruncate(self._descriptor, 0)
        self._there = there
        self._at = 0
        self._hash = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._hashing: Future[None] | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write all of ``data``; what is large must not change after it."""
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None
        if len(data) < _CHUNK_SIZE:
            self._hash.update(data)
        else:
            self._hashing = self._thread.submit(self._hash.update, data)
        left = memoryview(data)
        if self._at in self._there:
            self._at += len(left)
            return len(data)
        while left:
            written = os.pwrite(self._descriptor, left, self._at)
            self._at += written
            left = left[written:]
        return len(data)

    def digest(self) -> str:
        """Of what was written, in hexadecimal; that is all that the file has then."""
        self._thread.shutdown()
        os.ftruncate(self._descriptor, self._at)
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
    """Lay a model's files out as loaders want them; what an earlier delivery did is left alone.

    Args:
        staged: What the saver wrote.
        zips: The path of each zip file to make, to what it is made of; uncompressed.
        into: Where the files are to lie: ``staged`` itself, or an empty folder, and then ``staged`` stays as
            it is.
        saved: The saver's files, by relative path: these and no others are laid out, and are compared with
            what is staged. Empty if nobody knows them.
        added: Paths of the files that delivery has written beside them, or in their place.

    Returns:
        SHA-256 of every file but ``MLmodel``, by its relative path.

    Raises:
        Damaged: What is staged is not what was saved.
    """
    found = {}
    for file, zipped in zips.items():
        folder, inner = staged / zipped.folder, f"{zipped.folder}/"
        if not (staged / file).exists():  # else it was made, and the folder left
            members = {path.removeprefix(inner): saved[path] for path in saved if path.startswith(inner)}
            check_staged(folder, members)
            found[file] = _zip_folder(folder, zipped, into / file, members, in_place=into == staged)
        if into == staged:
            shutil.rmtree(folder, ignore_errors=True)
    folders = tuple(f"{zipped.folder}/" for zipped in zips.values())
    single = {
        path: file for path, file in saved.items() if not path.startswith(folders) and path not in added
    }
    check_staged(staged, single)
    wanted = {*single, *added, *zips}
    others = []
    for path in list_files(staged):
        if path == MLMODEL or path in found or path.startswith(folders):
            continue
        if not saved or path in wanted:
            others.append(path)
        elif into == staged:  # the folder becomes the model's own
            (staged / path).unlink()

    def take(path: str) -> str:
        if into == staged:
            sha256, crc = _digest_and_checksum(staged / path)
        else:
            sha256, crc = _copy_and_hash(staged / path, into / path)
        check_content(path, single.get(path), crc)
        return sha256

    large = {path for path in others if (staged / path).stat().st_size > _CHUNK_SIZE}
    with ThreadPoolExecutor(_MAX_WORKERS) as pool:  # a small one takes less than to hand it over does
        taken = {path: pool.submit(take, path) for path in large}
        found |= {path: take(path) for path in others if path not in large}
        found |= {path: future.result() for path, future in taken.items()}
    return dict(sorted(found.items()))


def _zip_folder(
    folder: Path, zipped: Zip, target: Path, saved: Mapping[str, StagedFile], *, in_place: bool
) -> str:
    """Make a zip file of a folder's content; its SHA-256.

    Args:
        folder: The folder.
        zipped: What is known of it.
        target: The zip file.
        saved: The files in it that were saved; empty if nobody knows them.
        in_place: The file with room for a header may be made into it, and is gone then.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, there = target.with_name(f".{target.name}.part"), range(0)
    members = {}
    if zipped.around:
        around, content = folder / zipped.around, range(zipped.start, zipped.start + zipped.length)
        members[around] = content  # the first: behind its header all stays where it is
        if in_place:
            part, there = around, content
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (not saved or path.relative_to(folder).as_posix() in saved):
            members.setdefault(path, range(path.stat().st_size))
    # It can't seek, so that the hash is right at the end: the archive's directory tells sizes and checksums.
    with _Hashed(part, 0o600, there) as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for path, content in members.items():
                _add(archive, path, content, path.relative_to(folder).as_posix())
            for entry in archive.infolist():
                name = f"{zipped.folder}/{entry.filename}"
                check_content(name, saved.get(entry.filename), entry.CRC)
        found = stream.digest()
    part.rename(target)
    return found


def _add(archive: zipfile.ZipFile, path: Path, content: range, name: str) -> None:
    """Add these bytes of a file; if others come before them, behind a header just as long as those."""
    entry = zipfile.ZipInfo(name)  # without the time of day
    entry.file_size = len(content)
    if content.start:
        entry.CRC = 0  # what the header is to say of it comes behind the content
        room = content.start - len(entry.FileHeader(zip64=True))
        entry.extra = _PADDING.pack(_ZIPALIGN, room - 4, 1).ljust(room, b"\0")
    with (
        path.open("rb", buffering=0) as source,
        archive.open(entry, "w", force_zip64=content.start > 0) as member,  # as its length was reckoned with
    ):
        source.seek(content.start)
        left = len(content)
        while left:
            piece = source.read(min(left, _CHUNK_SIZE))
            if not piece:
                raise damaged(name, f"is {left:,} bytes shorter than it was when it had been saved")
            member.write(piece)
            left -= len(piece)


def _copy_and_hash(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file; its SHA-256 and CRC-32."""
    target.parent.mkdir(parents=True, exist_ok=True)
    crc = 0
    with source.open("rb", buffering=0) as content, _Hashed(target, 0o600) as stream:
        while piece := content.read(_CHUNK_SIZE):
            crc = zlib.crc32(piece, crc)
            stream.write(piece)
        found = stream.digest()
    shutil.copystat(source, target)
    return found, crc


@contextlib.contextmanager
def staging_dir(staged: Path, target: Path) -> Iterator[Path]:
    """Where to build what is renamed to ``target``: ``staged`` itself, or beside the target.

    Beside it where the two are on different filesystems. What is not renamed at the end is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    probe = staged.with_name(f".{staged.name}.part")
    probe.mkdir(exist_ok=True)
    try:
        probe.rename(part)  # the one sure test: two mounts of one filesystem can't be told otherwise
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
    """Compare what is in a folder with what was to be written there.

    Raises:
        Unreachable: A file is not as it should be.
    """
    with ThreadPoolExecutor(_MAX_WORKERS) as pool:
        for path, there in zip(manifest, pool.map(lambda path: digest(folder / path), manifest), strict=True):
            if there != manifest[path]:
                raise Unreachable(f"{path} was not written to {folder} as it is, so the model stays here.")
