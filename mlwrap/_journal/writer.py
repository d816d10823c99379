"""Append records to a journal, one ``os.write`` each.

A line of format 2 is ``{"crc":3585804873,"n":12,"record":{...}}``: the record's number, and the CRC-32 of
the record's bytes and the number. A number shifted right by 32 bits names the writer, which counts in the
other bits: 0 is the training process, whose records are all accounted for at the run's end.
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
from mlwrap._journal.tags import TagName

"""Tag of a run: how many of its records could not be written to disk."""
MAX_WAITING_RECORDS = (
    10_000  # records kept in memory while the disk refuses writes: about a megabyte of metrics
)
_MAX_TRIES = 3
_METRICS = b'"record":{"type":"metrics"'
_PREFIX = 90  # bytes at the start of a line that include its record's type


_join = b"".join


def _encode_line(body: bytes, number: int) -> bytes:
    # msgspec and join() are faster than any formatting of bytes.
    # crc32() starts from the number's lower 32 bits, so a change of one digit of the number changes the CRC.
    crc = encode(crc32(body, number))
    return _join((b'{"crc":', crc, b',"n":', encode(number), b',"record":', body, b"}\n"))


def second_file(journal: Path) -> Path:
    """Return the file that continues a journal which can't grow, as under a limit on file sizes."""
    return journal.with_name("journal-end.jsonl")


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _forked() -> None:
    """Mute all writers in a child made by ``fork``: the run belongs to the parent process."""
    for writer in list(_writers):
        writer.mute()


os.register_at_fork(after_in_child=_forked)


class Writer:
    """Write a journal's records.

    Once :meth:`append` returns, the operating system has the record: it survives the end of this process,
    even by ``kill -9``. ``O_APPEND`` keeps the records of threads apart without a lock. In a child made by
    ``fork`` the inherited writer writes nothing: the run belongs to the parent process.

    Args:
        path: The journal; created with mode 0600 if missing.
        first_number: The number of the writer's first record; by default one that no other writer reaches.

    Raises:
        OSError: The journal can't be opened.
    """

    def __init__(self, path: Path, first_number: int | None = None) -> None:
        self._descriptor = _open_for_appending(path)
        if first_number is None:
            first_number = 1 + secrets.randbelow(2**21 - 1) << 32  # every JSON reader handles 53 bits
        # Threads share these without a lock, since next() of a count is atomic. Between the two calls a
        # thread has a number whose record is not written yet.
        self._numbers = itertools.count(first_number)
        self._written = itertools.count()
        self._looks = 0  # reads of _written, each of which adds one to it
        _writers.add(self)

    def append(self, record: AnyRecord) -> None:
        """Write one record; write the run's start and end twice, since the whole run depends on them.

        Raises:
            OSError: The record could not be written completely. The journal may hold a piece of it, which
                damages no other record: the reader finds the next one.
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
        """Discard all further records."""
        if self._descriptor >= 0:
            try:
                null_device = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            except OSError:
                self.close()
                return
            os.dup2(null_device, self._descriptor, inheritable=False)
            os.close(null_device)

    def _write(self, line: bytes) -> None:
        # A record that was cut short is written again completely: writing only the rest would split it in
        # two if another thread wrote in between.
        for _ in range(_MAX_TRIES):
            if os.write(self._descriptor, line) == len(line):
                return
        raise OSError(errno.EIO, "only a part of the record was written")


def _open_for_appending(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class PatientWriter(Writer):
    """The training process's writer: it keeps records in memory while the disk refuses them.

    Once the disk accepts records again, the waiting ones are written first, in their order. At most
    ``MAX_WAITING_RECORDS`` wait; further ones are dropped and counted.

    Attributes:
        lost: Count of dropped records.
        stuck: Whether the last flush ended with an error.
        kept: Called with the error of a record that is kept in memory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, first_number=0)
        self.lost = 0
        self.kept: Callable[[OSError], object] = lambda _: None
        self._look: Callable[[], object] = lambda: None
        self._look_seconds = self._next_look = math.inf
        self.stuck = False
        self._waiting: deque[bytes] = deque()
        # Acquired only while records wait; reentrant for a signal handler that interrupts the holder.
        self._lock = threading.RLock()

    def look_every(self, seconds: float, look: Callable[[], object]) -> None:
        """Call ``look`` at the next record, and then at the first record after every ``seconds``."""
        self._look, self._look_seconds, self._next_look = look, seconds, 0.0

    def write(self, record: AnyRecord) -> OSError | None:
        """Write one record, or keep it in memory.

        Returns:
            The error because of which it was kept, or ``None`` if it was written.
        """
        try:
            body = encode(record)
        except UnicodeEncodeError:
            body = encode_record(record)
        number = next(self._numbers)
        # _encode_line() inlined: calling it costs 2 % of a call to log_metrics.
        crc = encode(crc32(body, number))
        line = _join((b'{"crc":', crc, b',"n":', encode(number), b',"record":', body, b"}\n"))
        trouble = None
        if self._waiting:  # the waiting records come first
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
        """Write the run's end, preceded by a tag with the count of lost records, if any are.

        Raises:
            OSError: The disk refuses the records.
        """
        if (
            self.lost
            and (error := self.write(Tags(values={TagName.LOST_RECORDS: str(self.lost)}))) is not None
        ):
            raise error
        # Each number below those of the end has a written record or is counted as unwritten. A thread that
        # writes right now counts as unwritten: its record may follow the end.
        written = next(self._written) - self._looks
        self._looks += 1
        numbers = next(self._numbers), next(self._numbers)
        body = encode_record(msgspec.structs.replace(last, unwritten=numbers[0] - written))
        self._write(_join([_encode_line(body, number) for number in numbers]))

    def go_on_in(self, path: Path) -> None:
        """Write to another file from now on.

        Raises:
            OSError: The file can't be opened.
        """
        descriptor = _open_for_appending(path)
        os.dup2(descriptor, self._descriptor, inheritable=False)
        os.close(descriptor)

    def flush(self, room: int | None = None) -> bool:
        """Write as many waiting records as the disk accepts.

        Args:
            room: Maximum bytes to write, if not all will fit. Metrics are then written last, since every
                other record carries more than a number.

        Returns:
            Whether all waiting records were written.
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
        """Drop the waiting records and count them as lost."""
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
            except OSError as drain_error:
                error = drain_error
        return error

    def _drain(self, room: int | None) -> None:
        while self._waiting and (room is None or room >= len(self._waiting[0])):
            line = self._waiting[0]
            self._write(line)
            # The record leaves the queue only after it is written, so no interrupt can lose it. A signal
            # handler that flushed the queue may already have removed it.
            if self._waiting and self._waiting[0] is line:
                self._waiting.popleft()
                next(self._written)
            if room is not None:
                room -= len(line)
