"""P21: many runs at once, against one server with two workers in front of PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness import (
    NOTHING,
    OURS,
    SERVER,
    Server,
    argument,
    folder,
    head,
    memory_of,
    numbers,
    python,
    row,
    say,
    senders,
    series,
    surroundings,
    time_text,
)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.faults.servers import postgres  # noqa: E402 - found by what stands above

MOST = argument(2, 1000)  # after the number of repeats: here each size is measured once
RUNS = [runs for runs in (1, 100, 300, 1000) if runs <= MOST]
PROCESSES = 4
STEPS, RATE, METRICS = 150, 5, 3  # of a run; a second; of a step
REQUESTS, PATIENCE = (
    6,
    60.0,
)  # requests of a run, and seconds that runs may be open after the server could close them

TRAIN = f"""
import json, os, sys, threading, time
import psutil, mlwrap
runs = int(sys.argv[1])
resting, own = threading.Barrier(runs), psutil.Process()
before = own.memory_full_info().uss
calls, lock, peak = [], threading.Lock(), 0
def train(number):
    global peak
    taken = []
    with mlwrap.model_run(f"r{{number}}", wait=False) as run:
        resting.wait()
        began = time.monotonic()
        for step in range({STEPS}):
            values = {{f"m{{i}}": step / 7 + i for i in range({METRICS})}}
            start = time.perf_counter()
            run.log_metrics(values, step=step)
            taken.append(time.perf_counter() - start)
            time.sleep(max(0.0, began + (step + 1) / {RATE} - time.monotonic()))
        if number == 0:
            peak = own.memory_full_info().uss
    with lock:
        calls.extend(taken)
threads = [threading.Thread(target=train, args=(number,)) for number in range(runs)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({{"calls": calls, "memory": max(0, peak - before), "ended": time.time()}}))
"""
# The same requests as a client of MLflow's would send that has all of it at hand: the most that the server takes.
BARE = f"""
import json, os, sys, time
from concurrent.futures import ThreadPoolExecutor
from mlflow import MlflowClient
from mlflow.entities import Metric
client = MlflowClient()
experiment = client.create_experiment(f"bare-{{sys.argv[1]}}")
def deliver(number):
    run = client.create_run(experiment, run_name=f"r{{number}}").info.run_id
    points = [Metric(f"m{{i}}", step / 7 + i, 1, step) for step in range({STEPS}) for i in range({METRICS})]
    client.log_batch(run, points)
    client.set_terminated(run)
began = time.perf_counter()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(deliver, range(int(sys.argv[1]))))
print(json.dumps({{"seconds": time.perf_counter() - began}}))
"""
COUNT = """
import json, sys
from sqlalchemy import create_engine, text
with create_engine(sys.argv[1]).connect() as connection:
    ids = "select run_uuid from runs join experiments using (experiment_id) where experiments.name = :name"
    name = {"name": sys.argv[2]}
    finished = connection.execute(text(f"select count(*) from ({ids} and status = 'FINISHED') as found"), name)
    points = connection.execute(text(f"select count(*) from metrics where run_uuid in ({ids})"), name)
    print(json.dumps({"finished": finished.scalar(), "points": points.scalar()}))
"""


def main() -> None:
    """Train, and print."""
    with folder() as here, postgres() as store, Server(here, workers=2, store=store) as server:
        head(
            "Many runs at once",
            f"Each run logs {METRICS} metrics, {RATE} times a second, for {STEPS // RATE} s, in threads of "
            f"{PROCESSES} processes; one `mlflow server` with two workers in front of PostgreSQL, on the same "
            "machine. The rival is what the server takes: eight threads that send the same runs with three "
            "requests each, with all points at hand.",
            ("mlwrap", "mlflow"),
        )
        found = {runs: measured(here, server, store, runs) for runs in RUNS}
        alone = found[1]["p99"]
        for runs, each in found.items():
            if runs > 1:
                told(runs, each, alone)
        if len(found) < 3:  # one run, and one size: nothing grows
            return
        series(
            "until all runs are FINISHED",
            "runs",
            "s",
            {
                OURS: [(runs, each["open"]) for runs, each in found.items() if runs > 1],
                "what the server takes": [(runs, each["bare"]) for runs, each in found.items() if runs > 1],
            },
            1.2,
        )


def measured(here: Path, server: Server, store: str, runs: int) -> dict[str, Any]:
    """Train so many runs at once, and look what came of them."""
    made = here / f"runs-{runs}"
    made.mkdir()
    name = f"scale-{runs}"
    own = {"MLFLOW_TRACKING_URI": server.uri}
    environment = {**surroundings(made), **own, "MLFLOW_EXPERIMENT_NAME": name}
    requests, processes = server.requests(), min(PROCESSES, runs)
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TRAIN, str(runs // processes)],
            cwd=made,
            env=environment,
            stdout=(made / f"{number}.json").open("w"),
        )
        for number in range(processes)
    ]
    memory, there = 0, {}
    while True:
        memory = max(memory, memory_of(senders(made)))
        if all(child.poll() is not None for child in children):
            there = numbers(COUNT, store, name, interpreter=SERVER.parent / "python")
            if there["finished"] == runs or time.time() - _ended(made) > 20 * PATIENCE:
                break
        time.sleep(0.5)
    closed, requests = time.time(), server.requests() - requests
    outputs = [json.loads(path.read_text()) for path in sorted(made.glob("*.json"))]
    calls = sorted(taken for each in outputs for taken in each["calls"])
    bare = json.loads(python(BARE, str(runs), **own).splitlines()[-1])["seconds"]
    found = {
        "missing": runs * STEPS * METRICS - there["points"],
        "finished": there["finished"],
        "open": closed - _ended(made),
        "bare": bare,
        "requests": requests / runs,
        "p50": calls[len(calls) // 2],
        "p99": calls[int(len(calls) * 0.99)],
        "memory": memory + sum(each["memory"] for each in outputs),
    }
    say(json.dumps(found))
    return found


def told(runs: int, each: dict[str, Any], alone: float) -> None:
    """What came out for so many runs."""
    late = each["open"] - max(0.0, each["bare"] - STEPS / RATE)
    row(
        "P21",
        f"{runs} runs at once: from the last step until all are FINISHED in MLflow",
        time_text(each["open"]),
        f"what the server takes {time_text(each['bare'])}",
        f"{late:.3g} s after the server could",
        f"≤{PATIENCE:.0f} s",
        reached=each["finished"] == runs and late <= PATIENCE,
    )
    row(
        "P21",
        f"{runs} runs at once: points missing; requests a run",
        f"{each['missing']}; {each['requests']:.2g}",
        NOTHING,
        NOTHING,
        f"0; ≤{REQUESTS}",
        reached=each["missing"] == 0 and each["requests"] <= REQUESTS,
    )
    row(
        "P21",
        f"{runs} runs at once: a call of `log_metrics`, p50 and p99",
        f"{time_text(each['p50'])}, {time_text(each['p99'])}",
        f"one run alone, p99 {time_text(alone)}",
        f"{each['p99'] / alone:.3g}",
        "≤1.1",
        reached=each["p99"] <= 1.1 * alone,
    )
    most = 400e6 + runs * 1e6
    row(
        "P21",
        f"{runs} runs at once: memory of the sender and of what the trainings keep for mlwrap",
        f"{each['memory'] / 1e6:.0f} MB",
        NOTHING,
        NOTHING,
        f"≤{most / 1e6:.0f} MB",
        reached=each["memory"] <= most,
    )


def _ended(made: Path) -> float:
    """When the last training was over."""
    return max(json.loads(path.read_text())["ended"] for path in made.glob("*.json"))


if __name__ == "__main__":
    main()
