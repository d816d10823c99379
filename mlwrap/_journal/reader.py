"""Read all records of a journal that are whole, each once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

import msgspec

from mlwrap._journal.numbers import Numbers, writer_of
from mlwrap._journal.records import FORMAT, AnyRecord, RunEnded, RunStarted
from mlwrap._journal.writer import second_file
from mlwrap.errors import JournalError

_BEGIN = b'{"crc":'  # of every line; within a text its quotes would be escaped
_BEGIN_1 = b'{"type":'  # the same in format 1
_NUMBER = re.compile(rb'\{"crc":\d{1,10},"n":(\d{1,16}),')
_TYPE = re.compile(rb'\{"type":"(\w{1,20})"')
_FORMAT = re.compile(rb'"type":"run_started","format":(\d{1,9})')
_HEADER_LINES = 16  # among which the header is looked for
_MAX_ENDS = 3  # places in a damaged line where one record may end


class Entry(NamedTuple):
    """A record of a journal, or a piece of it that can't be read.

    Attributes:
        record: What it says; ``None`` for what can't be read.
        end: Offset in bytes of its end: where reading goes on.
    """

    record: AnyRecord | None
    end: int


class _Piece(NamedTuple):
    """A line, or a part of a damaged one; its number is -1 where that can't be told, as in format 1."""

    record: AnyRecord | None
    number: int
    kind: str
    end: int


class _Line(msgspec.Struct):
    crc: int
    n: int
    record: msgspec.Raw


_line_decoder = msgspec.json.Decoder(_Line)
_decoder: msgspec.json.Decoder[AnyRecord] = msgspec.json.Decoder(AnyRecord)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_records(path: Path, start: int = 0, numbers: Numbers | None = None) -> Iterator[Entry]:
    """Yield the journal's entries from the offset ``start``, which must be 0 or the end of an entry.

    A last line without its end is still being written, or was cut off when its writer died: it is not
    there. What is damaged is yielded with ``record=None``. A record that follows on a piece of another one,
    without a line's end between, is whole and is yielded. The run's end is the last: a sender that
    watched the machine in that very moment may have written after it.

    Args:
        path: The journal.
        start: Where to begin.
        numbers: Of the records before ``start``; those do not come again. An entry's own number is added
            when the next entry is asked for.

    Raises:
        JournalError: There is no journal, no record of the run's start is whole, or a newer mlwrap wrote it.
    """
    numbers = Numbers() if numbers is None else numbers
    with _open_for_reading(path) as file:
        _, checked = _run_started(path, file)
        pieces = _pieces(path, file, start) if checked else _pieces_of_format_1(file, start)
        end = start
        for record, number, kind, piece_end in pieces:
            if isinstance(record, RunEnded):
                if checked and writer_of(number) == 0:
                    numbers.expect(number)
                for late in pieces if numbers.lacks_training() else ():
                    if late.record is None or not numbers.lacks(late.number):
                        continue
                    if not isinstance(late.record, RunEnded):  # its line has changed places
                        yield Entry(late.record, end)
                    numbers.add(late.number)
                yield Entry(record, piece_end)
                return
            if record is None:
                yield Entry(None, piece_end)
                numbers.add_unreadable(number, kind)
            elif number not in numbers:
                yield Entry(record, piece_end)
                numbers.add(number)
            end = piece_end


def header(path: Path) -> RunStarted:
    """The record of the run's start.

    Raises:
        JournalError: As :func:`read_records`.
    """
    with _open_for_reading(path) as file:
        return _run_started(path, file)[0]


def _open_for_reading(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise JournalError(f"{path.parent} is no run folder: it holds no {path.name}.") from None


def _run_started(path: Path, file: BinaryIO) -> tuple[RunStarted, bool]:
    """The record of the run's start, and whether the journal has checksums."""
    newest = 0
    for index, line in enumerate(islice(file, _HEADER_LINES)):
        if not line.endswith(b"\n"):
            break
        old = index == 0 and line.startswith(_BEGIN_1)
        records = [_last_of_format_1(line)[0]] if old else [piece.record for piece in _split(line, 0)]
        first = next((record for record in records if isinstance(record, RunStarted)), None)
        if first is not None and first.format <= FORMAT:
            return first, not old
        newest = max([newest, *map(int, _FORMAT.findall(line))])
    if newest > FORMAT:
        raise JournalError(
            f"{path} has journal format {newest}, and this mlwrap reads up to {FORMAT}. "
            "Upgrade mlwrap to deliver it; the folder was not touched."
        )
    raise JournalError(f"{path} does not begin with a whole record of a run's start; it can't be delivered.")


def _pieces(path: Path, file: BinaryIO, start: int) -> Iterator[_Piece]:
    """What the journal holds from ``start`` on, and behind it what its second file holds."""
    file.seek(start)
    end = start
    for line in file:
        if not line.endswith(b"\n"):
            break
        yield from _split(line, end)
        end += len(line)
    try:
        with second_file(path).open("rb") as rest:
            for line in rest:
                if line.endswith(b"\n"):
                    # Reading never goes on within this file: it is short.
                    yield from (piece._replace(end=end) for piece in _split(line, 0))
    except FileNotFoundError:
        pass


def _split(line: bytes, start: int) -> Iterator[_Piece]:
    """The record that a line is; of a damaged line the records that are whole in it, and what is not."""
    if (whole := _checked(line)) is not None:
        yield _Piece(*whole, "", start + len(line))
        return
    places = [match.start() for match in re.finditer(re.escape(_BEGIN), line)] + [len(line)]
    done = 0
    for index, place in enumerate(places[:-1]):
        for end in places[index + 1 : index + 1 + _MAX_ENDS] if place >= done else ():
            # The byte before the next record was the line's end.
            whole = _checked(line[place:end]) or _checked(line[place : end - 1])
            if whole is not None:
                # A writer that could write only a piece of a record has written it again as a whole.
                piece = _unreadable(line[done:place], start + place)
                if piece.number not in {-1, whole[1]}:
                    yield piece
                yield _Piece(*whole, "", start + end)
                done = end
                break
    if done < len(line):
        yield _unreadable(line[done:], start + len(line))


def _checked(line: bytes) -> tuple[AnyRecord, int] | None:
    """The record that a line is, and its number, if it is as it was written."""
    try:
        parts = _line_decoder.decode(line)
        return (_decoder.decode(parts.record), parts.n) if crc32(parts.record, parts.n) == parts.crc else None
    except _UNREADABLE:
        return None


def _unreadable(piece: bytes, end: int) -> _Piece:
    number, kind = _NUMBER.match(piece), _TYPE.search(piece)
    return _Piece(None, int(number[1]) if number else -1, kind[1].decode() if kind else "", end)


def _pieces_of_format_1(file: BinaryIO, start: int) -> Iterator[_Piece]:
    file.seek(start)
    end = start
    for line in file:
        if not line.endswith(b"\n"):
            return
        record, at = _last_of_format_1(line)
        # A piece that the record begins with is its own: it was cut short, and then written whole.
        if record is None or not line.startswith(line[:at], at):
            yield _Piece(None, -1, "", end + (at or len(line)))
        end += len(line)
        if record is not None:
            yield _Piece(record, -1, "", end)


def _last_of_format_1(line: bytes) -> tuple[AnyRecord | None, int]:
    """The record that a line ends with, and where in the line it begins."""
    at = 0
    while at >= 0:
        try:
            return _decoder.decode(line[at:]), at
        except _UNREADABLE:
            at = line.find(_BEGIN_1, at + 1)
    return None, 0
