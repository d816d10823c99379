"""A damaged journal: every record that is read is right, and every other one is counted and named."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlwrap._journal.numbers import Numbers
from mlwrap._journal.reader import header, read_records
from mlwrap._journal.records import AnyRecord, Metrics, Params, RunEnded, RunStarted, Tags
from mlwrap._journal.writer import Writer, second_file
from mlwrap._spool.open_run import OpenRun, open_run
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import JournalError

FIRST = RunStarted(key="0" * 32, name="n", time=1, tracking_uri="sqlite:///x", folder="/")
LAST = RunEnded(status="FINISHED", time=9)
POINTS = 12
RECORDS = [
    Params(values={"rate": "0.1", "crc": "1"}),
    *[Metrics.of({"loss": step / 7, "crc": 1e9}, step=step, time=step) for step in range(POINTS)],
    Tags(values={"a": '{"crc":1,"n":2,"record":{"type":"tags","values":{}}}'}),
]
# Two headers, the records, and two ends.
HEADERS, COUNT = 2, len(RECORDS)
any_way = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=400
)


def begin(root: Path) -> OpenRun:
    """An open run of its own."""
    root.mkdir(exist_ok=True)
    folder = RunFolder(root / FIRST.key)
    folder.remove()
    return open_run(root, FIRST)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a journal of these records."""
    run = begin(tmp_path_factory.mktemp("content"))
    for record in RECORDS:
        assert run.append(record) is None
    run.end(LAST)
    run.release()
    return run.folder.journal.read_bytes()


class Found:
    """What is read of a journal, by one who begins again at each of its entries."""

    def __init__(self, path: Path) -> None:
        self.records: list[AnyRecord] = []
        self.end: RunEnded | None = None
        numbers, offset = Numbers(), 0
        while self.end is None:
            entries = read_records(path, offset, numbers)
            entry = next(entries, None)
            if entry is None:
                break
            if isinstance(entry.record, RunEnded):
                self.end = entry.record
                break
            if entry.record is not None and not isinstance(entry.record, RunStarted):
                self.records.append(entry.record)
            offset = entry.end
            next(entries, None)  # which adds the entry's number
            numbers = msgspec.json.decode(msgspec.json.encode(numbers), type=Numbers)
        self.count, self.text = numbers.damage(self.end) if self.end is not None else (0, "")


def once(path: Path) -> Found:
    """The same, read in one go."""
    found = Found.__new__(Found)
    numbers = Numbers()
    entries = [entry.record for entry in read_records(path, 0, numbers)]
    found.records = [each for each in entries if each and not isinstance(each, RunStarted | RunEnded)]
    found.end = entries[-1] if isinstance(entries[-1], RunEnded) else None
    found.count, found.text = numbers.damage(found.end) if found.end is not None else (0, "")
    return found


def written(path: Path, content: bytes) -> Path:
    """A journal of these bytes."""
    path.write_bytes(content)
    return path


def read_both_ways(path: Path) -> Found:
    """What is read, which is the same wherever reading stops and goes on."""
    found, again = once(path), Found(path)
    assert found.records == again.records
    assert (found.end, found.count, found.text) == (again.end, again.count, again.text)
    return found


def check(found: Found, *, most: int) -> None:
    """Nothing is wrong or doubled, and what is not there is counted; ``most`` are."""
    places = [RECORDS.index(record) for record in found.records]
    assert len(set(places)) == len(places)
    assert found.end is not None
    assert found.end.status == LAST.status
    assert COUNT - len(places) <= found.count <= most
    assert found.text == "" if not found.count else found.text.startswith(f"{found.count}")


def test_a_whole_journal_has_no_damage(tmp_path: Path, content: bytes):
    """All is read, in its order; the start and the end are written twice."""
    found = read_both_ways(written(tmp_path / "j", content))
    assert found.records == RECORDS
    assert (found.count, found.text) == (0, "")
    assert content.count(b'"run_started"') == content.count(b'"run_ended"') == 2
    assert all(msgspec.json.decode(line)["n"] == n for n, line in enumerate(content.splitlines()))


@any_way
@given(data=st.data())
def test_one_flipped_bit_costs_one_record_at_most(tmp_path: Path, content: bytes, data: st.DataObject):
    """Anywhere: in a record, its number, its checksum, the end of its line, a header, an end."""
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path = written(tmp_path / "j", bytes(damaged))
    found = read_both_ways(path)
    check(found, most=1)
    assert len(found.records) >= COUNT - 1
    # The end of a line that was flipped costs nothing.
    assert content[place : place + 1] != b"\n" or found.records == RECORDS
    assert msgspec.structs.replace(header(path), format=1) == FIRST


@any_way
@given(data=st.data())
def test_bytes_that_were_overwritten_cost_what_they_cover(
    tmp_path: Path, content: bytes, data: st.DataObject
):
    """A block of anything over any place but both headers: with zeros as after a power cut, or with junk."""
    second = content.index(b"\n") + 1
    start = data.draw(st.integers(second, len(content) - 1))
    length = data.draw(st.integers(1, min(1500, len(content) - start)))
    fill = data.draw(st.sampled_from([b"\0", b"\n", b"{", b'{"crc":', b"\xff"]))
    damaged = content[:start] + (fill * length)[:length] + content[start + length :]
    found = read_both_ways(written(tmp_path / "j", damaged))
    covered = content.count(b"\n", 0, start + length) - content.count(b"\n", 0, start) + 1
    assert len(found.records) >= COUNT - covered
    if found.end is not None:
        check(found, most=covered)


@any_way
@given(data=st.data())
def test_lines_that_are_moved_or_doubled_cost_nothing(tmp_path: Path, content: bytes, data: st.DataObject):
    """Swapped or written twice: all records are there, once."""
    lines = content.splitlines(keepends=True)
    one, other = data.draw(st.integers(0, len(lines) - 1)), data.draw(st.integers(0, len(lines) - 1))
    if data.draw(st.booleans()):
        lines[one], lines[other] = lines[other], lines[one]
    else:
        lines.insert(one, lines[other])
    found = read_both_ways(written(tmp_path / "j", b"".join(lines)))
    check(found, most=0)


@pytest.mark.parametrize("line", range(HEADERS + COUNT + 2))
def test_a_removed_line_is_counted_and_named(tmp_path: Path, content: bytes, line: int):
    """Any of them; one of the two starts or ends costs nothing else."""
    lines = content.splitlines(keepends=True)
    found = read_both_ways(written(tmp_path / "j", b"".join(lines[:line] + lines[line + 1 :])))
    if line == HEADERS + COUNT + 1:  # the end before it was read
        assert (found.records, found.count) == (RECORDS, 0)
        return
    assert (found.count, found.text) == (1, f"1: number {line}")
    assert found.records == RECORDS[: max(0, line - HEADERS)] + RECORDS[max(0, line - HEADERS + 1) :]


@any_way
@given(data=st.data())
def test_a_cut_journal_has_what_was_before_the_cut(tmp_path: Path, content: bytes, data: st.DataObject):
    """And nothing else; without a whole header it is refused."""
    cut = data.draw(st.integers(0, len(content)))
    path = written(tmp_path / "j", content[:cut])
    whole = content.count(b"\n", 0, cut)
    if whole == 0:
        with pytest.raises(JournalError, match="whole record of a run's start"):
            list(read_records(path))
        return
    found = read_both_ways(path)
    assert found.records == RECORDS[: max(0, whole - HEADERS)]
    assert (found.end is not None) == (whole > HEADERS + COUNT)


def test_a_damaged_record_is_named_with_its_type(tmp_path: Path, content: bytes):
    """Where that can still be read."""
    damaged = content.replace(b'"step":5,', b'"step":7,')
    found = read_both_ways(written(tmp_path / "j", damaged))
    assert (found.count, found.text) == (1, "1: number 8 (metrics)")


def test_damage_in_a_killed_run_is_counted_where_it_can_be_seen(tmp_path: Path, content: bytes):
    """Of a number that is only missing nobody knows whether its thread was killed before it wrote."""
    lines = content.splitlines(keepends=True)[: HEADERS + COUNT]
    for damage, text in (
        (b"", ""),
        (b"\0\n", "1: number 8"),
        (lines[8].replace(b"5", b"6", 1), "1: number 8"),
    ):
        path = written(tmp_path / "j", b"".join([*lines[:8], damage, *lines[9:]]))
        writer = Writer(path)
        writer.append(RunEnded(status="KILLED", time=1))
        writer.close()
        found = read_both_ways_of_killed(path)
        assert found.text.removesuffix(" (metrics)") == text
        assert found.records == RECORDS[:6] + RECORDS[7:]


def read_both_ways_of_killed(path: Path) -> Found:
    """As :func:`read_both_ways`, of a run that another process closed."""
    found = read_both_ways(path)
    assert found.end is not None
    assert found.end.unwritten is None
    return found


def test_a_thread_that_is_stopped_between_number_and_record_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The run's end comes first: the record is too late, as ever, and nobody speaks of damage."""
    run, real = begin(tmp_path), os.write
    entered, go_on = threading.Event(), threading.Event()

    def slow(descriptor: int, data: bytes) -> int:
        if b'"late"' in data:
            entered.set()
            assert go_on.wait(60)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", slow)
    thread = threading.Thread(target=run.append, args=(Metrics.of({"late": 1.0}, step=1, time=1),))
    thread.start()
    assert entered.wait(60)
    run.end(LAST)
    found = read_both_ways(run.folder.journal)
    assert (found.records, found.count) == ([], 0)
    go_on.set()
    thread.join()
    run.release()


def test_a_signal_between_number_and_record_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its handler raises: the call never returned."""
    run = begin(tmp_path)

    def interrupted(descriptor: int, data: bytes) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.append(RECORDS[0])
    run.append(RECORDS[1])
    run.end(LAST)
    run.release()
    found = read_both_ways(run.folder.journal)
    assert (found.records, found.count) == ([RECORDS[1]], 0)


def test_a_second_file_is_read_after_the_first(tmp_path: Path, content: bytes):
    """Where the first one ends in a piece of a record, too."""
    lines = content.splitlines(keepends=True)
    for piece in (b"", lines[9][:30]):
        path = written(tmp_path / "j", b"".join(lines[:9]) + piece)
        second_file(path).write_bytes(b"".join(lines[9:]))
        found = read_both_ways(path)
        assert (found.records, found.count) == (RECORDS, 0)


# Format 1, which had no checksums.


def format_1(path: Path, records: list[AnyRecord]) -> Path:
    """A journal as mlwrap wrote it before there were checksums."""
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in (FIRST, *records, LAST)))
    assert b'"format"' not in path.read_bytes()
    return path


def test_a_journal_of_format_1_is_read(tmp_path: Path):
    """All of it, also records that are alike."""
    records = [*RECORDS, RECORDS[0], RECORDS[1]]
    found = read_both_ways(format_1(tmp_path / "j", records))
    assert found.records == records
    assert (found.end, found.count, found.text) == (LAST, 0, "")


def test_unreadable_lines_of_format_1_are_counted(tmp_path: Path):
    """A record behind a piece of another one is whole; what has no number can't be named."""
    path = format_1(tmp_path / "j", RECORDS)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\0\0\n"
    lines[6] = lines[5][:40] + lines[6]
    lines[8] = lines[8][:40] + lines[8]
    path.write_bytes(b"".join(lines))
    found = read_both_ways(path)
    assert found.records == RECORDS[:2] + RECORDS[3:]
    assert (found.count, found.text) == (2, "2")
