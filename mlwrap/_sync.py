"""What waits in the spool: ``sync`` delivers it, ``waiting`` lists it, ``clean`` removes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from mlwrap._delivery import close_for_the_dead, deliver
from mlwrap._journal import RunFolder, header, run_folders, spool_root, sweep
from mlwrap.config import settings
from mlwrap.errors import DeliveryError, JournalError, SpoolError


class Synced(NamedTuple):
    """What became of one run folder.

    Attributes:
        folder: The folder; removed if all of it was delivered.
        run_id: MLflow's id of the run, where it has one.
        error: Why it could not be delivered, or ``None``.
    """

    folder: str
    run_id: str | None
    error: str | None


class Waiting(NamedTuple):
    """A run folder in the spool.

    Attributes:
        folder: The folder; its name is the run's key.
        name: The run's name, or ``"?"`` where its journal can't be read.
        state: ``open``: its training process lives; ``waiting``: to be delivered; ``delivered``: all of it
            is in MLflow.
        seconds: Its age.
        size: Bytes of all files in it.
        reason: Why it waits, as far as is known.
    """

    folder: RunFolder
    name: str
    state: Literal["open", "waiting", "delivered"]
    seconds: float
    size: int
    reason: str


def sync(spool: str | None = None) -> list[Synced]:
    """Deliver every run that waits in the spool, oldest first; runs still being written are left alone.

    A run whose process died without a word is KILLED.

    Args:
        spool: The spool; by default the one that runs would be written to now.

    Returns:
        One entry for each folder that was delivered or could not be.

    Raises:
        SpoolError: The spool can't be used.
    """
    return list(sync_each(deliverable(spool)))


def deliverable(spool: str | None = None) -> list[RunFolder]:
    """The run folders of the spool that nobody is writing, oldest first.

    Raises:
        SpoolError: The spool can't be used.
    """
    root = _root(spool)
    sweep(root)
    return [folder for folder in run_folders(root) if not folder.is_open()]


def sync_each(folders: list[RunFolder]) -> Iterator[Synced]:
    """Deliver run folders one after the other; one that somebody else has just delivered is passed over."""
    for folder in folders:
        path = str(folder.path)
        try:
            if close_for_the_dead(folder, 0):
                yield Synced(path, deliver(folder).run_id, None)
            else:
                header(folder.journal)  # says what is wrong with it, if anything is
        except (DeliveryError, JournalError, OSError) as error:
            if folder.journal.exists():
                yield Synced(path, None, str(error))


def waiting(spool: str | None = None) -> list[Waiting]:
    """The run folders of the spool, oldest first.

    Raises:
        SpoolError: The spool can't be used.
    """
    return [_described(folder) for folder in run_folders(_root(spool))]


def clean(keys: tuple[str, ...] = (), spool: str | None = None) -> list[Path]:
    """Remove the run folders that are delivered, and those that are named; nothing else.

    Args:
        keys: Keys of runs, as :func:`waiting` lists them, to be removed although they are not delivered.
        spool: The spool; by default the one that runs would be written to now.

    Returns:
        The folders that were removed.

    Raises:
        SpoolError: A key that there is not, or of a run that is still open; nothing is removed.
    """
    found = {entry.folder.key: entry for entry in waiting(spool)}
    for key in keys:
        if key not in found:
            raise SpoolError(f"{key!r} is no run in the spool {_root(spool)}. 'mlwrap status' lists them.")
        if found[key].state == "open":
            raise SpoolError(f"the run {key} is still being written. End its process first.")
    gone = [entry for key, entry in found.items() if key in keys or entry.state == "delivered"]
    for entry in gone:
        entry.folder.remove()
    return [entry.folder.path for entry in gone]


def _root(spool: str | None) -> Path:
    return spool_root(settings(spool=spool).spool)


def _described(folder: RunFolder) -> Waiting:
    state: Literal["open", "waiting", "delivered"] = "open" if folder.is_open() else "waiting"
    name, reason, began = "?", "", time.time()
    try:
        first, progress = header(folder.journal), folder.progress()
        name, began = first.name, first.time / 1000
        reason = progress.error or ("offline" if first.offline else "")
        if progress.ended and state == "waiting":
            state = "delivered"
    except (JournalError, OSError) as error:
        reason = str(error)
    return Waiting(folder, name, state, max(0.0, time.time() - began), folder.size(), reason)
