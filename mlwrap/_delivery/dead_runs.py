"""End the runs whose training process died before it could."""

from __future__ import annotations

import filelock

from mlwrap._journal.reader import read_records
from mlwrap._journal.records import RunEnded, Tags, now
from mlwrap._journal.tags import TagName
from mlwrap._journal.writer import Writer
from mlwrap._spool.run_folder import RunFolder


def mark_dead_run_killed(folder: RunFolder, patience: float) -> bool:
    """Mark a run as killed if its writer died; return ``False`` if the writer lives or the folder is gone.

    Args:
        folder: The run folder.
        patience: Seconds to wait until the writer's lease is released.

    Raises:
        JournalError: The folder can't be read, or is not this user's own.
        OSError: The end can't be written.
    """
    if not folder.path.exists():
        return False
    folder.check()
    lease = folder.writer_lease()
    try:
        lease.acquire(timeout=patience)
    except filelock.Timeout:  # it has a connection to another sender
        return False
    try:
        if folder.gone():
            return False
        if not _ended(folder):
            why = "the training process died without a word (kill -9, out of memory, or a crash)"
            folder.free_reserve()  # the disk may be full
            writer = Writer(folder.journal)
            try:
                writer.append(Tags(values={TagName.ERROR_MESSAGE: why}))
                writer.append(RunEnded(status="KILLED", time=now(), error=why))
            finally:
                writer.close()
    finally:
        lease.release()
    return True


def _ended(folder: RunFolder) -> bool:
    """Return whether the journal has the run's end; that record is delivered last."""
    progress = folder.progress()
    entries = read_records(folder.journal, progress.offset)
    return progress.ended or any(isinstance(entry.record, RunEnded) for entry in entries)
