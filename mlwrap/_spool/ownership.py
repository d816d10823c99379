"""Check that only this user can write to a folder; any other folder is not read, moved or removed.

A run folder tells delivery what to read, move and remove. So mlwrap does not touch a folder that another
user made or could have changed. A journal's path of a staged file is resolved only inside the folder: step by
step from an open folder, following no link.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from mlwrap.errors import JournalError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_DEPTH = 100  # of folders in a staged folder
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ForeignFolder(JournalError):
    """A run folder belongs to another user."""


def make_private(folder: Path) -> None:
    """Make a folder and its missing parents with mode 0700, whatever the umask."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def others_write(status: os.stat_result) -> bool:
    """Return whether another user owns a folder, or can write to it."""
    return status.st_uid != os.getuid() or bool(status.st_mode & _OTHERS_WRITE)


def check_run_folder(folder: Path) -> None:
    """Check that a run folder and each entry in it belong to this user.

    Raises:
        ForeignFolder: The folder belongs to another user.
        JournalError: The folder is gone or is a link; another user can write to it; or an entry in it is a
            link or belongs to another user.
    """
    try:
        status = folder.lstat()
        if status.st_uid != os.getuid():
            raise ForeignFolder(
                f"{folder} belongs to another user (uid {status.st_uid}); it was not touched."
            )
        if not stat.S_ISDIR(status.st_mode):
            raise JournalError(f"{folder} is a link or a file, and no run folder; it was not touched.")
        if others_write(status):
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
    """Return the path of an entry in ``staged/`` of a run folder; the entry need not exist.

    Args:
        folder: The run folder.
        staged: The path in the journal, relative to the run folder.

    Raises:
        JournalError: The path leads out of ``staged/``; or a link, a device, a hard link or a file of
            another user is on the path or anywhere below it.
    """
    path = PurePosixPath(staged)
    first, *rest = path.parts or ("",)
    if "\0" in staged or first != "staged" or not rest or ".." in rest:
        raise JournalError(f"{staged!r} is no path in the 'staged' folder of {folder}; it was not touched.")
    parent = os.open(folder, _FOLDER_FLAGS)
    try:
        for depth, name in enumerate(path.parts):
            try:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                break
            _check_entry(status, folder.joinpath(*path.parts[: depth + 1]))
            if not stat.S_ISDIR(status.st_mode):
                break
            child = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
            os.close(parent)
            parent = child
        else:
            _check_tree(parent, folder / path, 0)
    finally:
        os.close(parent)
    return folder / path


def _check_tree(descriptor: int, path: Path, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise JournalError(f"{path} lies more than {_MAX_DEPTH} folders deep; it was not touched.")
    for name in os.listdir(descriptor):
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        _check_entry(status, path / name)
        if stat.S_ISDIR(status.st_mode):
            child = os.open(name, _FOLDER_FLAGS, dir_fd=descriptor)
            try:
                _check_tree(child, path / name, depth + 1)
            finally:
                os.close(child)


def _check_entry(status: os.stat_result, path: Path) -> None:
    """Check that an entry is a folder, or a regular file without further hard links, of this user."""
    if status.st_uid != os.getuid():
        reason = f"belongs to another user (uid {status.st_uid})"
    elif stat.S_ISDIR(status.st_mode):
        return
    elif stat.S_ISLNK(status.st_mode):
        reason = "is a link"
    elif not stat.S_ISREG(status.st_mode):
        reason = "is no regular file"
    elif status.st_nlink > 1:
        reason = "is a hard link"
    else:
        return
    raise JournalError(f"{path} {reason}; it was not touched.")
