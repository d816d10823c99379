"""Does a folder belong to this user alone? What does not is neither read, moved nor removed.

A run folder tells delivery what to read, to move and to remove. So a folder that another user made, or could
have changed, is left alone, and a journal's path of a staged file is followed inside the folder only: step by
step from an open folder, and over no link.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from mlwrap.errors import JournalError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_DEPTH = 100  # of folders in a staged folder
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ForeignFolder(JournalError):
    """A run folder belongs to another user."""


def make_private(folder: Path) -> None:
    """Make a folder, and the folders that it lies in, for this user alone, whatever the umask."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def others_write(found: os.stat_result) -> bool:
    """Whether another user owns a folder, or can write to it."""
    return found.st_uid != os.getuid() or bool(found.st_mode & _OTHERS_WRITE)


def check_run_folder(folder: Path) -> None:
    """Make sure that a run folder, and each thing in it, is this user's own.

    Raises:
        ForeignFolder: It belongs to another user.
        JournalError: It is gone; it is a link; another user can write to it, or something in it is a link or
            belongs to another user.
    """
    try:
        found = folder.lstat()
        if found.st_uid != os.getuid():
            raise ForeignFolder(f"{folder} belongs to another user (uid {found.st_uid}); it was not touched.")
        if not stat.S_ISDIR(found.st_mode):
            raise JournalError(f"{folder} is a link or a file, and no run folder; it was not touched.")
        if others_write(found):
            raise JournalError(
                f"other users can write to {folder}; it was not touched. Look what is in it, "
                "then 'chmod go-w' it."
            )
        with os.scandir(folder) as entries:
            for entry in entries:
                _check_entry(entry.stat(follow_symlinks=False), Path(entry.path))
    except (FileNotFoundError, NotADirectoryError):
        raise JournalError(f"{folder} is gone: it was delivered, or removed.") from None


def check_own_stage(folder: Path, staged: str) -> Path:
    """The path of something that lies in ``staged/`` of a run folder; nothing may lie there.

    Args:
        folder: The run folder.
        staged: The path as the journal names it, relative to the run folder.

    Raises:
        JournalError: The path leads out of ``staged/``; or a link, a device, a hard link or something of
            another user stands on the way or anywhere below.
    """
    path = PurePosixPath(staged)
    first, *rest = path.parts or ("",)
    if "\0" in staged or first != "staged" or not rest or ".." in rest:
        raise JournalError(f"{staged!r} is no path in the 'staged' folder of {folder}; it was not touched.")
    here = os.open(folder, _FOLDER)
    try:
        for depth, name in enumerate(path.parts):
            try:
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                break
            _check_entry(found, folder.joinpath(*path.parts[: depth + 1]))
            if not stat.S_ISDIR(found.st_mode):
                break
            there = os.open(name, _FOLDER, dir_fd=here)
            os.close(here)
            here = there
        else:
            _check_tree(here, folder / path, 0)
    finally:
        os.close(here)
    return folder / path


def _check_tree(here: int, path: Path, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise JournalError(f"{path} lies more than {_MAX_DEPTH} folders deep; it was not touched.")
    for name in os.listdir(here):
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
        _check_entry(found, path / name)
        if stat.S_ISDIR(found.st_mode):
            there = os.open(name, _FOLDER, dir_fd=here)
            try:
                _check_tree(there, path / name, depth + 1)
            finally:
                os.close(there)


def _check_entry(found: os.stat_result, path: Path) -> None:
    """Make sure that something is a folder or a regular file of this user's, under one name."""
    if found.st_uid != os.getuid():
        why = f"belongs to another user (uid {found.st_uid})"
    elif stat.S_ISDIR(found.st_mode):
        return
    elif stat.S_ISLNK(found.st_mode):
        why = "is a link"
    elif not stat.S_ISREG(found.st_mode):
        why = "is no regular file"
    elif found.st_nlink > 1:
        why = "is a hard link"
    else:
        return
    raise JournalError(f"{path} {why}; it was not touched.")
