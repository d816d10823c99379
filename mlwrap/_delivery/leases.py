"""Whoever delivers a run folder has it alone, from the first look into it until it is removed."""

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
    """Keep other deliveries of a run folder away.

    Raises:
        JournalError: It is gone, or not this user's own; it was not touched.
        Unreachable: Another delivery is still at it after so many seconds.
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
    """Remove a run folder that is delivered, which the spool remembers."""
    try:
        note_delivered(folder, progress)
    except OSError:  # the disk is full: what is removed makes room
        folder.remove()
        with contextlib.suppress(OSError):
            note_delivered(folder, progress)
    folder.remove()


def note_error(folder: RunFolder, error: str) -> None:
    """Keep what stood in the way, for ``mlwrap status``."""
    with contextlib.suppress(JournalError, OSError):
        progress = folder.progress()
        progress.error = error
        folder.save_progress(progress)
