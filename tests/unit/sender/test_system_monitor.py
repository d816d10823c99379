"""The machine is watched: into the journal, until the run is over."""

from __future__ import annotations

import contextlib
import math
import threading
import uuid
from pathlib import Path

import psutil
import pytest

from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Metrics, RunStarted, SystemMetrics, now
from mlwrap._sender.system_monitor import SystemMonitor
from mlwrap._spool.open_run import OpenRun, open_run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import spool_root
from tests.faults.conftest import until

CPU = "system/cpu_utilization_percentage"
DISK = "system/disk_usage_percentage"


def begin(spool: Path, asked: SystemMetrics | None) -> OpenRun:
    """A run that has just begun."""
    first = RunStarted(
        key=uuid.uuid4().hex, name="r", time=now(), tracking_uri="", folder="", system_metrics=asked
    )
    return open_run(spool_root(str(spool)), first)


def points(folder: RunFolder) -> list[Metrics]:
    """What was written so far."""
    return [record for record, _ in read_records(folder.journal) if isinstance(record, Metrics)]


def test_it_writes_until_it_is_closed(spool: Path):
    """One record for each step, and none once ``close`` has returned, whatever the thread is at."""
    run = begin(spool, SystemMetrics(interval=0.02))
    threads = set(threading.enumerate())
    with contextlib.closing(SystemMonitor(run.folder)) as watch:
        (thread,) = set(threading.enumerate()) - threads
        assert watch.period == 0.02
        until(lambda: len(points(run.folder)) >= 5)
    written = points(run.folder)
    thread.join(60)
    assert not thread.is_alive()
    assert points(run.folder) == written
    steps = [record.step for record in written]
    assert steps == sorted(set(steps))
    assert set(written[0].values) >= {CPU, DISK, "system/system_memory_usage_percentage"}
    assert watch.period == math.inf
    run.release()


def test_another_one_goes_on_counting(spool: Path):
    """A point is the mean of several samples, and its step how many of them there would have been."""
    run = begin(spool, SystemMetrics(interval=0.01, samples=3, node="n"))
    for count in (2, 4):
        with contextlib.closing(SystemMonitor(run.folder)):
            until(lambda count=count: len(points(run.folder)) >= count)
    steps = [record.step for record in points(run.folder)]
    assert steps == sorted(set(steps))
    assert all(name.startswith("system/n/") for record in points(run.folder) for name in record.values)
    run.release()


def test_who_does_not_ask_pays_nothing(spool: Path):
    """No thread, and no time at which to look again."""
    run = begin(spool, None)
    threads = set(threading.enumerate())  # one of another test's may end meanwhile
    with contextlib.closing(SystemMonitor(run.folder)) as watch:
        assert set(threading.enumerate()) <= threads
        assert watch.period == math.inf
    run.release()


def test_a_monitor_that_fails_is_left_out(spool: Path, monkeypatch: pytest.MonkeyPatch):
    """From the start or later on; the others go on."""

    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(psutil, "net_io_counters", forbidden)
    run = begin(spool, SystemMetrics(interval=0.02))
    with contextlib.closing(SystemMonitor(run.folder)):
        until(lambda: points(run.folder))
        monkeypatch.setattr(psutil, "disk_usage", forbidden)
        until(lambda: DISK not in points(run.folder)[-1].values)
        until(lambda: CPU in points(run.folder)[-1].values)
    assert not any("network" in name for record in points(run.folder) for name in record.values)
    run.release()


def test_a_run_that_is_gone(tmp_path: Path):
    """Delivered in this very moment: nothing is made anew."""
    with contextlib.closing(SystemMonitor(RunFolder(tmp_path / "gone"))) as watch:
        assert watch.period == math.inf
    assert not (tmp_path / "gone").exists()
