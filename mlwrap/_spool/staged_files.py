"""The length and the checksum of each file of a stage, so that delivery knows whether it is what was saved.

The checksum is CRC-32, which tells damage and accidents apart from what was saved, not attackers: whoever can
write to a stage can also write to the journal. A zip file holds it for each member, so that delivery compares
without reading a byte twice.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlwrap._journal.records import StagedFile, Zip
from mlwrap.errors import Refused

LARGE_BYTES = 8 << 20
"""Bytes of one stage from which its checksums are made while the training goes on."""

_CHUNK_SIZE = 1 << 20  # bytes


def staged_files(stage: Path, zips: Mapping[str, Zip] = {}) -> dict[str, StagedFile]:
    """The files of a stage with their lengths, by their paths relative to it.

    Args:
        stage: The folder.
        zips: The zip files that delivery is to make of folders in it. Of a file with room before its content
            the content alone counts: delivery writes a header into the room.

    Raises:
        OSError: A file can't be looked at.
    """
    found: dict[str, StagedFile] = {}
    for folder, folders, files in os.walk(stage):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            found[path.relative_to(stage).as_posix()] = StagedFile(size=path.lstat().st_size)
    for zipped in zips.values():
        path_of_content = f"{zipped.folder}/{zipped.around}"
        if path_of_content in found:
            found[path_of_content] = StagedFile(size=zipped.length, start=zipped.start)
    return found


def with_checksums(stage: Path, files: Mapping[str, StagedFile]) -> dict[str, StagedFile]:
    """``files`` with the checksum of each.

    Raises:
        OSError: A file can't be read.
    """
    return {
        path: StagedFile(size=file.size, start=file.start, crc=_checksum(stage / path, file))
        for path, file in files.items()
    }


def total_size(files: Iterable[StagedFile]) -> int:
    """Bytes of all files together."""
    return sum(file.size for file in files)


class Damaged(Refused):
    """A staged file is not the one that was saved."""


def check_staged(folder: Path, files: Mapping[str, StagedFile]) -> None:
    """Compare what is staged with what was saved, by lengths alone: what is short is not read.

    Args:
        folder: The stage.
        files: What was saved, by paths relative to it.

    Raises:
        Damaged: A file is not there, or has another length: it is named.
    """
    for path, saved in files.items():
        try:
            size = (folder / path).lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise damaged(path, "is gone from the run folder") from None
        if (size != saved.size and not saved.start) or size < saved.start + saved.size:
            raise damaged(path, f"is {size:,} bytes long, and was {saved.size:,} when it was saved")


def check_content(path: str, saved: StagedFile | None, crc: int) -> None:
    """Compare a file's checksum with that of what was saved, where that is known.

    Raises:
        Damaged: It is another one.
    """
    if saved is not None and saved.crc is not None and saved.crc != crc:
        raise damaged(path, "was changed after it had been saved: its checksum is another one")


def damaged(path: str, what: str) -> Damaged:
    """The error that says what is wrong with a staged file."""
    return Damaged(f"its file {path} {what}.")


def _checksum(path: Path, file: StagedFile) -> int:
    crc, left = 0, file.size
    with path.open("rb", buffering=0) as stream:
        stream.seek(file.start)
        while left and (chunk := stream.read(min(left, _CHUNK_SIZE))):
            crc = zlib.crc32(chunk, crc)
            left -= len(chunk)
    return crc
