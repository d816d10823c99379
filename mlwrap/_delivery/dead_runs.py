"""Runs whose training process died without a word."""

from __future__ import annotations

import filelock

from mlwrap._journal.reader import read_records
from mlwrap._journal.records import RunEnded, Tags, now
from mlwrap._journal.tags import TagName
from mlwrap._journal.writer import Writer
from mlwrap._spool.run_folder import RunFolder


def mark_dead_run_killed(folder: RunFolder, patience: float) -> bool:
    """Write the end of a run whose writer died without a word; ``False`` if it lives after all, or is gone.

    Args:
        folder: The run folder.
        patience: Seconds that the writer's lease may take to be given back.

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
    except filelock.Timeout:  # it has a line to another sender
        return False
    try:
        if folder.gone():
            return False
        if not _ended(folder):
            why = "the training process died without a word (kill -9, out of memory, or a crash)"
            folder.free_reserve()  # it may be that the disk is full
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
    """Whether the journal has its end, which is delivered last."""
    progress = folder.progress()
    entries = read_records(folder.journal, progress.offset)
    return progress.ended or any(isinstance(entry.record, RunEnded) for entry in entries)
