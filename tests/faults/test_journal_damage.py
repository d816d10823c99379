"""Journals that are damaged or cut off, and processes that are limited: MLflow is told what is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

import mlwrap

POINTS = 30
HEADERS = 2  # the run's start is written twice; then come parameters, source tags and the like


def only_run() -> Run:
    """The one run of the store."""
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return run


def steps() -> list[int]:
    """The steps of the one run's metric."""
    history = mlflow.MlflowClient().get_metric_history(only_run().info.run_id, "loss")
    return sorted(point.step for point in history)


def deliver_damaged(spool: Path, damage: Callable[[list[bytes]], None]) -> dict[str, str]:
    """Train with 30 points, change the lines of the journal, and deliver it; gives the run's tags."""
    with mlwrap.model_run("r", delivery="off") as run:
        run.log_params({"rate": 0.1})
        for step in range(POINTS):
            run.log_metric("loss", step / 7, step=step)
    (journal,) = spool.glob("*/journal.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    damage(lines)
    journal.write_bytes(b"".join(lines))
    assert [synced.error for synced in mlwrap.sync()] == [None]
    assert list(spool.glob("*/journal.jsonl")) == []
    assert only_run().info.status == "FINISHED"
    assert only_run().data.params["rate"] == "0.1"
    tags: dict[str, str] = only_run().data.tags
    return tags


def point(lines: list[bytes], step: int) -> int:
    """Which line is the point of a step."""
    (index,) = [i for i, line in enumerate(lines) if b'"step":%d,' % step in line]
    return index


def test_a_flipped_bit_of_a_value_never_becomes_another_value(store: str, spool: Path):
    """The record is missing, counted and named; every other one is right."""
    number = -1

    def flip(lines: list[bytes]) -> None:
        nonlocal number
        number = point(lines, 7)
        lines[number] = lines[number].replace(b'"loss":1.0', b'"loss":3.0')

    tags = deliver_damaged(spool, flip)
    assert tags["mlwrap.damaged_records"] == f"1: number {number} (metrics)"
    history = mlflow.MlflowClient().get_metric_history(only_run().info.run_id, "loss")
    assert {p.step: p.value for p in history} == {s: s / 7 for s in range(POINTS) if s != 7}


@pytest.mark.parametrize("copy", range(HEADERS))
def test_a_flipped_bit_of_a_header_costs_no_record(store: str, spool: Path, copy: int):
    """The other copy tells where the run belongs."""

    def flip(lines: list[bytes]) -> None:
        line = bytearray(lines[copy])
        line[line.index(b"tracking_uri") + 20] ^= 1
        lines[copy] = bytes(line)

    tags = deliver_damaged(spool, flip)
    assert tags["mlwrap.damaged_records"] == f"1: number {copy} (run_started)"
    assert steps() == list(range(POINTS))


def test_a_flipped_bit_of_the_end_costs_no_status(store: str, spool: Path):
    """A run that finished is not called killed."""

    def flip(lines: list[bytes]) -> None:
        lines[-2] = lines[-2].replace(b"FINISHED", b"FINISHEE")

    assert deliver_damaged(spool, flip)["mlwrap.damaged_records"].startswith("1: number ")
    assert steps() == list(range(POINTS))


def test_a_removed_line_is_counted_and_named(store: str, spool: Path):
    """By the number that does not come."""
    number = -1

    def remove(lines: list[bytes]) -> None:
        nonlocal number
        number = point(lines, 12)
        del lines[number]

    assert deliver_damaged(spool, remove)["mlwrap.damaged_records"] == f"1: number {number}"
    assert steps() == [step for step in range(POINTS) if step != 12]


def test_swapped_and_doubled_lines_cost_nothing(store: str, spool: Path):
    """The run's end among them."""

    def swap(lines: list[bytes]) -> None:
        one, other = point(lines, 3), point(lines, 20)
        lines[one], lines[other] = lines[other], lines[one]
        lines[point(lines, 25)], lines[-1] = lines[-1], lines[point(lines, 25)]
        lines.insert(point(lines, 9), lines[point(lines, 11)])

    assert "mlwrap.damaged_records" not in deliver_damaged(spool, swap)
    assert steps() == list(range(POINTS))


TROUBLE = {"mlwrap.error.message", "mlwrap.lost_records", "mlwrap.damaged_records"}
LIMITED = """
import resource, mlwrap
from mlwrap._run.run import recorder_of
with mlwrap.model_run("r", delivery={delivery!r}) as run:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, hard))
    for step in range(3000):
        run.log_metric("loss", step / 7, step=step)
    # What delivers in this process is not limited by what the training was.
    end = recorder_of(run).journal.end
    def unlimited(last):
        lost = end(last)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        return lost
    recorder_of(run).journal.end = unlimited
print(run.status)
"""


@pytest.mark.parametrize("delivery", ["sender", "inline"])
def test_a_limit_of_the_size_of_files_changes_no_status(store: str, spool: Path, python, delivery: str):
    """FINISHED is what the user is told, and MLflow; what waited in memory arrives, and none is lost."""
    done = python(LIMITED.format(delivery=delivery, limit=250_000), MLWRAP_DEADLINE="60")
    assert "File too large" in done.stderr
    assert "are lost, for" not in done.stderr
    assert done.stdout.split() == [only_run().info.status] == ["FINISHED"]
    assert steps() == list(range(3000))
    assert not only_run().data.tags.keys() & TROUBLE
    assert not list(spool.glob("*/journal*"))


def test_records_beyond_a_limit_of_the_size_of_files_are_counted(store: str, spool: Path, python):
    """The second file has the same limit: the run's end comes before the points, and the user is told."""
    done = python(LIMITED.format(delivery="inline", limit=100_000))
    lost = int(only_run().data.tags["mlwrap.lost_records"])
    assert f"{lost:,} records are lost, for" in done.stderr
    assert len(steps()) == 3000 - lost
    assert done.stdout.split() == [only_run().info.status] == ["FINISHED"]
    assert "mlwrap.damaged_records" not in only_run().data.tags


CLOSED = """
import os
for descriptor in range(3):
    os.close(descriptor)
import mlwrap
from mlwrap._run.run import recorder_of
with mlwrap.model_run("r") as run:
    run.log_metric("loss", 0.0, step=0)
    os.system("echo noise; echo noise >&2; head -c 100")
    run.log_metric("loss", 1.0, step=1)
    journal = recorder_of(run).folder.journal.read_bytes()
    held = [n for n in range(3) if os.path.exists(f"/proc/self/fd/{n}")]
    with open("seen.json", "w") as file:
        import json
        json.dump([journal.decode(), held], file)
"""


@pytest.mark.parametrize("delivery", ["sender", "inline"])
def test_closed_standard_descriptors_put_no_output_into_the_journal(
    store: str, spool: Path, tmp_path: Path, delivery: str
):
    """Neither journal, lock nor line has one of their numbers, which a child process writes to."""
    script = tmp_path / "closed.py"
    script.write_text(CLOSED)
    environment = {**os.environ, "MLWRAP_DELIVERY": delivery, "MLWRAP_DEADLINE": "60"}
    assert subprocess.run([sys.executable, script], env=environment, timeout=300, check=False).returncode == 0
    journal, held = json.loads(Path("seen.json").read_text())
    assert held == []
    assert "noise" not in journal
    assert all(json.loads(line)["crc"] for line in journal.splitlines())
    assert steps() == [0, 1]
    assert only_run().info.status == "FINISHED"
    assert "mlwrap.damaged_records" not in only_run().data.tags
