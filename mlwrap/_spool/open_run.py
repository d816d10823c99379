"""The training process's hold on a run folder."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from pathlib import Path

from mlwrap._journal.records import RunEnded, RunStarted
from mlwrap._journal.writer import PatientWriter, second_file
from mlwrap._spool.descriptors import above_standard_descriptors
from mlwrap._spool.run_folder import RESERVED, RunFolder, spool_error
from mlwrap.errors import SpoolError

_MAX_TRIES = 3


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
            folder.reserve()
            self._writer = PatientWriter(folder.journal)
            self._writer.append(first)
            self.append = self._writer.write
        except BaseException:
            self._lease.release()
            raise

    def watch(self, kept: Callable[[OSError], object], look: Callable[[], object], seconds: float) -> None:
        """Have it said what becomes of the records.

        Args:
            kept: Called with the error of a record that is kept in memory.
            look: Called with the next record, and then with one after so many seconds.
            seconds: How many.
        """
        self._writer.kept = kept
        self._writer.look_every(seconds, look)

    def end(self, last: RunEnded) -> int:
        """Write the last record, on a full disk into the room that was kept for it, and close the journal.

        Where the journal takes no more, it goes on in a second file.

        Returns:
            How many records are lost, which the run is tagged with.

        Raises:
            OSError: The last record can't be written.
        """
        writer = self._writer
        try:
            if not writer.flush():
                self.folder.free_reserve()
                if not writer.flush(RESERVED // 2) and writer.stuck:  # the other half is for what comes last
                    with contextlib.suppress(OSError):  # then there is room for the end alone, or none
                        self._go_on()
                writer.drop()
            try:
                writer.finish(last)
            except OSError:
                self._go_on()
                writer.finish(last)
        finally:
            writer.close()
            self.folder.free_reserve()  # delivery has to write, too
        return writer.lost

    def _go_on(self) -> None:
        """Write to the journal's second file: the first one may be as large as this process may make it."""
        self._writer.go_on_in(second_file(self.folder.journal))
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._writer.flush(RESERVED // 2 if limit == resource.RLIM_INFINITY else limit - RESERVED // 2)

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
    for _ in range(_MAX_TRIES):  # once more, for a sweep may have taken the empty folder for a dead process's
        try:
            folder.path.mkdir(mode=0o700)
            with above_standard_descriptors():
                return OpenRun(folder, first)
        except BaseException as error:
            folder.remove()
            if not isinstance(error, OSError):
                raise
            failure = error
    raise SpoolError(spool_error(root, failure)) from failure
