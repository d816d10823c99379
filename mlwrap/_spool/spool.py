"""Locate the spool, check who can write to it, list its run folders, and remove leftovers."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from mlwrap._spool.ownership import make_private, others_write
from mlwrap._spool.run_folder import RunFolder, spool_error
from mlwrap._spool.sender_sockets import sweep_sockets
from mlwrap.errors import SpoolError, warn

_DISCARDED = "workers"
_KEY = re.compile("[0-9a-f]{32}")


def run_folders(root: Path) -> Iterator[RunFolder]:
    """Yield this user's run folders in a spool in the order of their starts: a parent before its children."""
    folders = [RunFolder(path) for path, is_own in _entries(root) if is_own]
    yield from sorted((folder for folder in folders if folder.exists()), key=RunFolder.started)


def foreign_folders(root: Path) -> list[RunFolder]:
    """Return other users' folders in a spool that look like run folders."""
    return [RunFolder(path) for path, is_own in _entries(root) if not is_own and is_key(path.name)]


def _entries(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders and links in a folder, each with whether it belongs to this user."""
    with os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # removed at this moment
                if entry.is_symlink() or entry.is_dir():
                    yield Path(entry.path), entry.stat(follow_symlinks=False).st_uid == os.getuid()


def is_key(name: str) -> bool:
    """Return whether a text has the form of a run's key, which is its folder's name."""
    return _KEY.fullmatch(name) is not None


def remove_leftovers(root: Path) -> None:
    """Remove what dead processes left: sockets, folders of runs that never started, and discarded runs."""
    sweep_sockets(root)
    for path in root.glob(f"{_DISCARDED}/*"):
        folder = RunFolder(path)
        if folder.is_ours() and not folder.is_open():
            folder.remove()
    for path, is_own in list(_entries(root)):
        folder = RunFolder(path)
        if not is_own or not is_key(path.name) or _has_started(folder) or not folder.is_ours():
            continue
        try:
            with folder.writer_lease().acquire(timeout=0):
                if not _has_started(folder):
                    folder.remove()
        except OSError:  # being made at this moment, or removed; includes filelock's Timeout
            continue


def _has_started(folder: RunFolder) -> bool:
    """Return whether the journal has a complete line or is damaged, or something is staged."""
    if (folder.path / "staged").exists():
        return True
    try:
        with folder.journal.open("rb") as file:
            line = file.readline()
            return line.endswith(b"\n") or b"\0" in line  # a line that was only cut short has no zero byte
    except OSError:
        return False


def spool_root(configured: str | None = None) -> Path:
    """Return the folder for this user's run folders; make it if missing.

    Args:
        configured: The user's setting, or ``None`` for ``mlwrap/spool`` in the user's state folder.
            If that default can't be written, as in a container without a home, a folder of this user in
            the system's temporary folder is used, with one warning.

    Returns:
        The folder; if others own it or can write to it, the folder ``user-<uid>`` in it, with mode 0700.

    Raises:
        SpoolError: The configured folder, or every default one, can't be made or written, or is not safe.
    """
    if configured is not None:
        root = Path(configured).expanduser().absolute()
        try:
            return _writable_root(root)
        except OSError as error:
            raise SpoolError(spool_error(root, error)) from error
    default = platformdirs.user_state_path("mlwrap", appauthor=False) / "spool"
    try:
        return _writable_root(default)
    except OSError as error:
        return _fallback_root(default, error)


def spool_roots(configured: str | None = None) -> list[Path]:
    """Return all folders that may hold run folders of this user or of others, this user's first.

    Raises:
        SpoolError: As :func:`spool_root`.
    """
    root = spool_root(configured)
    return [root, root.parent] if root.name == _user_folder_name() else [root]


def discarded_root(root: Path) -> Path:
    """Return the spool's folder for runs that are never delivered: of workers that only help to save."""
    (root / _DISCARDED).mkdir(mode=0o700, exist_ok=True)
    return root / _DISCARDED


def _fallback_root(default: Path, error: OSError) -> Path:
    root = Path(tempfile.gettempdir()) / f"mlwrap-{os.getuid()}" / "spool"
    try:
        root.parent.mkdir(mode=0o700, exist_ok=True)
        _check_own(root.parent)
        _writable_root(root)
    except OSError as fallback_error:
        raise SpoolError(
            spool_error(default, error) + " Neither can " + spool_error(root, fallback_error)
        ) from fallback_error
    warn(
        f"The spool {default} can't be written ({error.strerror or error}); using {root}, which may not "
        "outlive a restart. Set MLWRAP_SPOOL to a folder that can be written and that stays."
    )
    return root


_known_writable: set[Path] = set()


def _writable_root(root: Path) -> Path:
    make_private(root)
    if others_write(root.stat()):
        root = root / _user_folder_name()
        root.mkdir(mode=0o700, exist_ok=True)
        _check_own(root)
    if root not in _known_writable:
        with tempfile.TemporaryFile(dir=root):  # only writing proves that the folder can be written
            _known_writable.add(root)
    return root


def _user_folder_name() -> str:
    return f"user-{os.getuid()}"


def _check_own(folder: Path) -> None:
    """Check that a folder was not made by others who can write to its parent."""
    status = folder.lstat()  # lstat: a link itself is checked, not its target
    if not stat.S_ISDIR(status.st_mode) or others_write(status):
        raise PermissionError(f"{folder} belongs to another user, is a link, or can be written by others")
