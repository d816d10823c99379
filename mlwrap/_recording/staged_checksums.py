"""Compute lengths and checksums of staged files; for large files in the background."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from mlwrap._journal.records import Checksums, StagedFile, Zip
from mlwrap._recording.background_work import BackgroundWork
from mlwrap._recording.run_log import RunLog
from mlwrap._spool.staged_files import LARGE_BYTES, staged_files, total_size, with_checksums


class StageChecksums:
    """Computes the checksums of one run's staged files.

    Args:
        run: The run.
    """

    def __init__(self, run: RunLog) -> None:
        self._run = run
        self._background = BackgroundWork()

    @property
    def busy(self) -> bool:
        """Whether checksums are still being computed."""
        return self._background.busy

    def files(self, stage: Path, zips: Mapping[str, Zip] = {}) -> dict[str, StagedFile]:
        """Return the files of a stage for its record; large ones without checksums.

        Args:
            stage: The folder.
            zips: The zip files that delivery makes from folders in the stage.

        Raises:
            OSError: A file can't be read.
        """
        files = staged_files(stage, zips)
        return with_checksums(stage, files) if total_size(files.values()) <= LARGE_BYTES else files

    def follow(self, stage: Path, staged: str, files: Mapping[str, StagedFile]) -> None:
        """Compute missing checksums in the background and record them later; reading 400 MB takes 0.2 s.

        Args:
            stage: The folder.
            staged: The folder's name in its record.
            files: The files, as :meth:`files` returned them.
        """
        if all(file.crc is not None for file in files.values()):
            return

        def work() -> None:
            # It was delivered and removed; otherwise delivery reports the error.
            with contextlib.suppress(OSError):
                self._run.append(Checksums(staged=staged, files=with_checksums(stage, files)))

        try:
            self._background.do(staged, work, replaced=lambda: None)
        except RuntimeError:  # no more threads are available, or the interpreter is about to end
            work()

    def wait(self) -> None:
        """Wait until all checksums are recorded."""
        self._background.wait()
