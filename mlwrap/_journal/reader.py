"""Read all records of a journal that are whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from mlwrap._journal.records import FORMAT, AnyRecord, RunStarted
from mlwrap.errors import JournalError

_decoder: msgspec.json.Decoder[AnyRecord] = msgspec.json.Decoder(AnyRecord)


class Entry(NamedTuple):
    """A line of a journal.

    Attributes:
        record: What it says; ``None`` where the line is damaged.
        end: Offset in bytes of the end of the line: where reading goes on.
    """

    record: AnyRecord | None
    end: int


class _Header(msgspec.Struct):
    type: str = ""
    format: int = 0


def read(path: Path, start: int = 0) -> Iterator[Entry]:
    """Yield the journal's lines from the offset ``start``, which must be 0 or the end of an entry.

    A last line without its end is still being written, or was cut off when its writer died: it is not
    there. A damaged line is yielded with ``record=None``, so that the caller can count and report it.

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
            end += len(line)
            if line == b"\n":  # left by a writer that ended a torn line
                continue
            yield Entry(_decode(line), end)


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


def _decode(line: bytes) -> AnyRecord | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _check_header(path: Path, line: bytes) -> None:
    try:
        first = msgspec.json.decode(line, type=_Header)
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
