"""Read all records of a journal that are whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from mlwrap._journal.records import FORMAT, AnyRecord, RunEnded, RunStarted
from mlwrap.errors import JournalError

_BEGIN = b'{"type":'  # of every record; within a text its quotes would be escaped
_decoder: msgspec.json.Decoder[AnyRecord] = msgspec.json.Decoder(AnyRecord)


class Entry(NamedTuple):
    """A line of a journal.

    Attributes:
        record: What it says; ``None`` where the line, or its beginning, is damaged.
        end: Offset in bytes of its end: where reading goes on.
    """

    record: AnyRecord | None
    end: int


class _Header(msgspec.Struct):
    type: str = ""
    format: int = 0


def read(path: Path, start: int = 0) -> Iterator[Entry]:
    """Yield the journal's lines from the offset ``start``, which must be 0 or the end of an entry.

    A last line without its end is still being written, or was cut off when its writer died: it is not
    there. What is damaged is yielded with ``record=None``, so that the caller can count and report it. A
    record that follows on a piece of another one, without a line's end between, is whole and is yielded. The
    run's end is the last: a sender that watched the machine in that very moment may have written after it.

    Raises:
        JournalError: There is no journal, its first record is not whole, or a newer mlwrap wrote it.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise JournalError(f"{path.parent} is no run folder: it holds no {path.name}.") from None
    with file:
        if start == 0:
            _check_header(path, file.readline())
        file.seek(start)
        end = start
        for line in file:
            if not line.endswith(b"\n"):
                return
            record, at = _decode(line)
            # A piece that the record begins with is its own: it was cut short, and then written whole.
            if record is None or not line.startswith(line[:at], at):
                yield Entry(None, end + (at or len(line)))
            end += len(line)
            if record is not None:
                yield Entry(record, end)
            if isinstance(record, RunEnded):
                return


def header(path: Path) -> RunStarted:
    """The first record of a journal.

    Raises:
        JournalError: As :func:`read`.
    """
    for entry in read(path):
        if isinstance(entry.record, RunStarted):
            return entry.record
        break
    raise JournalError(f"{path} does not begin with a whole record of a run's start; it can't be delivered.")


def _decode(line: bytes) -> tuple[AnyRecord | None, int]:
    """The record that a line ends with, and where in the line it begins."""
    at = 0
    while at >= 0:
        try:
            return _decoder.decode(line[at:]), at
        except (msgspec.DecodeError, UnicodeDecodeError):
            at = line.find(_BEGIN, at + 1)
    return None, 0


def _check_header(path: Path, line: bytes) -> None:
    try:
        first = msgspec.json.decode(line[max(line.rfind(_BEGIN + b'"run_started"'), 0) :], type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        first = _Header()
    if first.type != "run_started" or not line.endswith(b"\n"):
        raise JournalError(
            f"{path} does not begin with a whole record of a run's start; it can't be delivered."
        )
    if first.format > FORMAT:
        raise JournalError(
            f"{path} has journal format {first.format}, and this mlwrap reads up to {FORMAT}. "
            "Upgrade mlwrap to deliver it; the folder was not touched."
        )
