"""Write and lease a run folder in the training process."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from pathlib import Path

from mlwrap._journal.records import RunEnded, RunStarted
from mlwrap._journal.writer import PatientWriter, second_file
from mlwrap._spool.run_folder import RESERVED, RunFolder, spool_error
from mlwrap._spool.standard_descriptors import above_standard_descriptors
from mlwrap.errors import SpoolError

_MAX_TRIES = 3


class OpenRun:
    """A run folder that is being written: its journal and its lease.

    Args:
        folder: An existing folder.
        first: The first record of the journal.

    Attributes:
        append: Writes one record. If the disk refuses it, keeps it in memory and returns the error.

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
        """Set the callbacks that observe the writing of records.

        Args:
            kept: Called with the error of a record that is kept in memory.
            look: Called at the next record, and then at the first record after every ``seconds``.
            seconds: Interval of ``look``, in seconds.
        """
        self._writer.kept = kept
        self._writer.look_every(seconds, look)

    def end(self, last: RunEnded) -> int:
        """Write the last record and close the journal; on a full disk use the reserved space.

        If the journal can't grow, it continues in a second file.

        Returns:
            Count of lost records, which is also a tag of the run.

        Raises:
            OSError: The last record can't be written.
        """
        writer = self._writer
        try:
            if not writer.flush():
                self.folder.free_reserve()
                if not writer.flush(RESERVED // 2) and writer.stuck:  # the other half is for the run's end
                    with contextlib.suppress(OSError):  # then only the end fits, or nothing
                        self._continue_in_second_file()
                writer.drop()
            try:
                writer.finish(last)
            except OSError:
                self._continue_in_second_file()
                writer.finish(last)
        finally:
            writer.close()
            self.folder.free_reserve()  # delivery needs disk space, too
        return writer.lost

    def _continue_in_second_file(self) -> None:
        """Continue in the journal's second file: the first may have reached the process's file size limit."""
        self._writer.go_on_in(second_file(self.folder.journal))
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._writer.flush(RESERVED // 2 if limit == resource.RLIM_INFINITY else limit - RESERVED // 2)

    def release(self) -> None:
        """Release the lease: from now on any process may deliver the folder."""
        self._writer.close()
        self._lease.release()


def open_run(root: Path, first: RunStarted) -> OpenRun:
    """Make the folder of a new run in the spool ``root`` and open its journal.

    Raises:
        SpoolError: The folder can't be made or written; nothing of it is left.
    """
    folder = RunFolder(root / first.key)
    failure = OSError()
    for _ in range(_MAX_TRIES):  # a cleanup may have removed the empty folder as a dead process's
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
