"""P19, P20: one sender for all processes of a spool."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from harness import (
    NOTHING,
    OURS,
    argument,
    folder,
    head,
    memory_of,
    numbers,
    row,
    say,
    senders,
    surroundings,
    time_text,
    until,
)

REPEATS = argument(1, 7)
SCRIPTS = argument(2, 64)
THREADS = 100
MEMORY = 250e6  # bytes

OURS_SOURCE = """
import mlwrap
with mlwrap.model_run("r") as run:
    run.log_params({"rate": 0.1, "units": 32, "depth": 2})
    run.log_metrics({"loss": 0.5, "accuracy": 0.9})
"""
BY_HAND = """
import mlflow
with mlflow.start_run(run_name="r"):
    mlflow.log_params({"rate": 0.1, "units": 32, "depth": 2})
    mlflow.log_metrics({"loss": 0.5, "accuracy": 0.9})
"""
IN_THREADS = f"""
import threading
import mlwrap
barrier = threading.Barrier({THREADS})
def train(number):
    barrier.wait()
    with mlwrap.model_run(f"r{{number}}") as run:
        run.log_metric("loss", 0.5)
threads = [threading.Thread(target=train, args=(number,)) for number in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
STATES = """
import collections, json, os, mlflow
client = mlflow.MlflowClient(os.environ["STORE"])
runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
print(json.dumps(collections.Counter(run.info.status for run in runs)))
"""


def main() -> None:
    """Start scripts, and print."""
    with folder() as here:
        head(
            "Many scripts",
            f"Scripts that log three parameters and two metrics over sqlite, from the start of the interpreter "
            f"to its end; they wait until their run is FINISHED. By hand: the same with `mlflow.start_run`. "
            f"The sender's memory is its proportional set size after the last of {SCRIPTS} scripts.",
            ("mlwrap", "mlflow"),
        )
        one_after_another(here)
        at_once(here, "scripts", [OURS_SOURCE] * SCRIPTS, SCRIPTS)
        at_once(here, "threads of one process", [IN_THREADS], THREADS)


def one_after_another(here: Path) -> None:
    """Each script finds the sender of the one before."""
    made = {name: _made(here, name) for name in (OURS, "by hand")}
    sources = {OURS: OURS_SOURCE, "by hand": BY_HAND}
    taken: dict[str, list[float]] = {name: [] for name in sources}
    for repeat in range(REPEATS + 1):
        for name, source in sources.items():
            began = time.perf_counter()
            _start(source, made[name]).wait()
            if repeat:  # the first starts the sender
                taken[name].append(time.perf_counter() - began)
    _check(made[OURS], REPEATS + 1)
    _stop(made[OURS])
    ours, by_hand = (sorted(each)[len(each) // 2] for each in taken.values())
    row(
        "P19",
        "a script from its start to its run's FINISHED, where a sender is there",
        time_text(ours),
        f"by hand {time_text(by_hand)}",
        f"{ours / by_hand:.3g}",
        "≤0.3 s",
        reached=ours <= 0.3,
        factor=ours / by_hand,
        short="a whole script: MLflow by hand",
    )


def at_once(here: Path, what: str, sources: list[str], runs: int) -> None:
    """All start together, and none finds a sender."""
    made = _made(here, what.partition(" ")[0])
    began = time.perf_counter()
    processes = [_start(source, made) for source in sources]
    for process in processes:
        process.wait()
    seconds = time.perf_counter() - began
    _check(made, runs)
    there = senders(made)
    memory = memory_of(there)
    say(f"{len(there)} senders, {memory / 1e6:.0f} MB")
    row(
        "P20",
        f"{runs} {what} that begin at once: senders, their memory, and the time until all are FINISHED",
        f"{len(there)}, {memory / 1e6:.0f} MB, {time_text(seconds)}",
        NOTHING,
        NOTHING,
        f"1, ≤{MEMORY / 1e6:.0f} MB",
        reached=len(there) == 1 and memory <= MEMORY,
    )
    _stop(made)


def _made(here: Path, name: str) -> Path:
    made = here / name.replace(" ", "-")
    made.mkdir()
    return made


def _environment(made: Path) -> dict[str, str]:
    environment = surroundings(made)
    return {**environment, "MLFLOW_TRACKING_URI": environment["STORE"]}


def _start(source: str, made: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", source], cwd=made, env=_environment(made))


def _check(made: Path, runs: int) -> None:
    """Raise if a run is missing or not FINISHED."""
    found = numbers(STATES, here=made)
    if found != {"FINISHED": runs}:
        raise RuntimeError(f"expected {runs} runs that are FINISHED, found {found}")


def _stop(made: Path) -> None:
    command = [sys.executable, "-m", "mlwrap", "sender", "stop"]
    subprocess.run(command, cwd=made, env=_environment(made), check=True, stdout=subprocess.DEVNULL)
    until(lambda: not senders(made), 60)


if __name__ == "__main__":
    main()
