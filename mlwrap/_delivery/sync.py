"""What waits in the spool: ``sync`` delivers it, ``waiting`` lists it, ``clean`` removes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from mlwrap._delivery.backlog import Outcome, deliver_backlog
from mlwrap._journal.reader import header
from mlwrap._spool.ownership import ForeignFolder
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import foreign_folders, remove_leftovers, run_folders, spool_roots
from mlwrap.config import settings
from mlwrap.errors import JournalError, SpoolError

_REBUILT = (
    "its delivered.json, in which delivery notes its progress, was damaged or removed; it was made anew from "
    "what MLflow has."
)


class Synced(NamedTuple):
    """What became of one run folder.

    Attributes:
        folder: The folder; removed if all of it was delivered.
        run_id: MLflow's id of the run, where it has one.
        error: Why it could not be delivered, or ``None``.
        note: What else there is to know.
        foreign: Whether it belongs to another user; it was not touched.
    """

    folder: str
    run_id: str | None
    error: str | None
    note: str | None = None
    foreign: bool = False


class Waiting(NamedTuple):
    """A run folder in the spool.

    Attributes:
        folder: The folder; its name is the run's key.
        name: The run's name, or ``"?"`` where its journal can't be read.
        state: ``open``: its training process lives; ``waiting``: to be delivered; ``delivered``: all of it
            is in MLflow; ``foreign``: it belongs to another user.
        seconds: Its age.
        size: Bytes of all files in it.
        reason: Why it waits, as far as is known.
    """

    folder: RunFolder
    name: str
    state: Literal["open", "waiting", "delivered", "foreign"]
    seconds: float
    size: int
    reason: str


def sync(spool: str | None = None) -> list[Synced]:
    """Deliver every run that waits in the spool, oldest first; runs still being written are left alone.

    Each is delivered on its own: none waits for another one that can't be delivered. A run whose process died
    without a word is KILLED.

    Args:
        spool: The spool; by default the one that runs would be written to now.

    Returns:
        One entry for each folder that was delivered or could not be.

    Raises:
        SpoolError: The spool can't be used.
    """
    return list(sync_each(deliverable(spool)))


def deliverable(spool: str | None = None) -> list[RunFolder]:
    """The run folders of the spool that nobody is writing, oldest first, then those of other users.

    Raises:
        SpoolError: The spool can't be used.
    """
    own, foreign = _folders(spool)
    return [folder for folder in own if not folder.is_open()] + foreign


def sync_each(folders: list[RunFolder]) -> Iterator[Synced]:
    """Deliver run folders; what became of each, as soon as that is known."""
    from mlwrap._delivery.deliver import deliver  # noqa: PLC0415 - loads MLflow

    for outcome in deliver_backlog(folders, deliver):
        yield _synced(outcome)


def _synced(outcome: Outcome) -> Synced:
    folder, progress, error, foreign = outcome
    if progress is None:
        return Synced(str(folder.path), None, error, foreign=foreign)
    return Synced(str(folder.path), progress.run_id, None, _REBUILT if progress.rebuilt else None)


def waiting(spool: str | None = None) -> list[Waiting]:
    """The run folders of the spool, oldest first, then those of other users.

    Raises:
        SpoolError: The spool can't be used.
    """
    own, foreign = _folders(spool)
    return [_describe_folder(folder) for folder in own + foreign]


def clean(keys: tuple[str, ...] = (), spool: str | None = None) -> list[Path]:
    """Remove the run folders that are delivered, and those that are named; nothing else.

    Args:
        keys: Keys of runs, as :func:`waiting` lists them, to be removed although they are not delivered.
        spool: The spool; by default the one that runs would be written to now.

    Returns:
        The folders that were removed.

    Raises:
        SpoolError: A key that there is not, or of a run that is still open or another user's; nothing is
            removed.
    """
    found = {entry.folder.key: entry for entry in waiting(spool)}
    for key in keys:
        if key not in found:
            raise SpoolError(
                f"{key!r} is no run in the spool {_roots(spool)[0]}. 'mlwrap status' lists them."
            )
        if found[key].state == "open":
            raise SpoolError(f"the run {key} is still being written. End its process first.")
        if found[key].state == "foreign":
            raise SpoolError(f"the run {key}: {found[key].reason}")
    gone = [entry for key, entry in found.items() if key in keys or entry.state == "delivered"]
    for entry in gone:
        entry.folder.remove()
    return [entry.folder.path for entry in gone]


def _roots(spool: str | None) -> list[Path]:
    return spool_roots(settings(spool=spool).spool)


def _folders(spool: str | None) -> tuple[list[RunFolder], list[RunFolder]]:
    """This user's run folders and those of others, once what dead processes left is swept."""
    roots = _roots(spool)
    remove_leftovers(roots[0])
    own = [folder for root in roots for folder in run_folders(root)]
    return own, [folder for root in roots for folder in foreign_folders(root)]


def _describe_folder(folder: RunFolder) -> Waiting:
    state: Literal["open", "waiting", "delivered", "foreign"] = "waiting"
    name, reason, began, size = "?", "", time.time(), 0
    try:
        folder.check()
        size = folder.size()
        state = "open" if folder.is_open() else "waiting"
        first, progress = header(folder.journal), folder.progress()
        name, began = first.name, first.time / 1000
        reason = progress.error or folder.reason() or ("offline" if first.offline else "")
        if not reason and state == "waiting" and folder.is_being_delivered():
            reason = "is being delivered"
        if progress.ended and state == "waiting":
            state = "delivered"
    except ForeignFolder as error:
        state, reason = "foreign", str(error)
    except (JournalError, OSError) as error:
        reason = str(error)
    return Waiting(folder, name, state, max(0.0, time.time() - began), size, reason)
