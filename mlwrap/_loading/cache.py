"""Downloaded models: one copy of each, of as many as there is room for.

A copy is a folder named by the model's id. Whoever uses it holds a shared lock on the folder itself, which
the kernel takes back when its process dies, and whoever removes it holds the only one: so nothing is removed
that is in use, no lock files pile up, and what a dead process left half downloaded is known by nobody
holding it. When a copy was last used is its folder's time.
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

_PLAIN = re.compile(r"[\w-]{1,100}")
_FILES = "files"
_PART = ".part"


class CacheHandle(NamedTuple):
    """A copy that stays until it is let go of, or until the process ends.

    Attributes:
        folder: The model's files.
        release: Lets it go; it may be removed then.
    """

    folder: Path
    release: Callable[[], None]


class Cache:
    """The copies in one folder.

    Args:
        root: Where they lie; by default in the user's cache folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or platformdirs.user_cache_path("mlwrap", appauthor=False) / "models"

    def get(self, model_id: str, download: Callable[[Path], Path], limit: int) -> CacheHandle:
        """The copy of a model, made if there is none yet.

        Args:
            model_id: Whose; what lies under one id never changes.
            download: Downloads the files into the folder that it is given, and says where in it they are.
            limit: Bytes that all copies may take. The ones that were not used for longest go first, and none
                that is in use.
        """
        name = model_id if _PLAIN.fullmatch(model_id) else hashlib.sha256(model_id.encode()).hexdigest()
        copy = self._root / name
        make_private(self._root)
        while True:
            if (held := _hold(copy)) is not None:
                os.utime(copy)
                return CacheHandle(copy / _FILES, held)
            self._make(copy, download)
            self.trim(limit, keep=copy)

    def _make(self, copy: Path, download: Callable[[Path], Path]) -> None:
        part = Path(tempfile.mkdtemp(dir=self._root, prefix=f".{copy.name}-", suffix=_PART))
        release = _hold(part)
        try:
            if release is not None:  # else it was swept before it was held
                (part / "download").mkdir(mode=0o700)
                download(part / "download").rename(part / _FILES)
                _rename(part, copy)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if release is not None:
                release()

    def trim(self, limit: int, keep: Path | None = None) -> list[str]:
        """Remove what dead processes left, and the oldest copies until the others fit in ``limit`` bytes.

        Args:
            limit: Bytes.
            keep: One that stays, whatever its size.

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
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # somebody else was first
            raise


def _hold(folder: Path) -> Callable[[], None] | None:
    """Hold a folder, and give what lets it go; ``None`` if it is not there, or goes in this very moment."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # a filesystem without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return functools.partial(os.close, descriptor)
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return None


def _remove(folder: Path) -> bool:
    """Remove a folder that nobody holds; whether it was."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = folder.with_name(f".{folder.name.strip('.')}{_PART}")  # so that half of it never looks whole
        if gone != folder:
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError:  # somebody holds it, or nobody can tell
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
