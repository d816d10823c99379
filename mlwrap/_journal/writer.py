"""Append records to a journal, one ``os.write`` each.

A line of format 2 is ``{"crc":3585804873,"n":12,"record":{...}}``: the record's number, and the CRC-32 of
the record's bytes and the number. A number shifted right by 32 bits names the writer, which counts in the
other bits: 0 is the training, whose records are all accounted for at the run's end.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from zlib import crc32

import msgspec

from mlwrap._journal.record_encoding import encode, encode_record
from mlwrap._journal.records import FORMAT, AnyRecord, RunEnded, RunStarted, Tags

LOST = "mlwrap.lost_records"
"""Tag of a run: how many of its records the disk took no more."""
MAX_WAITING_RECORDS = (
    10_000  # records that wait in memory while the disk takes none: about a megabyte of metrics
)
_MAX_TRIES = 3
_METRICS = b'"record":{"type":"metrics"'
_PREFIX = 90  # bytes of a line within which its record's type stands


_join = b"".join


def _encode_line(body: bytes, number: int) -> bytes:
    # msgspec writes numbers, and join() puts the pieces together, faster than any formatting of bytes does.
    # crc32() begins with the number's lower 32 bits; no other single digit gives the same ones.
    crc = encode(crc32(body, number))
    return _join((b'{"crc":', crc, b',"n":', encode(number), b',"record":', body, b"}\n"))


def second_file(journal: Path) -> Path:
    """Where a journal goes on that takes no more, as under a limit of the size of files."""
    return journal.with_name("journal-end.jsonl")


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _forked() -> None:
    """In a child made by ``fork``: the run is its parent's."""
    for writer in list(_writers):
        writer.mute()


os.register_at_fork(after_in_child=_forked)


class Writer:
    """Writes a journal's records.

    What :meth:`append` has returned for is with the operating system: it survives the death of this
    process, ``kill -9`` too. ``O_APPEND`` keeps the records of threads apart without a lock. A child made by
    ``fork`` inherits the writer and is inert: the run is its parent's.

    Args:
        path: The journal, made here with mode 0600 if there is none.
        first_number: The number of its first record; by default one that no other writer comes to.

    Raises:
        OSError: It can't be opened.
    """

    def __init__(self, path: Path, first_number: int | None = None) -> None:
        self._descriptor = _open_for_appending(path)
        if first_number is None:
            first_number = 1 + secrets.randbelow(2**21 - 1) << 32  # any reader of JSON takes 53 bits
        # Threads share these, for next() of a count is one step. Whoever is between the two has taken a
        # number and not written its record yet.
        self._numbers = itertools.count(first_number)
        self._written = itertools.count()
        self._looks = 0  # at the second, each of which adds one
        _writers.add(self)

    def append(self, record: AnyRecord) -> None:
        """Write one record; twice, if the whole run depends on it: its start and its end.

        Raises:
            OSError: It could not be written whole. A piece of it may stand in the journal, which costs
                nothing but itself: the reader finds the record that comes after it.
        """
        if isinstance(record, RunStarted):
            record = msgspec.structs.replace(record, format=FORMAT)
        body = encode_record(record)
        copies = 2 if isinstance(record, RunStarted | RunEnded) else 1
        self._write(_join([_encode_line(body, next(self._numbers)) for _ in range(copies)]))
        for _ in range(copies):
            next(self._written)

    def close(self) -> None:
        """Close the journal; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def mute(self) -> None:
        """Write to nowhere from now on."""
        if self._descriptor >= 0:
            try:
                nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            except OSError:
                self.close()
                return
            os.dup2(nowhere, self._descriptor, inheritable=False)
            os.close(nowhere)

    def _write(self, line: bytes) -> None:
        # What was cut short is written again as a whole: to write only the rest would tear the record in
        # two where another thread's came in between.
        for _ in range(_MAX_TRIES):
            if os.write(self._descriptor, line) == len(line):
                return
        raise OSError(errno.EIO, "only a part of the record was written")


def _open_for_appending(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class PatientWriter(Writer):
    """The training process's writer: what the disk does not take waits in memory.

    Once the disk takes records again, those that waited are written first, in their order. No more than
    ``KEPT`` wait; those beyond are counted.

    Attributes:
        lost: Records that were dropped.
        stuck: Whether the last flush ended with an error.
        kept: Called with the error of a record that waits in memory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, first_number=0)
        self.lost = 0
        self.kept: Callable[[OSError], object] = lambda _: None
        self._look: Callable[[], object] = lambda: None
        self._look_seconds = self._next_look = math.inf
        self.stuck = False
        self._waiting: deque[bytes] = deque()
        # Taken only while records wait; and again by a signal's handler that comes in the middle.
        self._lock = threading.RLock()

    def look_every(self, seconds: float, look: Callable[[], object]) -> None:
        """Have ``look`` called with the next record, and then with one after so many seconds."""
        self._look, self._look_seconds, self._next_look = look, seconds, 0.0

    def write(self, record: AnyRecord) -> OSError | None:
        """Write one record, or keep it.

        Returns:
            Why it was kept, or ``None`` if it was written.
        """
        try:
            body = encode(record)
        except UnicodeEncodeError:
            body = encode_record(record)
        number = next(self._numbers)
        # What _line() does, spelled out: to call it costs a fiftieth of a call to log_metrics.
        crc = encode(crc32(body, number))
        line = _join((b'{"crc":', crc, b',"n":', encode(number), b',"record":', body, b"}\n"))
        trouble = None
        if self._waiting:  # those come first
            trouble = self._keep(line, None)
        else:
            try:
                if os.write(self._descriptor, line) != len(line):
                    self._write(line)
                next(self._written)
            except OSError as error:
                trouble = self._keep(line, error)
        if monotonic() >= self._next_look:
            self._next_look = monotonic() + self._look_seconds
            self._look()
        if trouble is not None:
            self.kept(trouble)
        return trouble

    def finish(self, last: RunEnded) -> None:
        """Write the run's end, and before it how many records are lost.

        Raises:
            OSError: The disk takes none of it.
        """
        if self.lost and (error := self.write(Tags(values={LOST: str(self.lost)}))) is not None:
            raise error
        # Each number below those of the end belongs to a record that is written, or is counted as unwritten,
        # as that of a thread which writes right now: its record may come after the end.
        written = next(self._written) - self._looks
        self._looks += 1
        numbers = next(self._numbers), next(self._numbers)
        body = encode_record(msgspec.structs.replace(last, unwritten=numbers[0] - written))
        self._write(_join([_encode_line(body, number) for number in numbers]))

    def go_on_in(self, path: Path) -> None:
        """Write to another file from now on.

        Raises:
            OSError: It can't be opened.
        """
        other = _open_for_appending(path)
        os.dup2(other, self._descriptor, inheritable=False)
        os.close(other)

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
                self._waiting = deque(sorted(self._waiting, key=lambda line: _METRICS in line[:_PREFIX]))
            self.stuck = False
            try:
                self._drain(room)
            except OSError:
                self.stuck = True
            return not self._waiting

    def drop(self) -> None:
        """Give up what waits, and count it."""
        with self._lock:
            self.lost += len(self._waiting)
            self._waiting.clear()

    def _keep(self, line: bytes, error: OSError | None) -> OSError | None:
        with self._lock:
            if len(self._waiting) < MAX_WAITING_RECORDS:
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
                next(self._written)
            if room is not None:
                room -= len(line)
