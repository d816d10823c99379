"""What is staged is told by length and checksum: of what is large, while the training goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from mlwrap._journal.records import Checksums, StagedFile, Zip
from mlwrap._recording.background_save import BackgroundSaver
from mlwrap._recording.run_log import RunLog
from mlwrap._spool.staged_files import LARGE_BYTES, staged_files, total_size, with_checksums


class StageChecksums:
    """Looks at the stages of one run.

    Args:
        run: The run.
    """

    def __init__(self, run: RunLog) -> None:
        self._run = run
        self._background = BackgroundSaver()

    @property
    def busy(self) -> bool:
        """Whether there is anything that :meth:`wait` would wait for."""
        return self._background.busy

    def files(self, stage: Path, zips: Mapping[str, Zip] = {}) -> dict[str, StagedFile]:
        """The files of a stage, for its record; where they are large without their checksums.

        Args:
            stage: The folder.
            zips: The zip files that delivery is to make of folders in it.

        Raises:
            OSError: A file can't be read.
        """
        files = staged_files(stage, zips)
        return with_checksums(stage, files) if total_size(files.values()) <= LARGE_BYTES else files

    def follow(self, stage: Path, staged: str, files: Mapping[str, StagedFile]) -> None:
        """Have the checksums that are missing follow the record: to read 400 MB takes 0.2 s.

        Args:
            stage: The folder.
            staged: What its record calls it.
            files: What :meth:`files` gave.
        """
        if all(file.crc is not None for file in files.values()):
            return

        def work() -> None:
            with contextlib.suppress(OSError):  # it has been delivered, and is gone; or delivery will say
                self._run.append(Checksums(staged=staged, files=with_checksums(stage, files)))

        try:
            self._background.do(staged, work, replaced=lambda: None)
        except RuntimeError:  # the system has no thread more, or the interpreter is about to end
            work()

    def wait(self) -> None:
        """Wait until all checksums are written down."""
        self._background.wait()
