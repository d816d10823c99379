"""Cache downloaded models: one copy of each, up to a size limit.

A copy is a folder named after the model's id. A reader holds a shared lock on the folder itself, which the
kernel releases when its process dies; removal needs the exclusive lock. So no copy in use is removed, no lock
files pile up, and an unlocked partial download is known to be a dead process's. The folder's modification
time is the time of its last use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import platformdirs

from mlwrap._spool.ownership import make_private

_VALID_NAME = re.compile(r"[\w-]{1,100}")
_FILES = "files"
_PART = ".part"


class CacheHandle(NamedTuple):
    """A copy that stays until it is released, or until the process ends.

    Attributes:
        folder: The model's files.
        release: Releases the copy, which may then be removed.
    """

    folder: Path
    release: Callable[[], None]


class Cache:
    """The copies in one folder.

    Args:
        root: The folder; by default in the user's cache folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or platformdirs.user_cache_path("mlwrap", appauthor=False) / "models"

    def get(self, model_id: str, download: Callable[[Path], Path], limit: int) -> CacheHandle:
        """Return the copy of a model, downloading it if none exists.

        Args:
            model_id: The model's id; its files never change.
            download: Downloads the files into the folder that it gets, and returns their path in it.
            limit: Maximum size of all copies in bytes. The least recently used are removed first, except
                those in use.
        """
        name = model_id if _VALID_NAME.fullmatch(model_id) else hashlib.sha256(model_id.encode()).hexdigest()
        copy = self._root / name
        make_private(self._root)
        while True:
            if (release := _lock_shared(copy)) is not None:
                os.utime(copy)
                return CacheHandle(copy / _FILES, release)
            self._make(copy, download)
            self.trim(limit, keep=copy)

    def _make(self, copy: Path, download: Callable[[Path], Path]) -> None:
        part = Path(tempfile.mkdtemp(dir=self._root, prefix=f".{copy.name}-", suffix=_PART))
        release = _lock_shared(part)
        try:
            if release is not None:  # else trim() of another process removed it before the lock was taken
                (part / "download").mkdir(mode=0o700)
                download(part / "download").rename(part / _FILES)
                _rename(part, copy)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if release is not None:
                release()

    def trim(self, limit: int, keep: Path | None = None) -> list[str]:
        """Remove partial downloads of dead processes, and the oldest copies above ``limit`` bytes.

        Args:
            limit: Maximum size of all copies in bytes.
            keep: A copy to keep, whatever its size.

        Returns:
            Ids of the models whose copies were removed.
        """
        if not self._root.is_dir():
            return []
        entries = [entry for entry in self._root.iterdir() if entry.is_dir() and not entry.is_symlink()]
        for entry in entries:
            if entry.suffix == _PART:
                _remove(entry)
        copies = sorted((e for e in entries if e.suffix != _PART), key=_last_used)
        sizes = {copy: _bytes_in_folder(copy) for copy in copies}
        total = sum(sizes.values())
        removed = []
        for copy in copies:
            if total > limit and copy != keep and _remove(copy):
                total -= sizes[copy]
                removed.append(copy.name)
        return removed


def _rename(part: Path, copy: Path) -> None:
    try:
        part.rename(copy)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # another process made the copy
            raise


def _lock_shared(folder: Path) -> Callable[[], None] | None:
    """Lock a folder and return a function that releases it; ``None`` if it does not exist or is removed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # the filesystem has no locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return functools.partial(os.close, descriptor)
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return None


def _remove(folder: Path) -> bool:
    """Remove a folder that no process has locked; return whether it was removed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A partial removal never looks complete.
        trash = folder.with_name(f".{folder.name.strip('.')}{_PART}")
        if trash != folder:
            folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
    except OSError:  # it is locked, or the filesystem has no locks
        return False
    finally:
        os.close(descriptor)
    return True


def _last_used(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return folder.stat().st_mtime_ns
    return 0


def _bytes_in_folder(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
