"""Is what is staged still what was saved?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlwrap._journal import StagedFile
from mlwrap.errors import Refused


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
