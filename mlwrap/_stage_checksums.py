"""What is staged is told by length and checksum: of what is large, while the training goes on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from mlwrap._journal import LARGE, Checksums, StagedFile, Zip, staged_files, total_size, with_checksums


class StageChecksums:
    """Looks at the stages of one run.

    Args:
        append: Writes a record down.
    """

    def __init__(self, append: Callable[[Checksums], None]) -> None:
        self._append = append
        self._pool: ThreadPoolExecutor | None = None
        self._pending: set[Future[None]] = set()
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether there is anything that :meth:`wait` would wait for."""
        return bool(self._pending)

    def files(self, stage: Path, zips: Mapping[str, Zip] = {}) -> dict[str, StagedFile]:
        """The files of a stage, for its record; where they are large without their checksums.

        Args:
            stage: The folder.
            zips: The zip files that delivery is to make of folders in it.

        Raises:
            OSError: A file can't be read.
        """
        files = staged_files(stage, zips)
        return with_checksums(stage, files) if total_size(files.values()) <= LARGE else files

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
                self._append(Checksums(staged=staged, files=with_checksums(stage, files)))

        try:
            with self._lock:
                self._pool = self._pool or ThreadPoolExecutor(1, "mlwrap-checksums")
                pending = self._pool.submit(work)
        except RuntimeError:  # the system has no thread more, or the interpreter is about to end
            work()
        else:
            self._pending.add(pending)
            pending.add_done_callback(self._pending.discard)

    def wait(self) -> None:
        """Wait until all checksums are written down."""
        wait(list(self._pending))
