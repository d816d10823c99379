"""Record the length and checksum of each staged file, so that delivery can detect changes.

The checksum is CRC-32. It detects damage, not attackers: a process that can write to a stage can also write
to the journal. Zip files hold the same checksum for each member, so delivery compares it without reading a
byte twice.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlwrap._journal.records import StagedFile, Zip
from mlwrap.errors import Refused

LARGE_BYTES = 8 << 20
"""Size in bytes from which a stage's checksums are computed while the training continues."""

_CHUNK_SIZE = 1 << 20  # bytes


def staged_files(stage: Path, zips: Mapping[str, Zip] = {}) -> dict[str, StagedFile]:
    """Return the files of a stage with their lengths, by paths relative to the stage.

    Args:
        stage: The folder.
        zips: The zip files that delivery makes from folders in the stage. For a file with room before its
            content only the content counts: delivery writes a header into the room.

    Raises:
        OSError: A file's status can't be read.
    """
    by_path: dict[str, StagedFile] = {}
    for folder, folders, files in os.walk(stage):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            by_path[path.relative_to(stage).as_posix()] = StagedFile(size=path.lstat().st_size)
    for zipped in zips.values():
        content_path = f"{zipped.folder}/{zipped.around}"
        if content_path in by_path:
            by_path[content_path] = StagedFile(size=zipped.length, start=zipped.start)
    return by_path


def with_checksums(stage: Path, files: Mapping[str, StagedFile]) -> dict[str, StagedFile]:
    """Return ``files`` with the checksum of each.

    Raises:
        OSError: A file can't be read.
    """
    return {
        path: StagedFile(size=file.size, start=file.start, crc=_checksum(stage / path, file))
        for path, file in files.items()
    }


def total_size(files: Iterable[StagedFile]) -> int:
    """Return the size of all files together, in bytes."""
    return sum(file.size for file in files)


class Damaged(Refused):
    """A staged file differs from the one that was saved."""


def check_staged(folder: Path, files: Mapping[str, StagedFile]) -> None:
    """Compare the lengths of staged files with those that were saved, without reading the files.

    Args:
        folder: The stage.
        files: The saved files, by paths relative to the stage.

    Raises:
        Damaged: A file is missing or has another length; the message names it.
    """
    for path, saved in files.items():
        try:
            size = (folder / path).lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise damaged(path, "is gone from the run folder") from None
        if (size != saved.size and not saved.start) or size < saved.start + saved.size:
            raise damaged(path, f"is {size:,} bytes long, and was {saved.size:,} when it was saved")


def check_content(path: str, saved: StagedFile | None, crc: int) -> None:
    """Compare a file's checksum with that of the saved file, if that is known.

    Raises:
        Damaged: The checksums differ.
    """
    if saved is not None and saved.crc is not None and saved.crc != crc:
        raise damaged(path, "was changed after it had been saved: its checksum is another one")


def check_contents(folder: Path, files: Mapping[str, StagedFile]) -> None:
    """Compare the lengths and checksums of files with those that were saved.

    Raises:
        Damaged: A file is missing or differs; the message names it.
    """
    check_staged(folder, files)
    for path, file in with_checksums(folder, files).items():
        check_content(path, files[path], file.crc or 0)


def damaged(path: str, what: str) -> Damaged:
    """Return the error for a staged file; ``what`` says what is wrong with it."""
    return Damaged(f"its file {path} {what}.")


def _checksum(path: Path, file: StagedFile) -> int:
    crc, remaining = 0, file.size
    with path.open("rb", buffering=0) as stream:
        stream.seek(file.start)
        while remaining and (chunk := stream.read(min(remaining, _CHUNK_SIZE))):
            crc = zlib.crc32(chunk, crc)
            remaining -= len(chunk)
    return crc
