"""Copy a user's files as they are now: only regular files and folders of them.

A link would copy files from elsewhere, a pipe would block forever, and a file with a second hard link may be
changed under its other name. Each file is checked after it is opened, so that the checked file is the one
that is read. Holes of a sparse file stay holes.
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
    """Copy the file or folder ``source`` to ``target``, which must not exist yet.

    If ``source`` itself is a link, it is followed, since the user named it; a link below it is refused.

    Args:
        source: File or folder to copy.
        target: Path of the copy.
        rename: Returns the name of the copy for the name of each file and folder below ``source``.

    Raises:
        SpoolError: Something in ``source`` is not a regular file or folder, or can't be read. The message
            names it, and nothing is left at ``target``.
    """
    try:
        real = Path(os.path.realpath(source, strict=True))
    except OSError as error:
        raise _copy_error(source, error) from error
    if target.resolve().is_relative_to(real):
        raise SpoolError(f"{source} holds the spool, which would be copied into itself. Log what is in it.")
    try:
        _copy_entry(real, target, rename)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, SpoolError):
            raise _copy_error(source, error) from error
        raise


def _copy_error(source: Path, error: OSError) -> SpoolError:
    path = error.filename or source
    if isinstance(error, FileNotFoundError):
        return SpoolError(f"{path} is not there. Was it removed, or is it relative to another folder?")
    return SpoolError(f"{path} can't be copied ({error.strerror or error}).")


def _copy_entry(source: Path, target: Path, rename: Callable[[str], str]) -> None:
    if source.is_dir():
        target.mkdir()
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise _not_regular_error(entry.path)
                _copy_entry(Path(entry.path), target / rename(entry.name), rename)
        return
    try:
        # NONBLOCK: opening a pipe would wait for its writer. NOFOLLOW: the file may have become a link.
        opened = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP}:  # a link; a socket
            raise _not_regular_error(source) from error
        raise
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular_error(source)
        if status.st_nlink > 1:
            raise SpoolError(
                f"{source} is a hard link: the same file has another name, under which it may be changed. "
                "Log a copy of it."
            )
        _copy_bytes(opened, target, status)
    finally:
        os.close(opened)


def _not_regular_error(path: str | Path) -> SpoolError:
    return SpoolError(
        f"{path} is a link, a pipe or a device; expected regular files and folders. Log the file itself."
    )


def _copy_bytes(opened: int, target: Path, status: os.stat_result) -> None:
    written = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        offset = 0
        while offset < status.st_size:
            try:
                offset = os.lseek(opened, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break  # only a hole up to the end of the file
            hole = os.lseek(opened, offset, os.SEEK_HOLE)
            while offset < hole and (chunk := os.pread(opened, min(_CHUNK_SIZE, hole - offset), offset)):
                offset += os.pwrite(written, chunk, offset)
        os.ftruncate(written, os.fstat(opened).st_size)
        os.fchmod(written, stat.S_IMODE(status.st_mode) & 0o777)
    finally:
        os.close(written)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
