"""Read each undamaged record of a journal once."""

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

_BEGIN = b'{"crc":'  # start of every line; a text can't contain it, since JSON escapes the quotes
_BEGIN_1 = b'{"type":'  # the same in format 1
_NUMBER = re.compile(rb'\{"crc":\d{1,10},"n":(\d{1,16}),')
_TYPE = re.compile(rb'\{"type":"(\w{1,20})"')
_FORMAT = re.compile(rb'"type":"run_started","format":(\d{1,9})')
_HEADER_LINES = 16  # lines that are searched for the header
_MAX_ENDS = 3  # places in a damaged line where one record may end


class Entry(NamedTuple):
    """A record of a journal, or an unreadable piece of the journal.

    Attributes:
        record: The record; ``None`` for an unreadable piece.
        end: Offset in bytes of the entry's end, where reading continues.
    """

    record: AnyRecord | None
    end: int


class _Piece(NamedTuple):
    """A line, or a part of a damaged one; ``number`` is -1 if unknown, as always in format 1."""

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

    A last line without a newline is ignored: it is still being written, or its writer died. A damaged piece
    is yielded with ``record=None``. A complete record directly after a piece of another one, with no newline
    between them, is yielded. The run's end is yielded last, although a sender that logged system metrics at
    that moment may have written after it.

    Args:
        path: The journal.
        start: Offset in bytes to start from.
        numbers: Numbers of the records before ``start``, which are not yielded again. An entry's number is
            added when the next entry is requested.

    Raises:
        JournalError: The journal is missing, has no undamaged record of the run's start, or was written by a
            newer mlwrap.
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
                    if not isinstance(late.record, RunEnded):  # written before the end, stored after it
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
    """Return the record of the run's start.

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
    """Return the record of the run's start, and whether the journal has checksums."""
    newest = 0
    for index, line in enumerate(islice(file, _HEADER_LINES)):
        if not line.endswith(b"\n"):
            break
        is_format_1 = index == 0 and line.startswith(_BEGIN_1)
        records = [_last_of_format_1(line)[0]] if is_format_1 else [piece.record for piece in _split(line, 0)]
        first = next((record for record in records if isinstance(record, RunStarted)), None)
        if first is not None and first.format <= FORMAT:
            return first, not is_format_1
        newest = max([newest, *map(int, _FORMAT.findall(line))])
    if newest > FORMAT:
        raise JournalError(
            f"{path} has journal format {newest}, and this mlwrap reads up to {FORMAT}. "
            "Upgrade mlwrap to deliver it; the folder was not touched."
        )
    raise JournalError(f"{path} does not begin with a whole record of a run's start; it can't be delivered.")


def _pieces(path: Path, file: BinaryIO, start: int) -> Iterator[_Piece]:
    """Yield the pieces of the journal from ``start`` on, then those of its second file."""
    file.seek(start)
    end = start
    for line in file:
        if not line.endswith(b"\n"):
            break
        yield from _split(line, end)
        end += len(line)
    try:
        with second_file(path).open("rb") as continuation:
            for line in continuation:
                if line.endswith(b"\n"):
                    # The offset stays at the first file's end: the second is short and always read whole.
                    yield from (piece._replace(end=end) for piece in _split(line, 0))
    except FileNotFoundError:
        pass


def _split(line: bytes, start: int) -> Iterator[_Piece]:
    """Yield the record of a line; for a damaged line, its complete records and the pieces between them."""
    if (checked := _checked(line)) is not None:
        yield _Piece(*checked, "", start + len(line))
        return
    begins = [match.start() for match in re.finditer(re.escape(_BEGIN), line)] + [len(line)]
    consumed = 0
    for index, begin in enumerate(begins[:-1]):
        for end in begins[index + 1 : index + 1 + _MAX_ENDS] if begin >= consumed else ():
            # The byte before the next record may be the damaged newline of this one.
            checked = _checked(line[begin:end]) or _checked(line[begin : end - 1])
            if checked is not None:
                # A piece with this record's number is the first try of a writer that then wrote it in full.
                piece = _unreadable(line[consumed:begin], start + begin)
                if piece.number not in {-1, checked[1]}:
                    yield piece
                yield _Piece(*checked, "", start + end)
                consumed = end
                break
    if consumed < len(line):
        yield _unreadable(line[consumed:], start + len(line))


def _checked(line: bytes) -> tuple[AnyRecord, int] | None:
    """Return a line's record and number; ``None`` if the checksum differs or the line can't be parsed."""
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
        record, begin = _last_of_format_1(line)
        # If the record starts with this piece, the piece is its own first try, which was cut short.
        if record is None or not line.startswith(line[:begin], begin):
            yield _Piece(None, -1, "", end + (begin or len(line)))
        end += len(line)
        if record is not None:
            yield _Piece(record, -1, "", end)


def _last_of_format_1(line: bytes) -> tuple[AnyRecord | None, int]:
    """Return the record at the end of a line, and the index in the line at which it begins."""
    begin = 0
    while begin >= 0:
        try:
            return _decoder.decode(line[begin:]), begin
        except _UNREADABLE:
            begin = line.find(_BEGIN_1, begin + 1)
    return None, 0
