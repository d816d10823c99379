"""Deliver, list and remove the runs that wait in the spool: ``sync``, ``waiting`` and ``clean``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from mlwrap._delivery.backlog import BacklogResult, deliver_backlog
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
    """The result of delivering one run folder.

    Attributes:
        folder: The folder; removed if all of it was delivered.
        run_id: MLflow's id of the run; ``None`` if it has none.
        error: Why it could not be delivered, or ``None``.
        note: Additional information, or ``None``.
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
        name: The run's name, or ``"?"`` if its journal can't be read.
        state: ``open``: its training process is alive; ``waiting``: to be delivered; ``delivered``: all of it
            is in MLflow; ``foreign``: it belongs to another user.
        seconds: Its age.
        size: Total size of its files, in bytes.
        reason: Why it waits; ``""`` if that is unknown.
    """

    folder: RunFolder
    name: str
    state: Literal["open", "waiting", "delivered", "foreign"]
    seconds: float
    size: int
    reason: str


def sync(spool: str | None = None) -> list[Synced]:
    """Deliver every run that waits in the spool, oldest first; skip runs that are still being written.

    Each run is delivered independently: none waits for another one that can't be delivered. A run whose
    process died before its end gets the status KILLED.

    Args:
        spool: The spool folder; by default the one of the current settings.

    Returns:
        One entry for each folder that was delivered, or that could not be delivered.

    Raises:
        SpoolError: The spool can't be used.
    """
    return list(sync_each(deliverable(spool)))


def deliverable(spool: str | None = None) -> list[RunFolder]:
    """Return the run folders of the spool that are not being written, oldest first, then other users'.

    Raises:
        SpoolError: The spool can't be used.
    """
    own, foreign = _folders(spool)
    return [folder for folder in own if not folder.is_open()] + foreign


def sync_each(folders: list[RunFolder]) -> Iterator[Synced]:
    """Deliver run folders; yield the result of each as soon as it is known."""
    from mlwrap._delivery.deliver import deliver  # noqa: PLC0415 - loads MLflow

    for outcome in deliver_backlog(folders, deliver):
        yield _synced(outcome)


def _synced(outcome: BacklogResult) -> Synced:
    folder, progress, error, foreign = outcome
    if progress is None:
        return Synced(str(folder.path), None, error, foreign=foreign)
    return Synced(str(folder.path), progress.run_id, None, _REBUILT if progress.rebuilt else None)


def waiting(spool: str | None = None) -> list[Waiting]:
    """Return the run folders of the spool, oldest first, then those of other users.

    Raises:
        SpoolError: The spool can't be used.
    """
    own, foreign = _folders(spool)
    return [_describe_folder(folder) for folder in own + foreign]


def clean(keys: tuple[str, ...] = (), spool: str | None = None) -> list[Path]:
    """Remove the run folders that are delivered, and those that are named; nothing else.

    Args:
        keys: Keys of runs, as :func:`waiting` lists them, to remove although they are not delivered.
        spool: The spool folder; by default the one of the current settings.

    Returns:
        The folders that were removed.

    Raises:
        SpoolError: A key does not exist, or its run is still open or belongs to another user; nothing is
            removed.
    """
    entries = {entry.folder.key: entry for entry in waiting(spool)}
    for key in keys:
        if key not in entries:
            raise SpoolError(
                f"{key!r} is no run in the spool {_roots(spool)[0]}. 'mlwrap status' lists them."
            )
        if entries[key].state == "open":
            raise SpoolError(f"the run {key} is still being written. End its process first.")
        if entries[key].state == "foreign":
            raise SpoolError(f"the run {key}: {entries[key].reason}")
    removed = [entry for key, entry in entries.items() if key in keys or entry.state == "delivered"]
    for entry in removed:
        _abort_uploads(entry.folder)
        entry.folder.remove()
    return [entry.folder.path for entry in removed]


def _abort_uploads(folder: RunFolder) -> None:
    """Remove the parts of incomplete files, which only the run folder names, from their stores."""
    with contextlib.suppress(JournalError, OSError):
        progress = folder.progress()
        if progress.partial_uploads():
            from mlwrap._delivery.publishing.upload_in_parts import abort_uploads  # noqa: PLC0415 - MLflow

            abort_uploads(progress)


def _roots(spool: str | None) -> list[Path]:
    return spool_roots(settings(spool=spool).spool)


def _folders(spool: str | None) -> tuple[list[RunFolder], list[RunFolder]]:
    """Remove what dead processes left, and return this user's run folders and those of others."""
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
