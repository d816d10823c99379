"""``kill -9`` at random moments, many times: is anything lost that a call had returned for?

``python tests/faults/chaos.py 1000`` runs it by hand; ``make chaos N=1000``, too. The victims are children of
one process and share its warm sender. Each writes down, outside of mlwrap, every point that it was told is
logged. What the sender makes of their deaths is compared with that, with nobody running a command.

A victim that dies before its run has started is nobody's: what it leaves, if anything, the next training's
sender takes away. So the last thing that happens is that another training starts.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import mlwrap

RATES = (20, 100, 500)  # points a second
AT_ONCE = 4
LONGEST = 1.0  # seconds that a victim lives
PATIENCE = 120.0  # seconds for the sender to come to an end

MAKE_STORE = "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).create_experiment('chaos')"


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        kills: Processes killed.
        started: Those of them whose run had started.
        points: Points that were acknowledged.
        lost: Of these, how many are not in MLflow.
        doubled: Points that are there more than once.
        not_killed: Runs that are not there, or have another status than KILLED.
        left: What is left in the spool.
        seconds: From the first kill to the last run's end.
    """

    kills: int
    started: int
    points: int
    lost: int
    doubled: int
    not_killed: int
    left: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.started} with a run), {self.points} points acknowledged, "
            f"{self.lost} lost, {self.doubled} doubled, {self.not_killed} runs not KILLED, "
            f"{self.left} left in the spool, {self.seconds:.1f} s"
        )

    @property
    def sound(self) -> bool:
        """Whether all is as it should be."""
        return not (self.lost or self.doubled or self.not_killed or self.left)


def main(kills: int, folder: Path, seed: int) -> Outcome:
    """Kill so many victims; everything lies in ``folder``."""
    chance = random.Random(seed)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    (folder / "acknowledged").mkdir()
    subprocess.run([sys.executable, "-c", MAKE_STORE, store], cwd=folder, check=True, capture_output=True)
    options = {"spool": folder / "spool", "tracking_uri": store, "experiment": "chaos", "quiet": True}
    mlwrap.configure(delivery="sender", deadline=PATIENCE, **options)
    with mlwrap.model_run("warm"):  # the sender is there and has imported MLflow when this is left
        pass
    began = time.monotonic()
    alive: list[tuple[int, float]] = []
    for number in range(kills):
        if len(alive) == AT_ONCE:
            _kill(alive)
        pid = os.fork()
        if pid == 0:
            _victim(folder / "acknowledged" / str(number), RATES[number % len(RATES)])
        # One in ten dies while its run is being started.
        alive.append((pid, time.monotonic() + chance.uniform(0, 0.02 if number % 10 == 0 else LONGEST)))
    while alive:
        _kill(alive)
    _settle(folder)
    return _judge(folder, store, kills, time.monotonic() - began)


def _victim(acknowledged: Path, rate: int) -> None:
    run = mlwrap.model_run(acknowledged.name).__enter__()
    told = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    began = time.monotonic()
    for step in range(1_000_000):
        run.log_metric("loss", step / 7, step=step)
        os.write(told, b"%d\n" % step)
        time.sleep(max(0.0, began + (step + 1) / rate - time.monotonic()))
    os._exit(0)


def _kill(alive: list[tuple[int, float]]) -> None:
    """Kill the one whose time comes first."""
    alive.sort(key=lambda victim: -victim[1])
    pid, when = alive.pop()
    time.sleep(max(0.0, when - time.monotonic()))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _settle(folder: Path) -> None:
    """Wait for the sender to deliver what it knows of, and for the next training's to take away the rest."""
    acknowledged = {path.name for path in (folder / "acknowledged").iterdir()}
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(_name(run) in acknowledged for run in _left(folder)):
        time.sleep(0.05)
    next_one = mlwrap.model_run("next")
    with next_one as run:
        while time.monotonic() < deadline and [path for path in _left(folder) if path.name != run.key]:
            time.sleep(0.05)


def _left(folder: Path) -> list[Path]:
    return [path for path in (folder / "spool").iterdir() if path.is_dir()]


def _name(run: Path) -> str:
    """The name of the run in a run folder; empty where there is none yet, or none any more."""
    try:
        first = (run / "journal.jsonl").read_bytes().split(b"\n")[0]
    except OSError:
        return ""
    return first.partition(b'"name":"')[2].partition(b'"')[0].decode()


def _judge(folder: Path, store: str, kills: int, seconds: float) -> Outcome:
    from mlflow import MlflowClient  # noqa: PLC0415 - the victims are forked from a process without MLflow

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("chaos")
    found, token = [], None
    while token != "":
        page = client.search_runs([experiment.experiment_id], page_token=token)
        found += page
        token = page.token or ""
    runs = {run.info.run_name: run for run in found if run.info.run_name not in {"warm", "next"}}
    acknowledged = {path.name: path.read_text().split() for path in (folder / "acknowledged").iterdir()}
    lost = doubled = 0
    for name, points in acknowledged.items():
        history = client.get_metric_history(runs[name].info.run_id, "loss") if name in runs else []
        there = Counter(point.step for point in history)
        lost += len({int(step) for step in points} - set(there))
        doubled += there.total() - len(there)
    return Outcome(
        kills=kills,
        started=len(acknowledged),
        points=sum(map(len, acknowledged.values())),
        lost=lost,
        doubled=doubled + len(found) - len({run.info.run_name for run in found}),
        not_killed=len(set(acknowledged) - set(runs))
        + sum(run.info.status != "KILLED" for run in runs.values()),
        left=len(_left(folder)),
        seconds=seconds,
    )


if __name__ == "__main__":
    SEED = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    FOLDER = Path(tempfile.mkdtemp(prefix="mlwrap-chaos-"))
    OUTCOME = main(int(sys.argv[1]), FOLDER, SEED)
    print(OUTCOME)
    if not OUTCOME.sound:
        sys.exit(f"seed {SEED}; see {FOLDER}")
    shutil.rmtree(FOLDER)
