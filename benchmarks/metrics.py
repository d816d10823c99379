"""Metrics while training, measured: a call, a ``fit``, kills, memory, delivery. Prints Markdown tables.

``make bench`` runs it. Ours and the rivals take turns in the same run; of a rival that is not installed only
the name is printed. Each works as its users call it, on files of its own: MLflow over sqlite, W&B
offline. Times are medians over the rounds: the first argument. The second is how many are
killed, the third over how many points memory is measured. A row that a rival wins stays.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlwrap import savers
from mlwrap._journal import Metrics, read

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 and __name__ == "__main__" else 5
KILLS = int(sys.argv[2]) if len(sys.argv) > 2 and __name__ == "__main__" else 20
MEMORY_POINTS = int(sys.argv[3]) if len(sys.argv) > 3 and __name__ == "__main__" else 1_000_000
POINTS = 200_000
TOLD = "told: "
HEAD = f"""
import json, os, sys, time
STORE = os.environ["STORE"]
def tell(what):
    print({TOLD!r} + json.dumps(what), flush=True)
"""

# How each is opened, told five numbers, and closed.
LOGGERS = {
    "mlwrap": """
import mlwrap
context = mlwrap.model_run("r", tracking_uri=STORE, experiment="bench")
run = context.__enter__()
log = lambda values, step: run.log_metrics(values, step=step)
close = lambda: context.__exit__(None, None, None)
""",
    "MLflow, sync": """
import mlflow
mlflow.set_tracking_uri(STORE); mlflow.set_experiment("bench"); mlflow.start_run()
log = lambda values, step: mlflow.log_metrics(values, step=step)
close = mlflow.end_run
""",
    "MLflow, async": """
import mlflow
mlflow.set_tracking_uri(STORE); mlflow.set_experiment("bench"); mlflow.start_run()
log = lambda values, step: mlflow.log_metrics(values, step=step, synchronous=False)
close = lambda: (mlflow.flush_async_logging(), mlflow.end_run())
""",
    "W&B, offline": """
import wandb
run = wandb.init(mode="offline", project="bench", settings=wandb.Settings(silent=True, console="off"))
log = lambda values, step: run.log(values, step=step)
close = run.finish
""",
    "trackio": """
import contextlib, io, trackio
with contextlib.redirect_stdout(io.StringIO()):
    trackio.init(project="bench")
log = lambda values, step: trackio.log(values)
close = trackio.finish
""",
    "tensorboardX": """
from tensorboardX import SummaryWriter
writer = SummaryWriter("tb")
def log(values, step):
    for name, value in values.items():
        writer.add_scalar(name, value, step)
close = writer.close
""",
    "dvclive": """
from dvclive import Live
live = Live("dvclive", save_dvc_exp=False, report=None)
def log(values, step):
    for name, value in values.items():
        live.log_metric(name, value, plot=True)
    live.next_step()
close = live.end
""",
}
PACKAGES = {
    "mlwrap": "mlwrap",
    "MLflow, sync": "mlflow",
    "MLflow, async": "mlflow",
    "W&B, offline": "wandb",
    "trackio": "trackio",
    "tensorboardX": "tensorboardX",
    "dvclive": "dvclive",
}
CALLS = """
count, pause = int(sys.argv[1]), float(sys.argv[2])
times = []
for step in range(count):
    values = {f"m{i}": (step + i) / 7 for i in range(5)}
    began = time.perf_counter_ns()
    log(values, step)
    times.append(time.perf_counter_ns() - began)
    if pause:
        time.sleep(pause)
times.sort()
tell([times[count // 2] / 1e3, times[count * 99 // 100] / 1e3, times[-1] / 1e3])
close()
"""
MEMORY = """
import resource
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
marks = []
calls = int(sys.argv[1]) // 5
for step in range(calls + 1):
    if step in (calls // 10, calls):
        marks.append(rss())
    log({f"m{i}": (step + i) / 7 for i in range(5)}, step)
tell(marks[1] - marks[0])
os._exit(0)
"""
DYING = """
for step in range(1_000_000):
    log({f"m{i}": (step + i) / 7 for i in range(5)}, step)
    os.write(acknowledged, b".")
    time.sleep(0.0005)
"""
FIT = """
import keras, numpy as np
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(64 * 500, 64)).astype("float32")
layers = [keras.layers.Dense(512, "relu"), keras.layers.Dense(512, "relu"), keras.layers.Dense(1)]
model = keras.Sequential([keras.Input((64,)), *layers])
model.compile("adam", "mse")
def fit(*callbacks):
    began = time.perf_counter()
    model.fit(x, x[:, :1], batch_size=64, epochs=1, verbose=0, callbacks=list(callbacks), shuffle=False)
    return time.perf_counter() - began
class Idle(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass
"""
FITS = (
    FIT
    + """
import mlwrap, mlflow.keras
from mlwrap.keras import MetricsCallback
fit(); fit()
found = {"alone": [], "idle": [], "mlwrap": [], "MLflow": []}
with mlwrap.model_run("r", tracking_uri=STORE, experiment="bench"):
    callback = MetricsCallback(every=1)
    for round in range(int(sys.argv[1])):
        found["alone"].append(fit())
        found["idle"].append(fit(Idle()))
        found["mlwrap"].append(fit(callback))
mlflow.set_tracking_uri(STORE); mlflow.set_experiment("bench")
with mlflow.start_run():
    callback = mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1)
    fit_alone = fit()
    found["MLflow"] = [fit(callback), fit_alone]
tell(found)
"""
)
SYNC = """
import mlwrap
from mlflow import MlflowClient
from mlflow.entities import Metric
points = int(sys.argv[1])
def record(count):
    with mlwrap.model_run("r", tracking_uri=STORE, experiment="bench", delivery="off") as run:
        for step in range(count // 5):
            run.log_metrics({f"m{i}": (step + i) / 7 for i in range(5)}, step=step)
record(100)
mlwrap.sync()  # now there is a store and an experiment, and all is imported
record(points)
client = MlflowClient(STORE)
raw = client.create_run(client.get_experiment_by_name("bench").experiment_id)
client.log_batch(raw.info.run_id, [Metric("warm", 1.0, 1, 1)])
metrics = [Metric(f"m{i}", (step + i) / 7, 1_700_000_000_000 + step, step)
           for step in range(points // 5) for i in range(5)]
def by_hand():
    began = time.perf_counter()
    for start in range(0, points, 1000):
        client.log_batch(raw.info.run_id, metrics[start : start + 1000])
    return time.perf_counter() - began
def ours():
    began = time.perf_counter()
    mlwrap.sync()
    return time.perf_counter() - began
order = (by_hand, ours) if sys.argv[2] == "0" else (ours, by_hand)
taken = {call.__name__: call() for call in order}
tell([taken["ours"], taken["by_hand"]])
"""


def main() -> None:
    """Measure all, and print."""
    print(f"Python {platform.python_version()}, {_versions('keras', 'tensorflow-cpu')}", end="")
    print(f", {_versions(*dict.fromkeys(PACKAGES.values()))}")
    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
    )
    there = [name for name, package in PACKAGES.items() if package == "mlwrap" or _starts(name, package)]
    calls(there)
    kills(there)
    memory(there)
    fits()
    delivery()


def calls(names: list[str]) -> None:
    """P1: five numbers a call, as fast as it goes and at 2000 calls a second."""
    print("\n| P1: a call of 5 numbers, µs | p50 | p99 | max | p50, paced | p99, paced |")
    print("|---|---|---|---|---|---|", flush=True)
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            count = 300 if name in {"MLflow, sync", "dvclive"} else 2000
            fast = logged(name, CALLS, str(count), "0")
            paced = logged(name, CALLS, str(count), "0.0005")
            found[name].append([*fast, *paced[:2]])
    for name, rows in found.items():
        print(_row(name, *(f"{statistics.median(column):,.1f}" for column in zip(*rows, strict=True))))


def kills(names: list[str]) -> None:
    """P2: what a call had returned for, and is nowhere after ``kill -9``."""
    print(f"\n| P2: kill -9, {KILLS} times | calls that had returned | points lost | % |\n|---|---|---|---|")
    counted = {"mlwrap": _mlwrap_points, "MLflow, sync": _mlflow_points, "MLflow, async": _mlflow_points}
    counted |= {"dvclive": _dvclive_points, "tensorboardX": _tensorboard_points}
    for name in names:
        if name not in counted:
            print(_row(name, "-", "not counted: its files need its own tools", "-"))
            continue
        returned = lost = 0
        for number in range(KILLS):
            folder = Path(tempfile.mkdtemp(prefix="mlwrap-bench-"))
            acknowledged = killed(name, folder, 0.05 + 0.4 * number / KILLS)
            returned += acknowledged
            lost += max(0, 5 * acknowledged - counted[name](folder))
        print(_row(name, f"{returned:,}", f"{lost:,}", f"{lost / max(1, 5 * returned):.1%}"), flush=True)


def memory(names: list[str]) -> None:
    """A million points: what the training process takes more after the first tenth of them."""
    print(f"\n| memory, points {MEMORY_POINTS // 10:,} to {MEMORY_POINTS:,} | MB more |\n|---|---|")
    for name in names:
        if name in {"MLflow, sync", "dvclive"}:
            print(_row(name, "not measured: it would take half an hour"))
            continue
        print(_row(name, f"{logged(name, MEMORY, str(MEMORY_POINTS)):.1f}"), flush=True)


def fits() -> None:
    """P3: ``fit`` with a callback at every step."""
    found = python(FITS, str(ROUNDS), folder=Path(tempfile.mkdtemp(prefix="mlwrap-bench-")))
    alone = statistics.median(found["alone"])
    print(f"\n| P3: fit, {alone * 2:.2f} ms a step | slower by | target |\n|---|---|---|")
    for name, called in (("idle", "a callback that does nothing"), ("mlwrap", "mlwrap, every step")):
        slower = statistics.median(a / b - 1 for a, b in zip(found[name], found["alone"], strict=True))
        print(_row(called, f"{slower:+.1%}", "3 %" if name == "mlwrap" else ""))
    theirs, beside = found["MLflow"]
    print(_row("MLflow's own, every step, once", f"{theirs / beside - 1:+.1%}", ""), flush=True)


def delivery() -> None:
    """P17: ``mlwrap sync`` against ``log_batch`` by hand."""
    ratios, seconds = [], []
    for number in range(max(2, ROUNDS // 2)):
        folder = Path(tempfile.mkdtemp(prefix="mlwrap-bench-"))
        ours, by_hand = python(SYNC, str(POINTS), str(number % 2), folder=folder)
        ratios.append(by_hand / ours)
        seconds.append((ours, by_hand))
    print(
        f"\n| P17: {POINTS:,} points over sqlite | seconds | log_batch by hand | rate, of by hand | target |"
    )
    print("|---|---|---|---|---|")
    ours, by_hand = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(_row("mlwrap sync", f"{ours:.1f}", f"{by_hand:.1f}", f"{statistics.median(ratios):.2f}", "0.9"))


def logged(name: str, source: str, *arguments: str) -> Any:
    """What a program tells that logs with ``name``, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="mlwrap-bench-"))
    return python(LOGGERS[name] + source, *arguments, folder=folder)


def python(source: str, *arguments: str, folder: Path) -> Any:
    """What a program tells."""
    command = [sys.executable, "-c", _prepared(source), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(TOLD)]
    if done.returncode != 0 or not told:
        raise SystemExit(f"a program failed:\n{source}\n{done.stderr[-3000:]}")
    return json.loads(told[-1].removeprefix(TOLD))


def killed(name: str, folder: Path, after: float) -> int:
    """Kill a program that logs with ``name``; gives how many of its calls had returned."""
    read, write = os.pipe()
    source = LOGGERS[name] + f"acknowledged = {write}\n" + DYING
    process = subprocess.Popen(
        [sys.executable, "-c", _prepared(source)],
        cwd=folder,
        env=_environment(folder),
        pass_fds=[write],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    returned = len(os.read(read, 1))  # it has begun
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while data := os.read(read, 1 << 16):
        returned += len(data)
    os.close(read)
    time.sleep(3 if name.startswith("mlwrap") else 1)  # for what others of its processes still do
    return returned


def _prepared(source: str) -> str:
    return HEAD + source


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "STORE": f"sqlite:///{folder / 'mlflow.db'}",
        "HOME": str(folder),
        "MLWRAP_SPOOL": str(folder / "spool"),
        "MLWRAP_QUIET": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_ERROR_REPORTING": "false",
        "DVC_NO_ANALYTICS": "1",
        "TRACKIO_DIR": str(folder / "trackio"),
        "HF_HUB_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _mlwrap_points(folder: Path) -> int:
    """In MLflow, and in the journal if that is not delivered whole yet."""
    journals = list((folder / "spool").glob("*/journal.jsonl"))
    waiting = sum(
        len(record.values) for path in journals for record, _ in read(path) if isinstance(record, Metrics)
    )
    return waiting or _mlflow_points(folder)


def _mlflow_points(folder: Path) -> int:
    with sqlite3.connect(folder / "mlflow.db") as store:
        return store.execute("select count(*) from metrics").fetchone()[0]


def _dvclive_points(folder: Path) -> int:
    files = (folder / "dvclive").rglob("*.tsv")
    return sum(len(file.read_text().splitlines()) - 1 for file in files)


def _tensorboard_points(folder: Path) -> int:
    return sum(len(record.values) for record in savers.folder_metrics(folder / "tb"))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _starts(name: str, package: str) -> bool:
    """Whether a rival is here, and works; else it is named."""
    if importlib.util.find_spec(package) is None:
        print(f"* {name} is not installed, and not measured")
        return False
    try:
        logged(name, CALLS, "2", "0")
    except SystemExit as error:
        print(f"* {name} does not work here, and is not measured: {str(error).strip().splitlines()[-1]}")
        return False
    return True


def _versions(*packages: str) -> str:
    return ", ".join(f"{name} {_version(name)}" for name in packages)


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "-"


if __name__ == "__main__":
    main()
