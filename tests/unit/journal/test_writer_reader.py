"""Append and read: all that is whole comes back, and nothing else."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlwrap._journal.reader import header, read_records
from mlwrap._journal.records import FORMAT, Metrics, RunEnded, RunStarted, Tags
from mlwrap._journal.writer import MAX_WAITING_RECORDS, PatientWriter, Writer
from mlwrap.errors import JournalError

FIRST = RunStarted(format=FORMAT, key="k", name="n", time=1, tracking_uri="sqlite:///x", folder="/")


def written(path: Path, count: int = 3) -> Path:
    """A journal of a start and ``count`` metrics."""
    writer = Writer(path)
    writer.append(FIRST)
    for step in range(count):
        writer.append(Metrics.of({"loss": step / 7}, step=step, time=step))
    writer.close()
    return path


def steps(path: Path, start: int = 0) -> list[int | None]:
    """The steps of the metrics in a journal; ``None`` for a damaged line."""
    return [
        entry.record.step if isinstance(entry.record, Metrics) else None
        for entry in read_records(path, start)
        if not isinstance(entry.record, RunStarted)
    ]


def test_what_was_written_is_read(tmp_path: Path):
    """In its order, from the start."""
    path = written(tmp_path / "j")
    assert header(path) == FIRST
    assert steps(path) == [0, 1, 2]


def test_only_its_owner_can_read_a_journal(tmp_path: Path):
    """Parameters are nobody else's business."""
    path = written(tmp_path / "j")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_reading_goes_on_where_it_stopped(tmp_path: Path):
    """The end of any entry is a place to start from."""
    path = written(tmp_path / "j")
    ends = [entry.end for entry in read_records(path)]
    assert ends[-1] == path.stat().st_size
    assert steps(path, ends[2]) == [1, 2]
    assert steps(path, ends[-1]) == []


def test_the_runs_end_is_the_last(tmp_path: Path):
    """What a sender wrote a moment too late is nobody's."""
    path = written(tmp_path / "j")
    writer = Writer(path)
    for record in (RunEnded(status="FINISHED", time=1), Metrics(values={"late": 1.0}, step=9, time=1)):
        writer.append(record)
    writer.close()
    *_, last = read_records(path)
    assert isinstance(last.record, RunEnded)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(min_value=0, max_value=800))
def test_a_torn_tail_is_not_there(tmp_path: Path, cut: int):
    """Wherever a crash cut the journal, the whole records before the cut are read."""
    path = written(tmp_path / "j")
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    if whole == 0:
        with pytest.raises(JournalError, match="whole record of a run's start"):
            list(read_records(path))
    else:
        assert steps(path) == list(range(whole - 2))
    path.unlink()


@pytest.mark.parametrize(
    "damage",
    [b"\x00" * 40, b"{\xff\xfe}", b'{"type":"nobody"}', b'{"type":"metrics","values":{},"step":1,"time":1}'],
)
def test_a_damaged_line_costs_only_itself(tmp_path: Path, damage: bytes):
    """It is reported where it stands; the records before and after are read."""
    path = written(tmp_path / "j")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = damage + b"\n"
    path.write_bytes(b"".join(lines))
    assert steps(path) == [0, None, 2]


def test_a_newer_format_is_refused_untouched(tmp_path: Path):
    """An older mlwrap says so, and leaves the folder to a newer one."""
    path = tmp_path / "j"
    path.write_bytes(b'{"type":"run_started","format":%d,"new":1}\n' % (FORMAT + 1))
    before = path.read_bytes()
    with pytest.raises(JournalError, match=rf"format {FORMAT + 1}.*reads up to {FORMAT}.*Upgrade"):
        list(read_records(path))
    assert path.read_bytes() == before


def test_no_journal_is_a_sentence(tmp_path: Path):
    """A folder that is no run folder is named."""
    with pytest.raises(JournalError, match="no run folder"):
        list(read_records(tmp_path / "j"))


class Disk:
    """Stands between a journal and ``os.write``: takes so many bytes of the next records, then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
        self.room: int | None = None  # None: as much as is there
        self._real, self._number = os.write, number
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor: int, data: bytes) -> int:
        if self.room is None:
            return self._real(descriptor, data)
        if self.room == 0:
            raise OSError(self._number, os.strerror(self._number))
        taken = self._real(descriptor, data[: self.room])
        self.room -= taken
        return taken


def test_a_record_that_was_cut_short_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk that fills in the middle of a record, then has room again: nothing is lost, nothing damaged."""
    disk, path = Disk(monkeypatch), tmp_path / "j"
    writer = PatientWriter(path)
    writer.append(FIRST)
    disk.room = 10
    assert writer.write(Metrics.of({"loss": 1.0}, step=6, time=1)).errno == errno.ENOSPC
    disk.room = None
    assert writer.write(Metrics.of({"loss": 1.0}, step=7, time=1)) is None
    writer.close()
    assert steps(path) == [6, 7]


def test_a_write_that_takes_only_a_part_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The very first record, too."""
    path, real = tmp_path / "j", os.write
    short = iter([5])
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: next(short, None)]))
    written(path)
    assert header(path) == FIRST
    assert steps(path) == [0, 1, 2]


def test_a_record_behind_a_piece_of_another_is_read(tmp_path: Path):
    """A writer died within a record, and another went on: the piece is damage, what follows is not."""
    path = written(tmp_path / "j")
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    writer = Writer(path)
    writer.append(Metrics.of({"loss": 1.0}, step=7, time=1))
    writer.close()
    assert steps(path) == [0, 1, None, 7]
    ends = [entry.end for entry in read_records(path)]
    assert steps(path, ends[-2]) == [7]
    assert ends[-1] == path.stat().st_size


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_the_disk_does_not_take_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    """And is written first, in its order, when the disk takes it."""
    disk, path = Disk(monkeypatch, number), tmp_path / "j"
    writer = PatientWriter(path)
    writer.append(FIRST)
    disk.room = 0
    for step in range(100):
        assert writer.write(Metrics.of({"loss": 1.0}, step=step, time=1)).errno == number
    disk.room = None
    assert writer.write(Metrics.of({"loss": 1.0}, step=100, time=1)) is None
    assert steps(path) == list(range(101))
    assert writer.lost == 0


def test_memory_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The oldest stay, for what came before them is on the disk."""
    disk, path = Disk(monkeypatch), tmp_path / "j"
    writer = PatientWriter(path)
    writer.append(FIRST)
    disk.room = 0
    for step in range(MAX_WAITING_RECORDS + 7):
        writer.write(Metrics.of({"loss": 1.0}, step=step, time=1))
    assert writer.lost == 7
    disk.room = None
    assert writer.flush()
    assert steps(path) == list(range(MAX_WAITING_RECORDS))


def test_a_disk_that_fills_and_empties_loses_no_threads_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Eight threads, and a disk that takes every third write, and of every fifth only a part."""
    path, real, calls = tmp_path / "j", os.write, itertools.count(1)
    writer = PatientWriter(path)
    writer.append(FIRST)

    def bad(descriptor: int, data: bytes) -> int:
        number = next(calls)
        if number % 3:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data if number % 5 else data[:9])

    def log(thread: int) -> None:
        for step in range(300):
            writer.write(Metrics.of({f"loss{thread}": 0.5}, step=step, time=1))

    monkeypatch.setattr(os, "write", bad)
    threads = [threading.Thread(target=log, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.setattr(os, "write", real)
    assert writer.flush()
    found: dict[str, list[int]] = {}
    for entry in read_records(path):
        if isinstance(entry.record, Metrics):
            found.setdefault(next(iter(entry.record.values)), []).append(entry.record.step)
    assert found == {f"loss{number}": list(range(300)) for number in range(8)}
    assert writer.lost == 0


def test_threads_do_not_mix_their_records(tmp_path: Path):
    """Eight threads, one journal, no lock: every record is whole, in its thread's order."""
    path = tmp_path / "j"
    writer = Writer(path)
    writer.append(FIRST)

    def log(thread: int) -> None:
        for step in range(500):
            writer.append(Metrics.of({f"loss{thread}": 0.5}, step=step, time=1))

    threads = [threading.Thread(target=log, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found: dict[str, list[int]] = {}
    for entry in read_records(path):
        if isinstance(entry.record, Metrics):
            (name,) = entry.record.values
            found.setdefault(name, []).append(entry.record.step)
    assert found == {f"loss{number}": list(range(500)) for number in range(8)}


def test_a_forked_child_writes_nothing(tmp_path: Path):
    """The journal is its parent's."""
    path = tmp_path / "j"
    writer = Writer(path)
    writer.append(FIRST)
    child = os.fork()
    if child == 0:
        writer.append(Tags(values={"who": "child"}))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [type(entry.record) for entry in read_records(path)] == [RunStarted, RunStarted]
