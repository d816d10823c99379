"""P9, P11 to P14: requests, a server that is gone, and the ways to die."""

from __future__ import annotations

import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import (
    NOTHING,
    OURS,
    Failed,
    Server,
    argument,
    folder,
    head,
    interleaved,
    python,
    row,
    say,
    surroundings,
    until,
)

REPEATS = argument(1, 5)
POINTS = 5000
DEADLINE = 2.0

RECORDED = """
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
import json, os, sys, tempfile, time, mlwrap
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
names = "p50", "p99", "paced p50", "paced p99", "bare p50", "bare p99", "leaving"
print(json.dumps(dict(zip(names, [*found, time.perf_counter() - left]))))
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
        head(
            "Delivery, and ways to die",
            f"Medians of {REPEATS} processes. Requests are lines of the server's access log. A server that is gone is "
            "a port on which nobody listens.",
        )
        for measure in (deaths, gone, requests):
            try:
                measure(here)
            except Failed as error:
                row("-", f"{measure.__name__}: failed: {error}", *[NOTHING] * 4, reached=False)


def requests(here: Path) -> None:
    """P9: HTTP requests for a run of a thousand steps with one Keras model; the experiment is there."""
    counts: dict[str, int] = {}
    with Server(here) as server:
        python("import mlflow; mlflow.set_experiment('bench')", MLFLOW_TRACKING_URI=server.uri)
        for name, source, pause in (
            ("rival", RIVAL, ""),
            ("fast", RECORDED, "0"),
            ("live", RECORDED, "0.005"),
        ):
            say(f"requests, {name}")
            before = server.requests()
            try:
                python(source, pause, MLFLOW_TRACKING_URI=server.uri)
                counts[name] = server.requests() - before
            except Failed as error:
                say(str(error))
    rival = counts.get("rival")
    for name, said in (("fast", "as fast as it goes"), ("live", "200 steps/s, seen live")):
        count = counts.get(name)
        factor = count / rival if count and rival else None
        row(
            "P9",
            f"HTTP requests, 1000 steps and a Keras model, {said}",
            str(count or "failed"),
            f"fluent MLflow {rival or 'failed'}",
            f"{factor:.3f}" if factor else NOTHING,
            "≤16",
            reached=count is not None and count <= 16,
            factor=factor,
            short="HTTP requests of a run: fluent MLflow" if name == "live" else "",
        )


def gone(here: Path) -> None:
    """P11 and P12: a call, and the end, while nobody listens; against a server that is there."""
    with Server(here) as server:
        uris = {OURS: f"http://127.0.0.1:{_free_port()}", "there": server.uri}
        sources = {name: CALLS.replace("sys.argv[1]", repr(uri)) for name, uri in uris.items()}
        found = interleaved(REPEATS, sources, MLWRAP_DEADLINE=str(DEADLINE))
    if any("failed" in each for each in found.values()):
        raise Failed(str(found))
    away, there = found[OURS], found["there"]
    row(
        "P11",
        "`log_metrics` of 5 while the server is gone, one after the other: p50 / p99",
        f"{away['p50']:.1f} / {away['p99']:.1f} µs",
        f"mlwrap with a server that is there {there['p50']:.1f} / {there['p99']:.1f} µs",
        f"{away['p50'] / there['p50']:.2f}",
        "≤5 / ≤25 µs",
        reached=away["p50"] <= 5 and away["p99"] <= 25,
    )
    row(
        "P11",
        "the same, after a sleep of 0.5 ms each: p50 / p99",
        f"{away['paced p50']:.1f} / {away['paced p99']:.1f} µs",
        f"a bare `os.write` of 150 bytes {away['bare p50']:.1f} / {away['bare p99']:.1f} µs",
        f"{away['paced p50'] / away['bare p50']:.2f}",
        NOTHING,
    )
    row(
        "P12",
        f"leaving while the server is gone, deadline {DEADLINE:.0f} s",
        f"{away['leaving']:.2f} s",
        NOTHING,
        NOTHING,
        f"≤{DEADLINE + 1:.0f} s",
        reached=away["leaving"] <= DEADLINE + 1,
    )


def deaths(here: Path) -> None:
    """P13 and P14: from a signal to what is on the disk and in MLflow, with a warm sender, on sqlite."""
    kinds = {signal.SIGTERM: ([], []), signal.SIGKILL: ([], [])}
    made = here / "deaths"
    made.mkdir()
    environment = surroundings(made)
    for repeat in range(REPEATS):
        for number, (written, killed) in kinds.items():
            say(f"{number.name}, {repeat + 1} of {REPEATS}")
            name = f"{number.name}{repeat}"
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", DYING % POINTS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=made,
                env={**environment, "MLFLOW_TRACKING_URI": environment["STORE"]},
            )
            process.stdin.write(name + "\n")
            process.stdin.flush()
            run_folder = made / "spool" / process.stdout.readline().strip()
            began = time.perf_counter()
            process.send_signal(number)
            if number == signal.SIGTERM:
                until(lambda run_folder=run_folder: _ended(run_folder), 60)
                written.append(time.perf_counter() - began)
            until(lambda name=name: _killed(made / "mlflow.db", name), 60)
            killed.append(time.perf_counter() - began)
            process.wait()
    (written, killed), (_, dead) = kinds.values()
    what = f"{POINTS} points, warm sender"
    for claim, said, times, most in (
        ("P13", "SIGTERM → all on disk", written, 1),
        ("P13", "SIGTERM → KILLED in MLflow", killed, 5),
        ("P14", "`kill -9` → KILLED in MLflow, all points there", dead, 2),
    ):
        reached = statistics.median(times) <= most
        row(claim, f"{said} ({what})", _milliseconds(times), NOTHING, NOTHING, f"≤{most} s", reached=reached)


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
