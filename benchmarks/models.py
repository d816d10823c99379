"""P4 to P7: a model saved and logged, from 100 kB to 2 GB, over sqlite and over HTTP.

The second argument and those after it are the sizes in megabytes, 0 for the small one.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import psutil
from harness import NOTHING, OURS, Server, against, argument, folder, head, interleaved, row, say

REPEATS = argument(1, 3)
SIZES = [int(size) for size in sys.argv[2:]] or [0, 40, 400, 2000]
PREPARED = """
import json, os, shutil, sys, tempfile, time
import keras, numpy as np
megabytes, times, as_users = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "as users do"
stores = json.loads(sys.argv[4]) | {"sqlite": os.environ["STORE"]}
PARAMS = {"units": 16, "rate": 0.1, "epochs": 3}
small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
small.compile("adam", "mse")
small.fit(np.zeros((8, 8)), np.zeros((8, 1)), verbose=0)
size = int((megabytes * 1e6 / 4 / 20) ** 0.5)
dense = [keras.layers.Dense(size, kernel_initializer="ones") for _ in range(20 if megabytes else 0)]
model = keras.Sequential([keras.Input((size,)), *dense]) if megabytes else small
weights = sum(int(np.prod(w.shape)) * 4 for w in model.weights)
clock = time.perf_counter
def memory(name, process="self"):
    for line in open(f"/proc/{process}/status"):
        if line.startswith(name):
            return int(line.split()[1]) * 1024
class Watched:
    "How long a block takes, and how much more memory than before it the process has at its worst."
    def __enter__(self):
        open("/proc/self/clear_refs", "w").write("5")  # the worst so far is forgotten
        self.before, self.began = memory("VmRSS:"), clock()
        return self
    def __exit__(self, *_):
        self.seconds = clock() - self.began
        self.extra = (memory("VmHWM:") - self.before) / max(weights, 1)
found = {}
def settled():
    "The time, once a large model that was written before is on the disk: else whoever comes next waits for it."
    if megabytes:
        os.sync()
    return clock()
def note(name, store, seconds):
    found.setdefault(f"{name}, {store}", []).append(seconds)
def floor():
    made = tempfile.mkdtemp(dir=".")
    settled()
    with Watched() as watched:
        model.save(f"{made}/model.keras")
    shutil.rmtree(made)
    return watched
model = model if megabytes else small
if megabytes:
    floor()  # whoever writes first waits until a virtual machine has the memory for it
"""
MAKE = {
    OURS: """
import mlwrap, psutil
mlwrap.configure(experiment="bench", deadline=60)
@mlwrap.tracked_training
def train(*, units=16, rate=0.1, epochs=3):
    return small
for store, uri in stores.items():
    mlwrap.configure(tracking_uri=uri)
    for _ in range(4):
        train()  # each worker of the server has answered something then
    for _ in range(times):
        alone = floor()
        note("floor", store, alone.seconds)
        note("floor's extra", store, alone.extra)
        began = settled()
        if megabytes:
            with mlwrap.model_run("large", params=PARAMS) as run, Watched() as watched:
                run.log_model(model)
            assert run.models[0].status == "READY", run.models
            note("inside", store, watched.seconds)
            note("extra", store, watched.extra)
        else:
            train()
            assert train.last_run.models[0].status == "READY"
        note("whole", store, clock() - began)
sender, = psutil.Process().children()
found["sender's peak"] = memory("VmHWM:", sender.pid)
found["training's peak"] = memory("VmHWM:")
print(json.dumps(found))
""",
    "MLflow": """
import mlflow
pinned = [f"keras=={keras.__version__}"]
def in_run(log):
    def whole():
        with mlflow.start_run():
            mlflow.log_params(PARAMS)
            log()
    return whole
def recipe():
    made = tempfile.mkdtemp(dir=".")
    model.save(f"{made}/model.keras")
    mlflow.log_artifact(f"{made}/model.keras")
    shutil.rmtree(made)
ways = {
    "keras given": in_run(lambda: mlflow.keras.log_model(model, name="model", pip_requirements=pinned)),
    "tensorflow given": in_run(lambda: mlflow.tensorflow.log_model(model, name="model", pip_requirements=pinned)),
    "recipe": in_run(recipe),
}
as_users_do = {
    "keras": in_run(lambda: mlflow.keras.log_model(model, name="model")),
    "tensorflow": in_run(lambda: mlflow.tensorflow.log_model(model, name="model")),
}
model, whole_model = small, model
for store, uri in stores.items():
    mlflow.set_tracking_uri(uri); mlflow.set_experiment("bench")
    for _ in range(4):
        ways["keras given"]()  # warm, likewise
    model = whole_model
    for name, call in (as_users_do if as_users else ways).items():
        try:
            for _ in range(times):
                began = settled()
                call()
                note(name, store, clock() - began)
        except Exception as error:  # a rival that can't is told by its absence
            mlflow.end_run()
            print(f"{name}, {store}: {error!r}", file=sys.stderr)
    model = small
print(json.dumps(found))
""",
}
SAID = {
    "keras": "`mlflow.keras.log_model` as users call it",
    "tensorflow": "`mlflow.tensorflow.log_model` as users call it",
    "keras given": "`mlflow.keras.log_model`, requirements given",
    "tensorflow given": "`mlflow.tensorflow.log_model`, requirements given",
    "recipe": "by hand: save into a temporary folder, `log_artifact`, remove it",
    "floor": "`model.save` alone, nothing logged",
}


def main() -> None:
    """Measure all, and print."""
    with folder() as here:
        head(
            "Models",
            "Each is a whole run: it is opened, three parameters and the model are logged, it is closed, and with "
            "mlwrap the model is READY then. In each process a small model is logged first, so that all are warm; "
            "as users call it MLflow loads the model in a child process to find its requirements. "
            "`model.save` alone takes turns with mlwrap, in one process. "
            "Before a large one, those that were written before are on the disk. "
            "The larger models are twenty dense layers.",
        )
        with Server(here) as one, Server(here, None) as four:
            http = {"HTTP, one worker": one.uri, "HTTP, default server": four.uri}
            for size in SIZES:
                if enough_for(size):
                    measure(size, {} if size >= 1000 else dict(list(http.items())[: 1 if size >= 100 else 2]))


def enough_for(size: int) -> bool:
    """Whether memory and disk allow it: MLflow makes the zip in memory, and its child loads it once more."""
    memory, disk = psutil.virtual_memory().available / 1e6, shutil.disk_usage(Path.cwd()).free / 1e6
    if memory > 6 * size and disk > 12 * size:
        return True
    told = f"not measured: {memory / 1e3:.0f} GB of memory and {disk / 1e3:.0f} GB of disk are free"
    row("P6", f"{_named(size)} Keras model", told, NOTHING, NOTHING, NOTHING)
    return False


def measure(size: int, servers: dict[str, str]) -> None:
    """All rows of one size."""
    repeats, times = (1, 1) if size >= 1000 else (min(2, REPEATS), 3) if size else (REPEATS, 12)
    say(_named(size))
    sources = {name: PREPARED + source for name, source in MAKE.items()}
    found = interleaved(repeats, sources, str(size), str(times), "by hand", json.dumps(servers))
    if size < 1000 and "failed" not in found["MLflow"]:
        say("as users call it, once")
        theirs = {"MLflow": sources["MLflow"]}
        users = interleaved(1, theirs, str(size), "1", "as users do", json.dumps(servers))
        found["MLflow"] |= {way: taken for way, taken in users["MLflow"].items() if way != "failed"}
    for store in ("sqlite", *servers):
        each = _one_store(found, store)
        what = f"{_named(size)} Keras model, {store}"
        for way, said in SAID.items():
            if size >= 1000 and way in {"keras", "tensorflow"}:
                continue  # what is measured for the smaller ones would load it in a child process, too
            label, target = "", None
            if size == 0 and way in {"keras", "tensorflow"}:
                label, target = "P4", 0.02
            elif size == 0 and way == "keras given":
                label, target = "P5", 0.7
            elif size == 400 and way == "recipe" and store == "sqlite":
                label, target = "P7", 0.6
            shown = label and store != "HTTP, default server" and way != "tensorflow"
            against(
                label or ("P5" if size == 0 else "P7"),
                f"{what}: the whole run",
                each,
                way,
                key="whole",
                called=said,
                most=target,
                short=f"{_named(size)} model, {store}: {said.split(':')[0].replace('mlflow.', '')}"
                if shown
                else "",
            )
    if size:
        inside(size, _one_store(found, "sqlite"), found[OURS])


def inside(size: int, found: dict, ours: dict) -> None:
    """P6: time and memory in the training process."""
    target = 0.35 if size == 400 else None
    what = f"{_named(size)} Keras model, in the training process"
    short = f"{_named(size)} model, in the training process: model.save alone" if target else ""
    against("P6", what, found, "floor", key="inside", called=SAID["floor"], most=target, short=short)
    if "extra" in found[OURS] and "extra" in found["floor"]:
        ours_extra, theirs = found[OURS]["extra"], found["floor"]["extra"]
        reached = ours_extra <= 0.15 if target else None
        said = f"`model.save` {theirs:.2f}"
        row(
            "P6",
            f"{what}: extra memory / model",
            f"{ours_extra:.2f}",
            said,
            NOTHING,
            "≤0.15",
            reached=reached,
        )
    if "sender's peak" in ours:
        training, sender = ours["training's peak"] / 1e6, ours["sender's peak"] / 1e6
        told = f"training {training:,.0f} MB, sender {sender:,.0f} MB"
        row("P6", f"{_named(size)} Keras model: peak memory of each process", told, NOTHING, NOTHING, NOTHING)


def _one_store(found: dict, store: str) -> dict:
    """The numbers of one store, each of MLflow's ways by its name."""
    ours = found[OURS]
    keys = ("whole", "inside", "extra")
    each = {
        OURS: ours
        if "failed" in ours
        else {k: ours[f"{k}, {store}"] for k in keys if f"{k}, {store}" in ours}
    }
    for way in SAID:
        measured = ours if way == "floor" else found["MLflow"]  # the floor in the same process, by turns
        if "failed" in measured:
            each[way] = measured
        else:
            taken = measured.get(f"{way}, {store}")
            each[way] = {"failed": "no result"} if taken is None else {"whole": taken, "inside": taken}
    if (extra := ours.get(f"floor's extra, {store}")) is not None:
        each["floor"]["extra"] = extra
    return each


def _named(size: int) -> str:
    return f"{size} MB" if 0 < size < 1000 else f"{size / 1000:g} GB" if size else "100 kB"


if __name__ == "__main__":
    main()
