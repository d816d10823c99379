"""Copy what a user points at, as it is now: regular files and folders of them, and nothing else.

A link would carry away what lies elsewhere, a pipe would wait for ever, and of a file with a second name
nobody knows who else writes to it. Each file is asked once it is open, so that what is asked is what is
read. Holes of a sparse file stay holes.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from mlwrap.errors import SpoolError

_CHUNK_SIZE = 1 << 20  # bytes


def copy_regular(source: Path, target: Path, rename: Callable[[str], str] = str) -> None:
    """Copy the file or folder ``source`` to ``target``, which is not there yet.

    A link as ``source`` itself is followed, for it was named; one below it is refused.

    Args:
        source: What is copied.
        target: Where to.
        rename: Gives the name of the copy of each file and folder below ``source``.

    Raises:
        SpoolError: Something in it is no regular file or folder, or can't be read: it is named, and nothing
            is left at ``target``.
    """
    try:
        real = Path(os.path.realpath(source, strict=True))
    except OSError as error:
        raise _explained(source, error) from error
    if target.resolve().is_relative_to(real):
        raise SpoolError(f"{source} holds the spool, which would be copied into itself. Log what is in it.")
    try:
        _copy_entry(real, target, rename)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, SpoolError):
            raise _explained(source, error) from error
        raise


def _explained(source: Path, error: OSError) -> SpoolError:
    at = error.filename or source
    if isinstance(error, FileNotFoundError):
        return SpoolError(f"{at} is not there. Was it removed, or is it relative to another folder?")
    return SpoolError(f"{at} can't be copied ({error.strerror or error}).")


def _copy_entry(source: Path, target: Path, rename: Callable[[str], str]) -> None:
    if source.is_dir():
        target.mkdir()
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise _refused(entry.path)
                _copy_entry(Path(entry.path), target / rename(entry.name), rename)
        return
    try:
        # NONBLOCK: to open a pipe would wait for its writer. NOFOLLOW: it may have become a link by now.
        opened = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP}:  # a link; a socket
            raise _refused(source) from error
        raise
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(source)
        if found.st_nlink > 1:
            raise SpoolError(
                f"{source} is a hard link: the same file has another name, under which it may be changed. "
                "Log a copy of it."
            )
        _copy_bytes(opened, target, found)
    finally:
        os.close(opened)


def _refused(path: str | Path) -> SpoolError:
    return SpoolError(
        f"{path} is a link, a pipe or a device; expected regular files and folders. Log the file itself."
    )


def _copy_bytes(opened: int, target: Path, found: os.stat_result) -> None:
    written = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        at = 0
        while at < found.st_size:
            try:
                at = os.lseek(opened, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # nothing but a hole up to its end
            hole = os.lseek(opened, at, os.SEEK_HOLE)
            while at < hole and (piece := os.pread(opened, min(_CHUNK_SIZE, hole - at), at)):
                at += os.pwrite(written, piece, at)
        os.ftruncate(written, os.fstat(opened).st_size)
        os.fchmod(written, stat.S_IMODE(found.st_mode) & 0o777)
    finally:
        os.close(written)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
