"""Lease a run folder to one delivery at a time, from its first read until it is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import filelock

from mlwrap._journal.progress import Progress
from mlwrap._spool.delivered_runs import note_delivered
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import JournalError, Unreachable


@contextlib.contextmanager
def leased(folder: RunFolder, seconds: float) -> Iterator[None]:
    """Hold the delivery lease of a run folder in the block, so that no other delivery uses it.

    Args:
        folder: The run folder.
        seconds: The maximum time to wait for the lease.

    Raises:
        JournalError: The folder is gone, or belongs to another user; it was not touched.
        Unreachable: Another delivery still has the lease after ``seconds``.
    """
    folder.check()
    lease = folder.delivery_lease()
    try:
        lease.acquire(timeout=seconds)
    except filelock.Timeout:
        raise Unreachable(f"{folder.path} is being delivered by another process.") from None
    try:
        if folder.gone():
            raise JournalError(f"{folder.path} is gone: it was delivered, or removed.")
        yield
    finally:
        lease.release()


def remove_delivered(folder: RunFolder, progress: Progress) -> None:
    """Remove a delivered run folder, and note in the spool that it was delivered."""
    try:
        note_delivered(folder, progress)
    except OSError:  # the disk is full: removing the folder makes room
        folder.remove()
        with contextlib.suppress(OSError):
            note_delivered(folder, progress)
    folder.remove()


def note_error(folder: RunFolder, error: str) -> None:
    """Save why delivery failed, for ``mlwrap status``."""
    with contextlib.suppress(JournalError, OSError):
        progress = folder.progress()
        progress.error = error
        folder.save_progress(progress)
