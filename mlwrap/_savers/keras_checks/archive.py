"""Check what a ``.keras`` file contains before any of it is opened.

Keras writes a zip of uncompressed members: a configuration, the weights as HDF5, and assets. Any other file
was not written by Keras and is refused, because anyone with write access to the
artifact store can replace a file.
"""

from __future__ import annotations

import io
import json
import math
import stat
import struct
import zipfile
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mlwrap.errors import LoadError, describe_error

WEIGHTS = "model.weights.h5"
_CONFIG = "config.json"
_KNOWN = {_CONFIG, "metadata.json", WEIGHTS}
_ASSETS = "assets/"
_MAX_MEMBERS = 10_000  # an asset for each layer that has one
_MAX_CONFIG_BYTES = 256 << 20  # bytes; it may contain vocabularies
_MIN_INFLATED_BYTES = 1 << 20  # bytes that any compressed array may grow to
_MAX_GROWTH = 100
_MAX_NAMES = 10_000  # texts in one attribute: names of layers or of weights
_LOCAL_HEADER = struct.Struct("<26xHH")  # lengths of name and extra field; the data follow them


def check_archive(file: Path) -> None:
    """Check a ``.keras`` file: its members, and every object in its weights.

    Unpacks nothing and reads no data.

    Raises:
        LoadError: There are too many members; a member would be written outside the folder, is a link, is
            compressed or unknown; the members are longer than the file; or the weights are not a
            self-contained HDF5 file.
    """
    with _open_archive(file) as archive:
        _check_members(archive, file)
        with file.open("rb") as raw:
            _check_weights(archive, raw, file)


def read_config(file: Path) -> Any:
    """Return the configuration of a ``.keras`` file or folder that mlwrap wrote or checked.

    Args:
        file: The folder, or a file that mlwrap wrote or :func:`check_archive` accepted.

    Raises:
        LoadError: It is not JSON.
    """
    if file.is_dir():
        return json.loads((file / _CONFIG).read_bytes())
    with _open_archive(file) as archive:
        try:
            return json.loads(archive.read(_CONFIG))
        except (ValueError, RecursionError, zipfile.BadZipFile) as error:
            raise _refused(file, f"its {_CONFIG} can't be read ({describe_error(error)})") from error


def weights_size(file: Path) -> int:
    """Return the size in bytes of the weights in a ``.keras`` file that :func:`check_archive` accepted."""
    with _open_archive(file) as archive:
        return archive.getinfo(WEIGHTS).file_size


def check_hdf5(file: Path | io.BufferedReader, name: str) -> None:
    """Check every object in an HDF5 file, without reading data.

    Raises:
        LoadError: The file is not HDF5; or an object is a link, is stored in another file, is virtual, or is
            far larger in memory than in the file.
    """
    h5py: Any = import_module("h5py")  # a dependency of Keras
    try:
        with h5py.File(file, "r") as root:
            problem = _hdf5_problem(h5py, root)
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
    ) as error:  # h5py raises these for broken files
        raise LoadError(
            f"{name} can't be read: {describe_error(error)}. Load only what a training wrote."
        ) from error
    if problem:
        raise LoadError(
            f"{name} is refused: {problem}. No Keras writes that: load only what a training wrote."
        )


def _open_archive(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _refused(
            file, f"expected a zip archive, got something else ({describe_error(error)})"
        ) from error


def _check_members(archive: zipfile.ZipFile, file: Path) -> None:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise _refused(file, f"it has {len(members):,} members, more than {_MAX_MEMBERS:,}")
    seen: set[str] = set()
    for member in members:
        if problem := _member_problem(member, seen):
            raise _refused(file, f"its member {member.orig_filename!r} {problem}")
        seen.add(member.filename)
    if missing := sorted({_CONFIG, WEIGHTS} - seen):
        raise _refused(file, f"it has no {' and no '.join(missing)}")
    total, length = sum(member.file_size for member in members), file.stat().st_size
    if total > length:
        raise _refused(file, f"its members are {total:,} bytes long together, the file is {length:,}")


def _member_problem(member: zipfile.ZipInfo, seen: set[str]) -> str | None:
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or "\\" in name or "\0" in name or ":" in name.partition("/")[0]:
        return "has an absolute name"
    if ".." in PurePosixPath(name).parts:
        return "leads out of the folder that it is unpacked in"
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is a link, or another special file"
    if name not in _KNOWN and not name.startswith(_ASSETS):
        return "is nothing that Keras writes"
    if name in seen:
        return "is in it twice"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        return "is compressed, and could grow to any size"
    if name == _CONFIG and member.file_size > _MAX_CONFIG_BYTES:
        return f"is {member.file_size:,} bytes long, more than {_MAX_CONFIG_BYTES:,}"
    return None


def _check_weights(archive: zipfile.ZipFile, raw: BinaryIO, file: Path) -> None:
    member = archive.getinfo(WEIGHTS)
    raw.seek(member.header_offset)
    header = raw.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        raise _refused(file, f"{WEIGHTS} is not where it says")
    start = member.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header))
    check_hdf5(io.BufferedReader(_FileRegion(raw, start, member.file_size)), f"{WEIGHTS} in {file}")


class _FileRegion(io.RawIOBase):
    """A part of a file, as a file: a member of a zip is read in place, not unpacked into memory."""

    def __init__(self, raw: BinaryIO, start: int, length: int) -> None:
        self._raw, self._start, self._length, self._at = raw, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence] + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._raw.seek(self._start + self._at)
        data = self._raw.read(max(0, min(len(buffer), self._length - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _hdf5_problem(h5py: Any, root: Any) -> str | None:
    seen = {h5py.h5o.get_info(root.id).addr}  # a hard link can point to one of its parents
    groups = [root]
    if problem := _attribute_problem(root):
        return f"the file {problem}"
    while groups:
        group = groups.pop()
        for name in group:
            if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
                return f"{group.name}/{name} is a link that leads elsewhere"
            item = group[name]
            if (address := h5py.h5o.get_info(item.id).addr) in seen:
                continue
            seen.add(address)
            if problem := _attribute_problem(item):
                return f"{item.name} {problem}"
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif problem := _dataset_problem(h5py, item):
                return f"{item.name} {problem}"
    return None


def _attribute_problem(item: Any) -> str | None:
    """Return a problem if an attribute has more texts than Keras writes: copies of a text need no space."""
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        if attribute.dtype.hasobject and math.prod(attribute.shape) > _MAX_NAMES:
            return f"has {math.prod(attribute.shape):,} texts in its attribute {name!r}"
    return None


def _dataset_problem(h5py: Any, item: Any) -> str | None:
    if not isinstance(item, h5py.Dataset):
        return "is neither a group nor a dataset"
    if item.external:
        return "is kept in another file"
    if item.is_virtual:
        return "is put together from other files"
    if item.dtype.hasobject:
        return "holds text, references or arrays of any length, of which a few bytes can stand for gigabytes"
    if item.nbytes > max(_MIN_INFLATED_BYTES, _MAX_GROWTH * item.id.get_storage_size()):
        return f"would be {item.nbytes:,} bytes in memory, and is {item.id.get_storage_size():,} in the file"
    return None


def _refused(file: Path, problem: str) -> LoadError:
    return LoadError(
        f"{file} is refused: {problem}. Expected a file as Keras's own save() writes it: load only "
        "what a training wrote, and if this one is, download it again."
    )
