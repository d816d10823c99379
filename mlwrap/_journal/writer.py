"""Append records to a journal, one ``os.write`` each."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from mlwrap._journal.records import AnyRecord

KEPT = 10_000  # records that wait in memory while the disk takes none: about a megabyte of metrics
_TRIES = 3
_METRICS = b'{"type":"metrics"'


def _plain(value: Any) -> Any:
    """The text or number that something is a kind of its own of: a ``str`` subclass, numpy's integers."""
    if isinstance(value, str):
        return str.__str__(value)
    return value.__index__() if hasattr(value, "__index__") else float(value)


_process = os.getpid()  # known, for to ask costs a record a tenth of its time


def _forked() -> None:
    global _process  # noqa: PLW0603 - as a process has one id
    _process = os.getpid()


os.register_at_fork(after_in_child=_forked)

_encoder = msgspec.json.Encoder(enc_hook=_plain)
_encode_lines = _encoder.encode_lines


def encoded(record: AnyRecord) -> bytes:
    """A record as a line of the journal; what is no UTF-8 in its texts is written as an escape."""
    try:
        return _encoder.encode(record) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(_writable(msgspec.to_builtins(record, enc_hook=_plain))) + b"\n"


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return [_writable(item) for item in value] if isinstance(value, list | tuple) else value


class Writer:
    """Writes a journal's records.

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
        self._process = _process

    def append(self, record: AnyRecord) -> None:
        """Write one record.

        Raises:
            OSError: It could not be written whole. A piece of it may stand in the journal, which costs
                nothing but itself: the reader finds the record that comes after it.
        """
        if _process == self._process:
            self._write(encoded(record))

    def close(self) -> None:
        """Close the journal; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, line: bytes) -> None:
        # What was cut short is written again as a whole: to write only the rest would tear the record in
        # two where another thread's came in between.
        for _ in range(_TRIES):
            if os.write(self._descriptor, line) == len(line):
                return
        raise OSError(errno.EIO, "only a part of the record was written")


class PatientWriter(Writer):
    """A writer for the training process: what the disk does not take waits in memory.

    Once the disk takes records again, those that waited are written first, in their order. No more than
    ``KEPT`` wait; those beyond are counted.

    Attributes:
        lost: Records that were dropped.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.lost = 0
        self._waiting: deque[bytes] = deque()
        # Taken only while records wait; and again by a signal's handler that comes in the middle.
        self._lock = threading.RLock()

    def write(self, record: AnyRecord) -> OSError | None:
        """Write one record, or keep it.

        Returns:
            Why it was kept, or ``None`` if it was written.
        """
        if _process != self._process:
            return None
        try:
            line = _encode_lines([record])
        except UnicodeEncodeError:
            line = encoded(record)
        if self._waiting:  # those come first
            return self._keep(line, None)
        try:
            if os.write(self._descriptor, line) != len(line):
                self._write(line)
        except OSError as error:
            return self._keep(line, error)
        return None

    def flush(self, room: int | None = None) -> bool:
        """Write what waits, as far as the disk takes it.

        Args:
            room: Bytes to write at most, where not all will fit: metrics come last then, for each of
                the others stands for more than a number.

        Returns:
            Whether nothing waits any more.
        """
        with self._lock:
            if room is not None:
                self._waiting = deque(sorted(self._waiting, key=lambda line: line.startswith(_METRICS)))
            try:
                self._drain(room)
            except OSError:
                return False
            return not self._waiting

    def drop(self) -> None:
        """Give up what waits, and count it."""
        with self._lock:
            self.lost += len(self._waiting)
            self._waiting.clear()

    def _keep(self, line: bytes, error: OSError | None) -> OSError | None:
        with self._lock:
            if len(self._waiting) < KEPT:
                self._waiting.append(line)
            else:
                self.lost += 1
            try:
                if error is None:
                    self._drain(None)
            except OSError as again:
                error = again
        return error

    def _drain(self, room: int | None) -> None:
        while self._waiting and (room is None or room >= len(self._waiting[0])):
            line = self._waiting[0]
            self._write(line)
            # It leaves the queue only now: whatever interrupts this, it is not lost. It may be gone already,
            # if a signal's handler wrote what waited.
            if self._waiting and self._waiting[0] is line:
                self._waiting.popleft()
            if room is not None:
                room -= len(line)
