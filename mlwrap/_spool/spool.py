"""The spool: where it is, who else can write to it, which run folders it holds, and what can be swept."""

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

_IN_VAIN = "workers"
_KEY = re.compile("[0-9a-f]{32}")


def run_folders(root: Path) -> Iterator[RunFolder]:
    """This user's run folders of a spool, as their runs started: a parent before its children."""
    found = [RunFolder(path) for path, own in _entries(root) if own]
    yield from sorted((folder for folder in found if folder.exists()), key=RunFolder.started)


def foreign_folders(root: Path) -> list[RunFolder]:
    """What other users laid into a spool that looks like a run folder."""
    return [RunFolder(path) for path, own in _entries(root) if not own and is_key(path.name)]


def _entries(root: Path) -> Iterator[tuple[Path, bool]]:
    """The folders and links in a folder, and whether each is this user's."""
    with os.scandir(root) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # removed in this very moment
                if entry.is_symlink() or entry.is_dir():
                    yield Path(entry.path), entry.stat(follow_symlinks=False).st_uid == os.getuid()


def is_key(name: str) -> bool:
    """Whether a text can be the key of a run, which names its folder."""
    return _KEY.fullmatch(name) is not None


def remove_leftovers(root: Path) -> None:
    """Remove what dead processes left: sockets, and the folders of runs not yet started, or in vain."""
    sweep_sockets(root)
    for path in root.glob(f"{_IN_VAIN}/*"):
        folder = RunFolder(path)
        if folder.is_ours() and not folder.is_open():
            folder.remove()
    for path, own in list(_entries(root)):
        folder = RunFolder(path)
        if not own or not is_key(path.name) or _begun(folder) or not folder.is_ours():
            continue
        try:
            with folder.writer_lease().acquire(timeout=0):
                if not _begun(folder):
                    folder.remove()
        except OSError:  # it is being made right now, or has been removed; TimeoutError is one, too
            continue


def _begun(folder: RunFolder) -> bool:
    """Whether the journal has a whole line, or is damaged, or there is anything staged."""
    if (folder.path / "staged").exists():
        return True
    try:
        with folder.journal.open("rb") as file:
            line = file.readline()
            return line.endswith(b"\n") or b"\0" in line  # which no line has that was only cut short
    except OSError:
        return False


def spool_root(configured: str | None = None) -> Path:
    """The folder that this user's run folders live in; made if there is none.

    Args:
        configured: Where the user wants it, or ``None`` for ``mlwrap/spool`` in the user's state folder.
            Where that can't be written, as in a container without a home, a folder of the user's own under
            the system's temporary folder is taken, with one warning.

    Returns:
        That folder; where others own it or can write to it, the folder ``user-<uid>`` in it, of mode 0700.

    Raises:
        SpoolError: The configured folder, or every default one, can't be made or written, or is not safe.
    """
    if configured is not None:
        root = Path(configured).expanduser().absolute()
        try:
            return _usable(root)
        except OSError as error:
            raise SpoolError(spool_error(root, error)) from error
    default = platformdirs.user_state_path("mlwrap", appauthor=False) / "spool"
    try:
        return _usable(default)
    except OSError as error:
        return _next_best(default, error)


def spool_roots(configured: str | None = None) -> list[Path]:
    """All folders that run folders of this user, or of others, may lie in: its own first.

    Raises:
        SpoolError: As :func:`spool_root`.
    """
    root = spool_root(configured)
    return [root, root.parent] if root.name == _own_name() else [root]


def discarded_root(root: Path) -> Path:
    """Where, in a spool, run folders lie that nobody delivers: of workers that only take part in saving."""
    (root / _IN_VAIN).mkdir(mode=0o700, exist_ok=True)
    return root / _IN_VAIN


def _next_best(default: Path, error: OSError) -> Path:
    root = Path(tempfile.gettempdir()) / f"mlwrap-{os.getuid()}" / "spool"
    try:
        root.parent.mkdir(mode=0o700, exist_ok=True)
        _check_own(root.parent)
        _usable(root)
    except OSError as second:
        raise SpoolError(
            spool_error(default, error) + " Neither can " + spool_error(root, second)
        ) from second
    warn(
        f"The spool {default} can't be written ({error.strerror or error}); using {root}, which may not "
        "outlive a restart. Set MLWRAP_SPOOL to a folder that can be written and that stays."
    )
    return root


_written: set[Path] = set()


def _usable(root: Path) -> Path:
    make_private(root)
    if others_write(root.stat()):
        root = root / _own_name()
        root.mkdir(mode=0o700, exist_ok=True)
        _check_own(root)
    if root not in _written:
        with tempfile.TemporaryFile(dir=root):  # the one sure test of writing is to write
            _written.add(root)
    return root


def _own_name() -> str:
    return f"user-{os.getuid()}"


def _check_own(folder: Path) -> None:
    """Make sure that a folder in one that others can write to was not laid there by them."""
    found = folder.lstat()  # of the link, where it is one
    if not stat.S_ISDIR(found.st_mode) or others_write(found):
        raise PermissionError(f"{folder} belongs to another user, is a link, or can be written by others")
