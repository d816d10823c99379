"""A run's folder: check, lease, stage, remove.

A run folder is named for the run's key and holds::

    journal.jsonl      the records, written by the training process; what the machine does by the sender
    staged/            models and files that wait to be delivered
    delivered.json     how far delivery got, written by delivery alone
    waits              why a delivery was given up that had not come to an end
    reserve            room on the disk for the journal's last records
    writer.lock        held for as long as the training process lives
    delivery.lock      held by whoever is delivering
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
    """One run's folder, as both halves see it.

    Args:
        path: The folder; it is not touched here.
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
        self._was_delivered: bool | None = None  # before the newest lease; None: this object gave none yet

    def check(self) -> None:
        """Make sure that the folder is there, and all in it this user's own; before anything is done to it.

        Raises:
            ForeignFolder: It belongs to another user.
            JournalError: It is gone, or another user could have changed it, or something in it is a link.
        """
        check_run_folder(self.path)

    def exists(self) -> bool:
        """Whether its journal is there; where the system can't tell, it is."""
        try:
            self.journal.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def began(self) -> int:
        """When its run started: nothing is ever written to the lock file that was made then (ns)."""
        try:
            return self._writer_lock.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def note_start(self) -> None:
        """Note when the run starts, more exactly than by the file system's clock, which ticks slowly."""
        with contextlib.suppress(OSError):
            os.utime(self._writer_lock, ns=(time.time_ns(), self.began()))

    def started(self) -> tuple[int, int]:
        """What sorts run folders as their runs started, also within one tick of the file system's clock."""
        try:
            lock = self._writer_lock.stat()
        except FileNotFoundError:
            return 0, 0
        return lock.st_mtime_ns, lock.st_atime_ns

    def stage(self, name: str) -> Path:
        """Make a new, empty folder to save something called ``name`` in.

        Its number is never given again: the folder goes when it is delivered, and its path is the key under
        which delivery remembers that. Its mode is the umask's: it may become a model's folder in a store that
        others read, and lies in a folder that nobody else enters.
        """
        self._staged.mkdir(mode=0o700, exist_ok=True)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
        folder = self._staged / f"{next(self._numbers)}-{safe}"
        folder.mkdir()
        return folder

    def stage_copy(self, source: Path, name: str | None = None, rename: Callable[[str], str] = str) -> Path:
        """Copy a file or a folder as it is now; what is neither, or a link in a folder, is refused.

        Args:
            source: What is copied.
            name: What the copy is called; by default as ``source`` is.
            rename: Gives the name of the copy of each file and folder below ``source``.

        Raises:
            SpoolError: The path at fault is named; nothing is left behind.
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
        """``path`` as the journal names it."""
        return path.relative_to(self.path).as_posix()

    def staged_path(self, relative: str) -> Path:
        """The path of something staged, which the journal names ``relative``; nothing may lie there.

        Raises:
            JournalError: It leads out of ``staged/``; or a link, a device, a hard link or something of
                another user stands on the way or anywhere below.
        """
        return check_own_stage(self.path, relative)

    def progress(self) -> Progress:
        """How far delivery got. Where that is not known, MLflow has to be asked for the run: ``asked``.

        Raises:
            JournalError: A newer mlwrap wrote ``delivered.json``.
        """
        try:
            text = self._progress.read_bytes()
        except FileNotFoundError:
            if not (self._delivery_lock.exists() if self._was_delivered is None else self._was_delivered):
                return Progress()
            return Progress(asked=True, rebuilt=True)  # a delivery wrote it, and it was removed since
        try:
            written = msgspec.json.decode(text, type=_Format).format
            if written <= PROGRESS_FORMAT:
                return msgspec.json.decode(text, type=Progress)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = f"{self._progress.name} is damaged ({error}); MLflow is asked what it has of the run."
            return Progress(asked=True, rebuilt=True, error=why)
        raise JournalError(
            f"{self._progress} has format {written}, and this mlwrap reads up to "
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
        """Why a delivery was given up that had not come to an end; empty if none was."""
        try:
            return self._waits.read_text("utf-8", "replace")
        except OSError:
            return ""

    def note_reason(self, reason: str) -> None:
        """Keep why a delivery was given up; whoever was at it may still write ``delivered.json``."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._waits, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(reason)

    def writer_lease(self) -> filelock.BaseFileLock:
        """The lock that the training process holds while it lives; the kernel takes it back at its death."""
        return filelock.FileLock(self._writer_lock, mode=0o600, thread_local=False)

    def is_open(self) -> bool:
        """Whether a process that lives is writing it."""
        return self._is_held(self.writer_lease())

    def is_being_delivered(self) -> bool:
        """Whether a delivery is at it, here or in another process."""
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
        """Whether :meth:`check` finds nothing wrong with it."""
        try:
            self.check()
        except (JournalError, OSError):
            return False
        return True

    def delivery_lease(self) -> filelock.BaseFileLock:
        """The lock that keeps two deliveries of one folder apart; where its file is, one has been at it."""
        self._was_delivered = self._delivery_lock.exists()
        return filelock.FileLock(self._delivery_lock, mode=0o600, thread_local=False)

    def reserve(self) -> None:
        """Take some room on the disk, so that a run's end can be written, and delivered, when it is full."""
        descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(RESERVED))
        finally:
            os.close(descriptor)

    def free_reserve(self) -> None:
        """Give the reserved room back."""
        self._reserve.unlink(missing_ok=True)

    def size(self) -> int:
        """Bytes of all files in it."""
        return sum(f.lstat().st_size for f in self.path.rglob("*") if f.is_file())

    def gone(self) -> bool:
        """Whether it was delivered and removed; taking a lease made an empty folder, which goes too."""
        if self.journal.exists():
            return False
        self.remove()
        return True

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def spool_error(root: Path, error: OSError) -> str:
    """A sentence on a spool that can't be written."""
    return (
        f"the spool {root} can't be written ({error.strerror or error}). "
        "Set MLWRAP_SPOOL to a folder that can be written, or mend this one."
    )
