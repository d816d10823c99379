"""The spool and its run folders: make, find, lease, stage, remove.

A run folder is named for the run's key and holds::

    journal.jsonl      the records, written by the training process alone
    staged/            models and files that wait to be delivered
    delivered.json     how far delivery got, written by delivery alone
    writer.lock        held for as long as the training process lives
    delivery.lock      held by whoever is delivering
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import msgspec
import platformdirs

from mlwrap._journal.records import AnyRecord, RunStarted
from mlwrap._journal.writer import Writer
from mlwrap.errors import JournalError, SpoolError, warn

PROGRESS_FORMAT = 1


class ModelProgress(msgspec.Struct, kw_only=True):
    """How far delivery got with one model.

    Attributes:
        name: Its name in MLflow.
        model_id: MLflow's id of it; empty while MLflow has been asked and its answer is not written down.
        status: ``PENDING``, ``READY`` or ``FAILED``, as MLflow has it.
        location: Where its files lie.
        uploaded: Files that are there already, of a model that is uploaded file by file.
    """

    name: str
    model_id: str = ""
    location: str = ""
    status: str = "PENDING"
    uploaded: set[str] = set()


class Progress(msgspec.Struct, kw_only=True):
    """How far delivery got with a run folder, and the ids that MLflow gave.

    Attributes:
        format: Number of this file's own format.
        offset: All records that end at or before this byte of the journal are in MLflow.
        asked: MLflow has been asked to make the run: before it is asked again, it is searched.
        run_id: MLflow's id of the run, once known.
        experiment_id: MLflow's id of its experiment, once known.
        models: Progress with each model, by its staged path.
        damaged: Lines of the journal that could not be read.
        refused: Values that MLflow would not take, and why.
        held: Staged models and artifacts that MLflow would not take, and why; they stay in the run folder.
        ended: All is delivered, the run's end too.
    """

    format: int = PROGRESS_FORMAT
    offset: int = 0
    asked: bool = False
    run_id: str | None = None
    experiment_id: str | None = None
    models: dict[str, ModelProgress] = {}
    damaged: int = 0
    refused: dict[str, str] = {}
    held: dict[str, str] = {}
    ended: bool = False


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
        self._progress = path / "delivered.json"
        self._writer_lock = path / "writer.lock"
        self._delivery_lock = path / "delivery.lock"

    def stage(self, name: str) -> Path:
        """Make a new, empty folder to save something called ``name`` in."""
        self._staged.mkdir(mode=0o700, exist_ok=True)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
        for number in range(1, 1_000_000):
            folder = self._staged / f"{number}-{safe}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
        raise SpoolError(f"{self._staged} holds a million staged folders; no more can be made.")

    def stage_copy(self, source: Path) -> Path:
        """Copy a file or a folder as it is now; what is neither, or a link in a folder, is refused.

        Raises:
            SpoolError: The path at fault is named; nothing is left behind.
        """
        within = source.rglob("*") if source.is_dir() else ()
        for path in (source.resolve(), *within):
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise SpoolError(
                    f"{path} is a link, a pipe, a device or is not there; "
                    "expected regular files and folders. Log the file itself."
                )
        target = self.stage(source.name) / source.name
        try:
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)
        except BaseException:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise
        return target

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

    def delivery_lease(self) -> filelock.BaseFileLock:
        """The lock that keeps two deliveries of one folder apart."""
        return filelock.FileLock(self._delivery_lock, mode=0o600, thread_local=False)

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


class OpenRun:
    """The training process's hold on a run folder: its journal and the lease on it.

    Args:
        folder: A folder that exists.
        first: The record that opens the journal.

    Raises:
        OSError: The journal can't be written.
    """

    def __init__(self, folder: RunFolder, first: RunStarted) -> None:
        self.folder = folder
        self._lease = folder.writer_lease()
        self._lease.acquire(timeout=0)
        self._writer = Writer(folder.journal)
        self._writer.append(first)

    def append(self, record: AnyRecord) -> None:
        """Write one record; see :meth:`Writer.append`."""
        self._writer.append(record)

    def close(self) -> None:
        """Close the journal; the lease is held until :meth:`release`."""
        self._writer.close()

    def release(self) -> None:
        """Give the lease back: from now on the folder is anybody's to deliver."""
        self._writer.close()
        self._lease.release()


def open_run(root: Path, first: RunStarted) -> OpenRun:
    """Make the folder of a new run in the spool ``root`` and open its journal.

    Raises:
        SpoolError: It can't be made or written.
    """
    folder = RunFolder(root / first.key)
    try:
        folder.path.mkdir(mode=0o700)
        return OpenRun(folder, first)
    except OSError as error:
        raise SpoolError(_unusable(root, error)) from error


def run_folders(root: Path) -> Iterator[RunFolder]:
    """The run folders of a spool, oldest journal first."""
    found = [RunFolder(journal.parent) for journal in root.glob("*/journal.jsonl")]
    yield from sorted(found, key=lambda folder: folder.journal.stat().st_mtime_ns)


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
            raise SpoolError(_unusable(root, error)) from error
    default = platformdirs.user_state_path("mlwrap", appauthor=False) / "spool"
    try:
        return _usable(default)
    except OSError as error:
        return _next_best(default, error)


def _next_best(default: Path, error: OSError) -> Path:
    root = Path(tempfile.gettempdir()) / f"mlwrap-{os.getuid()}" / "spool"
    try:
        root.parent.mkdir(mode=0o700, exist_ok=True)
        if root.parent.lstat().st_uid != os.getuid():  # of the link, where it is one
            raise PermissionError(f"{root.parent} belongs to somebody else")
        _usable(root)
    except OSError as second:
        raise SpoolError(_unusable(default, error) + " Neither can " + _unusable(root, second)) from second
    message = (
        f"The spool {default} can't be written ({error.strerror or error}); using {root}, which may not "
        "outlive a restart. Set MLWRAP_SPOOL to a folder that can be written and that stays."
    )
    warn(message)
    return root


def _usable(root: Path) -> Path:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root):  # the one sure test of writing is to write
        return root


def _unusable(root: Path, error: OSError) -> str:
    return (
        f"the spool {root} can't be written ({error.strerror or error}). "
        "Set MLWRAP_SPOOL to a folder that can be written, or mend this one."
    )
