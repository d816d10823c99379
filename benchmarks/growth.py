"""How cost grows: a call, delivery, the start, a model, and the memory of both processes."""

from __future__ import annotations

import json

from harness import NOTHING, OURS, Failed, argument, folder, head, interleaved, row, say, series

REPEATS = argument(1, 2)
MARKS = (3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
MOST = argument(2, 400_000)  # points to deliver
POINTS = (MOST // 40, MOST // 10, MOST // 4, MOST)
FOLDERS = (0, 10, 100, 500, 2000)
MEGABYTES = (4, 16, 64, 256)
CALL = """
import json, os, resource, sys, time
import mlwrap, psutil
marks = json.loads(sys.argv[1])
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
found = {}
run = mlwrap.model_run("r", tracking_uri=os.environ["STORE"], experiment="bench").__enter__()
done = 0
for mark in marks:
    times = []
    while done < mark:
        values = {f"m{i}": (done + i) / 7 for i in range(5)}
        began = time.perf_counter_ns()
        run.log_metrics(values, step=done // 5)
        if mark - done <= 2_500:  # the last five hundred calls
            times.append(time.perf_counter_ns() - began)
        done += 5
    times.sort()
    found[f"time {mark}"], found[f"memory {mark}"] = times[len(times) // 2] / 1e3, rss()
print(json.dumps(found), flush=True)
for child in psutil.Process().children():
    child.kill()  # it has two minutes' work before it
os._exit(0)
"""
DELIVERED = """
import json, os, resource, sys, time
import mlwrap
STORE = os.environ["STORE"]
def record(count):
    with mlwrap.model_run("r", tracking_uri=STORE, experiment="bench", delivery="off") as run:
        for step in range(count // 5):
            run.log_metrics({f"m{i}": (step + i) / 7 for i in range(5)}, step=step)
record(5000)
mlwrap.sync()
record(int(sys.argv[1]))
began = time.perf_counter()
mlwrap.sync()
print(json.dumps({"seconds": time.perf_counter() - began,
                  "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
"""
START = """
import json, os, shutil, sys, time
began = time.perf_counter()
import mlwrap, pathlib, uuid
STORE, spool = os.environ["STORE"], pathlib.Path(os.environ["MLWRAP_SPOOL"])
imported = time.perf_counter()
with mlwrap.model_run("r", tracking_uri=STORE, experiment="bench", delivery="off") as run:
    run.log_metric("loss", 0.5)
first, = (path for path in spool.iterdir() if path.is_dir())
for _ in range(int(sys.argv[1])):
    key = uuid.uuid4().hex
    shutil.copytree(first, spool / key)
    journal = spool / key / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(first.name.encode(), key.encode()))
def opened():
    began = time.perf_counter()
    context = mlwrap.model_run("r", tracking_uri=STORE, experiment="bench")
    run = context.__enter__()
    run.log_metric("loss", 0.5)
    taken = time.perf_counter() - began
    context.__exit__(None, None, None)
    return taken, time.perf_counter() - began
cold, whole = opened()
warm = sorted(opened() for _ in range(21))[10]
print(json.dumps({"cold": cold * 1e3, "whole": whole * 1e3, "warm": warm[0] * 1e3, "warm whole": warm[1] * 1e3}))
"""
MODEL = """
import json, os, sys, time
import keras, mlwrap
megabytes = int(sys.argv[1])
size = int((megabytes * 1e6 / 4 / 4) ** 0.5)
model = keras.Sequential([keras.Input((size,)), *(keras.layers.Dense(size, kernel_initializer="ones") for _ in range(4))])
mlwrap.configure(tracking_uri=os.environ["STORE"], experiment="bench", deadline=60)
found = {"inside": [], "whole": []}
for number in range(4):
    began = time.perf_counter()
    with mlwrap.model_run("r") as run:
        run.log_model(model)
        found["inside"].append(time.perf_counter() - began)
    found["whole"].append(time.perf_counter() - began)
print(json.dumps({name: times[1:] for name, times in found.items()}))
"""


def main() -> None:
    """Measure all, and print."""
    with folder():
        head(
            "How cost grows",
            "The exponent is the slope of a line through the points with both axes logarithmic: 0 is flat, 1 is "
            "linear.",
        )
        for measure in (calls, delivery, starts, models):
            try:
                measure()
            except Failed as error:
                row("growth", f"{measure.__name__}: failed: {error}", *[NOTHING] * 4, reached=False)


def calls() -> None:
    """A call, and the training process's memory, against the points that were logged before."""
    found = _found(interleaved(REPEATS, {OURS: CALL}, json.dumps(MARKS)))
    for what, said, unit in (
        ("time", "a call to log 5 numbers", "µs"),
        ("memory", "memory of the training process", "MB"),
    ):
        lines = {"mlwrap": [(mark, found[f"{what} {mark}"]) for mark in MARKS]}
        series(said, "points logged before", unit, lines, 0.1)


def delivery() -> None:
    """Delivery, and its memory, against the points."""
    times, memory = [], []
    for points in POINTS:
        say(f"delivery of {points:,} points")
        found = _found(interleaved(1, {OURS: DELIVERED}, str(points)))
        times.append((points, found["seconds"]))
        memory.append((points, found["memory"]))
    series("delivery", "points", "s", {"mlwrap sync, sqlite": times}, 1.05)
    lines = {"mlwrap sync, sqlite": memory}
    series("peak memory of the process that delivers", "points", "MB", lines, 0.1)


def starts() -> None:
    """The start of a run against the folders that wait in the spool."""
    said = {
        "cold": "the first run, until its first metric is logged",
        "warm": "a run, until its first metric is logged",
        "warm whole": "a whole run, until it is in MLflow",
    }
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in said.values()}
    for folders in FOLDERS:
        say(f"start with {folders} folders")
        found = _found(interleaved(REPEATS, {OURS: START}, str(folders)))
        for key, name in said.items():
            lines[name].append((folders + 1, found[key]))
    series("the start of a run", "run folders in the spool, its own among them", "ms", lines, 0.1)


def models() -> None:
    """A model's time against its size."""
    lines: dict[str, list[tuple[float, float]]] = {"in the training process": [], "the whole run, sqlite": []}
    for megabytes in MEGABYTES:
        say(f"a model of {megabytes} MB")
        found = _found(interleaved(REPEATS, {OURS: MODEL}, str(megabytes)))
        for name, key in zip(lines, ("inside", "whole"), strict=True):
            lines[name].append((megabytes, found[key]))
    series("a Keras model saved and logged", "MB", "s", lines, 1.05)


def _found(found: dict) -> dict:
    """Ours.

    Raises:
        Failed: It did.
    """
    if "failed" in found[OURS]:
        raise Failed(found[OURS]["failed"])
    return found[OURS]


if __name__ == "__main__":
    main()
