"""Check, lease, fill and remove a run's folder.

A run folder has the run's key as its name and holds::

    journal.jsonl      the records: the training process writes them, the sender adds system metrics
    staged/            models and files that wait to be delivered
    delivered.json     how far delivery got; only delivery writes it
    waits              why an unfinished delivery was given up
    reserve            disk space for the journal's last records
    writer.lock        locked while the training process lives
    delivery.lock      locked by the process that delivers
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import msgspec

from mlwrap._journal.progress import PROGRESS_FORMAT, Progress
from mlwrap._spool.copy_files import copy_regular
from mlwrap._spool.ownership import check_own_stage, check_run_folder
from mlwrap.errors import JournalError

RESERVED = 1 << 16  # bytes


class _Format(msgspec.Struct):
    format: int = 0


class RunFolder:
    """One run's folder, for the training process and for delivery.

    Args:
        path: The folder; the constructor does not touch it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = path.name
        self.journal = path / "journal.jsonl"
        self._staged = path / "staged"
        self._numbers = itertools.count(1)
        self._progress = path / "delivered.json"
        self._reserve = path / "reserve"
        self._waits = path / "waits"
        self._writer_lock = path / "writer.lock"
        self._delivery_lock = path / "delivery.lock"
        # Whether a delivery had started before the newest lease; None before this object's first lease.
        self._was_delivered: bool | None = None

    def check(self) -> None:
        """Check that the folder and all its entries belong to this user; call this before any use.

        Raises:
            ForeignFolder: The folder belongs to another user.
            JournalError: The folder is gone, another user could have changed it, or an entry is a link.
        """
        check_run_folder(self.path)

    def exists(self) -> bool:
        """Return whether the journal exists; if the system can't tell, return true."""
        try:
            self.journal.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def began(self) -> int:
        """Return the run's start in nanoseconds: the time of the lock file, which is never written to."""
        try:
            return self._writer_lock.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def note_start(self) -> None:
        """Store the start time more exactly than the file system's clock, which ticks slowly."""
        with contextlib.suppress(OSError):
            os.utime(self._writer_lock, ns=(time.time_ns(), self.began()))

    def started(self) -> tuple[int, int]:
        """Return a sort key by start time, exact even within one tick of the file system's clock."""
        try:
            lock = self._writer_lock.stat()
        except FileNotFoundError:
            return 0, 0
        return lock.st_mtime_ns, lock.st_atime_ns

    def stage(self, name: str) -> Path:
        """Make a new, empty folder to save ``name`` in.

        Its number is never reused: the folder is removed once it is delivered, and delivery keeps its
        progress under the folder's path. Its mode follows the umask, since it may become a model's folder in
        a store that others read; until then it is in a folder that only this user can enter.
        """
        self._staged.mkdir(mode=0o700, exist_ok=True)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
        folder = self._staged / f"{next(self._numbers)}-{safe}"
        folder.mkdir()
        return folder

    def stage_copy(self, source: Path, name: str | None = None, rename: Callable[[str], str] = str) -> Path:
        """Copy a file or folder as it is now; refuse anything else, and links in the folder.

        Args:
            source: File or folder to copy.
            name: Name of the copy; by default the name of ``source``.
            rename: Returns the name of the copy for the name of each file and folder below ``source``.

        Raises:
            SpoolError: An entry can't be copied; the message names its path, and no copy is left.
        """
        name = source.name if name is None else name
        target = self.stage(name) / name
        try:
            copy_regular(source, target, rename)
        except BaseException:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise
        return target

    def relative(self, path: Path) -> str:
        """Return ``path`` relative to the run folder, which is its form in the journal."""
        return path.relative_to(self.path).as_posix()

    def staged_path(self, relative: str) -> Path:
        """Return the path of a staged entry from its relative path in the journal; it need not exist.

        Raises:
            JournalError: The path leads out of ``staged/``; or a link, a device, a hard link or a file of
                another user is on the path or anywhere below it.
        """
        return check_own_stage(self.path, relative)

    def progress(self) -> Progress:
        """Return how far delivery got; if that is lost, ``asked`` is true and MLflow must be searched.

        Raises:
            JournalError: A newer mlwrap wrote ``delivered.json``.
        """
        try:
            text = self._progress.read_bytes()
        except FileNotFoundError:
            if not (self._delivery_lock.exists() if self._was_delivered is None else self._was_delivered):
                return Progress()
            return Progress(asked=True, rebuilt=True)  # a delivery had written the file; it was removed
        try:
            file_format = msgspec.json.decode(text, type=_Format).format
            if file_format <= PROGRESS_FORMAT:
                return msgspec.json.decode(text, type=Progress)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = f"{self._progress.name} is damaged ({error}); MLflow is asked what it has of the run."
            return Progress(asked=True, rebuilt=True, error=reason)
        raise JournalError(
            f"{self._progress} has format {file_format}, and this mlwrap reads up to "
            f"{PROGRESS_FORMAT}. Upgrade mlwrap to deliver it; the folder was not touched."
        )

    def save_progress(self, progress: Progress) -> None:
        """Replace ``delivered.json`` in one step."""
        part = self._progress.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(progress))
        part.replace(self._progress)

    def reason(self) -> str:
        """Return why an unfinished delivery was given up; empty if none was."""
        try:
            return self._waits.read_text("utf-8", "replace")
        except OSError:
            return ""

    def note_reason(self, reason: str) -> None:
        """Store why a delivery was given up.

        The reason has its own file, since that delivery may still write ``delivered.json``.
        """
        with contextlib.suppress(OSError):
            descriptor = os.open(self._waits, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(reason)

    def writer_lease(self) -> filelock.BaseFileLock:
        """Return the lock that the training process holds; the kernel releases it when the process ends."""
        return filelock.FileLock(self._writer_lock, mode=0o600, thread_local=False)

    def is_open(self) -> bool:
        """Return whether a living process is writing the run."""
        return self._is_held(self.writer_lease())

    def is_being_delivered(self) -> bool:
        """Return whether this or another process is delivering the run."""
        return self._delivery_lock.exists() and self._is_held(self.delivery_lease())

    def _is_held(self, lease: filelock.BaseFileLock) -> bool:
        if not self.journal.exists() or not self.is_ours():
            return False
        try:
            lease.acquire(timeout=0)
        except filelock.Timeout:
            return True
        except OSError:  # delivered and removed in this very moment
            return False
        lease.release()
        return False

    def is_ours(self) -> bool:
        """Return whether :meth:`check` passes."""
        try:
            self.check()
        except (JournalError, OSError):
            return False
        return True

    def delivery_lease(self) -> filelock.BaseFileLock:
        """Return the lock against a second delivery; if its file exists, a delivery has started before."""
        self._was_delivered = self._delivery_lock.exists()
        return filelock.FileLock(self._delivery_lock, mode=0o600, thread_local=False)

    def reserve(self) -> None:
        """Reserve disk space, so that a run's end can be written and delivered on a full disk."""
        descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(RESERVED))
        finally:
            os.close(descriptor)

    def free_reserve(self) -> None:
        """Free the reserved disk space."""
        self._reserve.unlink(missing_ok=True)

    def size(self) -> int:
        """Return the size of all files in the folder, in bytes."""
        return sum(f.lstat().st_size for f in self.path.rglob("*") if f.is_file())

    def gone(self) -> bool:
        """Return whether the run was delivered and removed; remove an empty folder left by taking a lease."""
        if self.journal.exists():
            return False
        self.remove()
        return True

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def spool_error(root: Path, error: OSError) -> str:
    """Return the message for a spool that can't be written."""
    return (
        f"the spool {root} can't be written ({error.strerror or error}). "
        "Set MLWRAP_SPOOL to a folder that can be written, or mend this one."
    )


def lost_message(folder: Path) -> str:
    """Return the message for a run folder that was removed before it was delivered."""
    return f"its run folder {folder} was removed: what MLflow does not have of it is lost."
