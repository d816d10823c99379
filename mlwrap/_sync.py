"""``sync``: deliver the runs that wait."""

from __future__ import annotations

from typing import NamedTuple

import filelock

from mlwrap._delivery import close_for_the_dead, deliver
from mlwrap._journal import RunFolder, run_folders, spool_root, sweep
from mlwrap.config import settings
from mlwrap.errors import DeliveryError, JournalError


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
    root = spool_root(settings(spool=spool).spool)
    sweep(root)
    return [_deliver(folder) for folder in run_folders(root) if not _is_open(folder)]


def _is_open(folder: RunFolder) -> bool:
    lease = folder.writer_lease()
    try:
        lease.acquire(timeout=0)
    except filelock.Timeout:
        return True
    lease.release()
    return False


def _deliver(folder: RunFolder) -> Synced:
    close_for_the_dead(folder, 0)
    try:
        return Synced(str(folder.path), deliver(folder).run_id, None)
    except (DeliveryError, JournalError, OSError) as error:
        return Synced(str(folder.path), None, str(error))
