"""Delivery, measured: requests, a server that is gone, and the ways to die. Prints a Markdown table.

``make bench`` runs it. Each figure that has a rival is measured against it in the same run.
Times are medians, with the number of repeats; the targets stand beside, reached or not.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import Server, folder, head, python, row, until

REPEATS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
POINTS = 5000
DEADLINE = 2.0

OURS = """
import sys, time, keras, mlwrap
pause = float(sys.argv[1])
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
with mlwrap.model_run("ours", experiment="bench", params={"a": 1}) as run:
    for step in range(1000):
        run.log_metric("loss", step / 7, step=step)
        time.sleep(pause)
    run.log_model(model)
"""
RIVAL = """
import keras, mlflow
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
mlflow.set_experiment("bench")
with mlflow.start_run():
    mlflow.log_params({"a": 1})
    for step in range(1000):
        mlflow.log_metric("loss", step / 7, step=step)
    mlflow.keras.log_model(model, name="model")
"""
CALLS = """
import os, sys, tempfile, time, mlwrap
uri = sys.argv[1]
def timed(call, pause):
    times = []
    for step in range(2000):
        metrics = {f"m{i}": step / 7 for i in range(5)}
        began = time.perf_counter_ns()
        call(metrics, step)
        times.append(time.perf_counter_ns() - began)
        time.sleep(pause) if pause else None
    times.sort()
    return times[1000] / 1e3, times[1980] / 1e3
with mlwrap.model_run("r", tracking_uri=uri, experiment="bench") as run, tempfile.TemporaryFile() as file:
    log = lambda metrics, step: run.log_metrics(metrics, step=step)
    bare = lambda metrics, step: os.write(file.fileno(), b"x" * 150)
    found = [*timed(log, 0), *timed(log, 0.0005), *timed(bare, 0.0005)]
    left = time.perf_counter()
print(*found, time.perf_counter() - left)
"""
DYING = """
import sys, time, mlwrap
with mlwrap.model_run("warm", experiment="bench"): pass
for line in sys.stdin:
    run = mlwrap.model_run(line.strip(), experiment="bench").__enter__()
    for step in range(%d):
        run.log_metric("loss", step / 7, step=step)
    print(run.key, flush=True)
    time.sleep(600)
"""


def main() -> None:
    """Measure all, and print."""
    with folder() as here:
        head("Delivery")
        for cells in deaths(here):
            row(*cells)
        with Server(here) as server:
            for cells in (*gone(server), *requests(server)):
                row(*cells)


def requests(server: Server) -> list[tuple[str, ...]]:
    """P9: HTTP requests for a run of a thousand steps with one Keras model; the experiment is there."""
    counts = {}
    for name, source, argument in (("fast", OURS, "0"), ("live", OURS, "0.005"), ("rival", RIVAL, "")):
        before = server.requests()
        python(source, argument, MLFLOW_TRACKING_URI=server.uri)
        counts[name] = server.requests() - before
    rival = counts.pop("rival")
    said = {"fast": "as fast as it goes", "live": "200 steps/s, seen live"}
    return [
        (
            "P9",
            f"HTTP requests, 1000 steps and a Keras model, {said[name]}",
            str(count),
            f"fluent MLflow {rival}",
            f"{count / rival:.3f}",
            "≤16",
        )
        for name, count in counts.items()
    ]


def gone(server: Server) -> list[tuple[str, ...]]:
    """P11 and P12: a call, and the end, while nobody listens; against a server that is there."""
    there, away = [], []
    for _ in range(REPEATS):
        for found, uri in ((there, server.uri), (away, f"http://127.0.0.1:{_free_port()}")):
            out = python(CALLS, uri, MLWRAP_DEADLINE=str(DEADLINE))
            found.append([float(number) for number in out.split()])
    p50, p99, slow50, slow99, bare50, bare99, leaving = _medians(away)
    base50, base99, *_ = _medians(there)
    return [
        (
            "P11",
            f"`log_metrics` of 5, server gone, one after the other, p50 / p99 (n={REPEATS})",
            f"{p50:.1f} / {p99:.1f} µs",
            f"server there {base50:.1f} / {base99:.1f} µs",
            f"{p50 / base50:.2f} / {p99 / base99:.2f}",
            "≤5 / ≤25 µs",
        ),
        (
            "P11",
            "the same, after a sleep of 0.5 ms each",
            f"{slow50:.1f} / {slow99:.1f} µs",
            f"a bare `os.write` of 150 bytes {bare50:.1f} / {bare99:.1f} µs",
            f"{slow50 / bare50:.2f} / {slow99 / bare99:.2f}",
            "≤5 / ≤25 µs",
        ),
        (
            "P12",
            f"leaving while the server is gone, deadline {DEADLINE:.0f} s (n={REPEATS})",
            f"{leaving:.2f} s",
            "-",
            "-",
            f"≤{DEADLINE + 1:.0f} s",
        ),
    ]


def _medians(rows: list[list[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def deaths(here: Path) -> list[tuple[str, ...]]:
    """P13 and P14: from a signal to what is on the disk and in MLflow, with a warm sender, on sqlite."""
    store = here / "mlflow.db"
    kinds = {signal.SIGTERM: ([], []), signal.SIGKILL: ([], [])}
    for repeat in range(REPEATS):
        for number, (written, killed) in kinds.items():
            name = f"{number.name}{repeat}"
            process = subprocess.Popen(
                [sys.executable, "-c", DYING % POINTS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{store}"},
            )
            process.stdin.write(name + "\n")
            process.stdin.flush()
            run_folder = here / "spool" / process.stdout.readline().strip()
            began = time.perf_counter()
            process.send_signal(number)
            if number == signal.SIGTERM:
                until(lambda run_folder=run_folder: _ended(run_folder), 60)
                written.append(time.perf_counter() - began)
            until(lambda name=name: _killed(store, name), 60)
            killed.append(time.perf_counter() - began)
            process.wait()
    (written, killed), (_, dead) = kinds.values()
    what = f"{POINTS} points, warm sender, n={REPEATS}"
    return [
        ("P13", f"SIGTERM → all on disk ({what})", _milliseconds(written), "-", "-", "≤1 s"),
        ("P13", f"SIGTERM → KILLED in MLflow ({what})", _milliseconds(killed), "-", "-", "≤5 s"),
        ("P14", f"`kill -9` → KILLED, all points there ({what})", _milliseconds(dead), "-", "-", "≤2 s"),
    ]


def _ended(run_folder: Path) -> bool:
    try:
        return b'{"type":"run_ended"' in (run_folder / "journal.jsonl").read_bytes()[-2000:]
    except FileNotFoundError:  # delivered already
        return True


def _killed(store: Path, name: str) -> bool:
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5) as found:
        rows = found.execute("SELECT run_uuid FROM runs WHERE name = ? AND status = 'KILLED'", (name,))
        run = rows.fetchone()
        if run is None:
            return False
        (points,) = found.execute("SELECT count(*) FROM metrics WHERE run_uuid = ?", run).fetchone()
        return points == POINTS


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _milliseconds(times: list[float]) -> str:
    return f"{statistics.median(times) * 1000:.0f} ms (worst {max(times) * 1000:.0f})"


if __name__ == "__main__":
    main()
