"""The training process's hold on a run folder."""

from __future__ import annotations

from pathlib import Path

from mlwrap._journal.progress import Progress
from mlwrap._journal.records import RunEnded, RunStarted, Tags
from mlwrap._journal.run_folder import RESERVED, RunFolder, unusable
from mlwrap._journal.writer import PatientWriter
from mlwrap.errors import SpoolError

LOST = "mlwrap.lost_records"
_TRIES = 3


class OpenRun:
    """A run folder that is being written: its journal and the lease on it.

    Args:
        folder: A folder that exists.
        first: The record that opens the journal.

    Attributes:
        append: Writes one record. One that the disk does not take waits in memory, and its error is returned.

    Raises:
        OSError: The journal can't be written.
    """

    def __init__(self, folder: RunFolder, first: RunStarted) -> None:
        self.folder = folder
        self._lease = folder.writer_lease()
        self._lease.acquire(timeout=0)
        try:
            folder.note_start()
            folder.save_progress(Progress())  # so that a run without one is known to have lost it
            folder.reserve()
            self._writer = PatientWriter(folder.journal)
            self._writer.append(first)
            self.append = self._writer.write
        except BaseException:
            self._lease.release()
            raise

    def end(self, last: RunEnded) -> int:
        """Write the last record, on a full disk into the room that was kept for it, and close the journal.

        Returns:
            How many records are lost, which the run is tagged with.

        Raises:
            OSError: The last record can't be written.
        """
        writer = self._writer
        try:
            if not writer.flush():
                self.folder.free_reserve()
                writer.flush(RESERVED // 2)  # the other half is for what comes last
                writer.drop()
            if writer.lost:
                writer.append(Tags(values={LOST: str(writer.lost)}))
            writer.append(last)
        finally:
            writer.close()
            self.folder.free_reserve()  # delivery has to write, too
        return writer.lost

    def release(self) -> None:
        """Give the lease back: from now on the folder is anybody's to deliver."""
        self._writer.close()
        self._lease.release()


def open_run(root: Path, first: RunStarted) -> OpenRun:
    """Make the folder of a new run in the spool ``root`` and open its journal.

    Raises:
        SpoolError: It can't be made or written; nothing of it is left.
    """
    folder = RunFolder(root / first.key)
    failure = OSError()
    for _ in range(_TRIES):  # once more, for a sweep may have taken the empty folder for a dead process's
        try:
            folder.path.mkdir(mode=0o700)
            return OpenRun(folder, first)
        except BaseException as error:
            folder.remove()
            if not isinstance(error, OSError):
                raise
            failure = error
    raise SpoolError(unusable(root, failure)) from failure
