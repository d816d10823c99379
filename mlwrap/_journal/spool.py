"""The spool and its run folders: make, find, lease, stage, remove.

A run folder is named for the run's key and holds::

    journal.jsonl      the records, written by the training process; what the machine does by the sender
    journal-end.jsonl  its end, where a limit of the size of files kept that out of journal.jsonl
    staged/            models and files that wait to be delivered
    delivered.json     how far delivery got, written by delivery alone
    reserve            room on the disk for the journal's last records
    writer.lock        held for as long as the training process lives
    delivery.lock      held by whoever is delivering
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import msgspec
import platformdirs

from mlwrap._journal.copies import copy_regular
from mlwrap._journal.progress import PROGRESS_FORMAT, Progress
from mlwrap.errors import JournalError, SpoolError, warn

RESERVED = 1 << 16  # bytes
_IN_VAIN = "workers"
_KEY = re.compile("[0-9a-f]{32}")


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
        self._writer_lock = path / "writer.lock"
        self._delivery_lock = path / "delivery.lock"

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
        which delivery remembers that.
        """
        self._staged.mkdir(mode=0o700, exist_ok=True)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
        folder = self._staged / f"{next(self._numbers)}-{safe}"
        folder.mkdir()
        return folder

    def stage_copy(
        self, source: Path, name: str | None = None, rename: Callable[[str], str] = str
    ) -> Path:
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

    def staged_path(self, relative: str) -> Path:
        return self.path / relative

    def relative(self, path: Path) -> str:
        """``path`` as the journal names it."""
        return path.relative_to(self.path).as_posix()

    def progress(self) -> Progress:
        """How far delivery got; a fresh start where nothing was delivered yet.

        Raises:
            JournalError: A newer mlwrap, or nobody who is known, wrote ``delivered.json``.
        """
        try:
            text = self._progress.read_bytes()
        except FileNotFoundError:
            return Progress()
        try:
            progress = msgspec.json.decode(text, type=Progress)
        except msgspec.DecodeError as error:
            raise JournalError(f"{self._progress} can't be read ({error}); nothing was delivered.") from None
        if progress.format > PROGRESS_FORMAT:
            raise JournalError(
                f"{self._progress} has format {progress.format}, and this mlwrap reads up to "
                f"{PROGRESS_FORMAT}. Upgrade mlwrap to deliver it; the folder was not touched."
            )
        return progress

    def save_progress(self, progress: Progress) -> None:
        """Replace ``delivered.json`` in one step."""
        part = self._progress.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(progress))
        part.replace(self._progress)

    def writer_lease(self) -> filelock.BaseFileLock:
        """The lock that the training process holds while it lives; the kernel takes it back at its death."""
        return filelock.FileLock(self._writer_lock, mode=0o600, thread_local=False)

    def is_open(self) -> bool:
        """Whether a process that lives is writing it."""
        if not self.journal.exists():
            return False
        lease = self.writer_lease()
        try:
            lease.acquire(timeout=0)
        except filelock.Timeout:
            return True
        except OSError:  # delivered and removed in this very moment
            return False
        lease.release()
        return False

    def delivery_lease(self) -> filelock.BaseFileLock:
        """The lock that keeps two deliveries of one folder apart."""
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


def run_folders(root: Path) -> Iterator[RunFolder]:
    """The run folders of a spool, in the order in which their runs started: a parent before its children."""
    found = [RunFolder(journal.parent) for journal in root.glob("*/journal.jsonl")]
    yield from sorted(found, key=RunFolder.started)


def sweep(root: Path) -> None:
    """Remove the folders of dead processes that nobody was told of: of runs not yet started, or in vain."""
    for path in root.glob(f"{_IN_VAIN}/*"):
        if not (folder := RunFolder(path)).is_open():
            folder.remove()
    for path in root.iterdir():
        folder = RunFolder(path)
        if not _KEY.fullmatch(path.name) or _begun(folder):
            continue
        try:
            with folder.writer_lease().acquire(timeout=0):
                if not _begun(folder):
                    folder.remove()
        except OSError:  # it is being made right now, or has been removed; TimeoutError is one, too
            continue


def _begun(folder: RunFolder) -> bool:
    """Whether the journal has a whole line, or there is anything staged that it could be about."""
    if (folder.path / "staged").exists():
        return True
    try:
        with folder.journal.open("rb") as file:
            return file.readline().endswith(b"\n")
    except FileNotFoundError:
        return False


def spool_root(configured: str | None = None) -> Path:
    """The folder that run folders live in; made if there is none.

    Args:
        configured: Where the user wants it, or ``None`` for ``mlwrap/spool`` in the user's state folder.
            Where that can't be written, as in a container without a home, a folder of the user's own under
            the system's temporary folder is taken, with one warning.

    Raises:
        SpoolError: The configured folder, or every default one, can't be made or written.
    """
    if configured is not None:
        root = Path(configured).expanduser().absolute()
        try:
            return _usable(root)
        except OSError as error:
            raise SpoolError(unusable(root, error)) from error
    default = platformdirs.user_state_path("mlwrap", appauthor=False) / "spool"
    try:
        return _usable(default)
    except OSError as error:
        return _next_best(default, error)


def vain_root(root: Path) -> Path:
    """Where, in a spool, run folders lie that nobody delivers: of workers that only take part in saving."""
    (root / _IN_VAIN).mkdir(mode=0o700, exist_ok=True)
    return root / _IN_VAIN


def _next_best(default: Path, error: OSError) -> Path:
    root = Path(tempfile.gettempdir()) / f"mlwrap-{os.getuid()}" / "spool"
    try:
        root.parent.mkdir(mode=0o700, exist_ok=True)
        if root.parent.lstat().st_uid != os.getuid():  # of the link, where it is one
            raise PermissionError(f"{root.parent} belongs to somebody else")
        _usable(root)
    except OSError as second:
        raise SpoolError(unusable(default, error) + " Neither can " + unusable(root, second)) from second
    warn(
        f"The spool {default} can't be written ({error.strerror or error}); using {root}, which may not "
        "outlive a restart. Set MLWRAP_SPOOL to a folder that can be written and that stays."
    )
    return root


_written: set[Path] = set()


def _usable(root: Path) -> Path:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root not in _written:
        with tempfile.TemporaryFile(dir=root):  # the one sure test of writing is to write
            _written.add(root)
    return root


def unusable(root: Path, error: OSError) -> str:
    """A sentence on a spool that can't be written."""
    return (
        f"the spool {root} can't be written ({error.strerror or error}). "
        "Set MLWRAP_SPOOL to a folder that can be written, or mend this one."
    )
