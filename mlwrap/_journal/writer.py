"""Append records to a journal, one ``os.write`` each."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from mlwrap._journal.records import AnyRecord

_encoder = msgspec.json.Encoder()


class Writer:
    """The one writer of a journal.

    What :meth:`append` has returned for is with the operating system: it survives the death of this
    process, ``kill -9`` too. ``O_APPEND`` keeps the records of threads apart without a lock. A child made by
    ``fork`` inherits the writer and is inert: the run is its parent's.

    Args:
        path: The journal, made here with mode 0600 if there is none.

    Raises:
        OSError: It can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._process = os.getpid()
        # A writer that died in the middle of a record left a piece without its end.
        size = os.fstat(self._descriptor).st_size
        self._torn = size > 0 and _last_byte(path) != b"\n"

    def append(self, record: AnyRecord) -> None:
        """Write one record.

        Raises:
            OSError: It could not be written whole, as on a full disk. The piece that was written is ended
                as a line of its own before the next record, so that only this record is lost.
        """
        if os.getpid() != self._process:
            return
        line = _encoder.encode(record) + b"\n"
        if self._torn:
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        while written < len(line):
            self._torn = True  # should the next write raise, a piece stands without its end
            written += os.write(self._descriptor, line[written:])
        self._torn = False

    def close(self) -> None:
        """Close the journal; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
