"""Models, measured: saved and logged, against MLflow as users call it and against the shortest code by hand.

``make bench`` runs it. Rivals run in processes of the same shape, in turns; times are medians.
"""

from __future__ import annotations

import sys

from harness import Server, folder, head, interleaved, row

REPEATS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
MEGABYTES = int(sys.argv[2]) if len(sys.argv) > 2 else 400
TIMED = """
import json, os, sys, threading, time
import keras, numpy as np
def timed(call, times):
    call()  # warm
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found
small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
small.compile("adam", "mse")
small.fit(np.zeros((8, 8)), np.zeros((8, 1)), verbose=0)
"""
SMALL = {
    "mlwrap": """
import mlwrap
@mlwrap.tracked_training(experiment="bench")
def train(*, units=16, rate=0.1, epochs=3):
    return small
print(json.dumps({"seconds": timed(train, 5)}))
""",
    "as users do": """
import mlflow
mlflow.set_experiment("bench")
def train():
    with mlflow.start_run():
        mlflow.log_params({"units": 16, "rate": 0.1, "epochs": 3})
        mlflow.keras.log_model(small, name="model")
train_once = [time.perf_counter(), train(), time.perf_counter()]
print(json.dumps({"seconds": [train_once[2] - train_once[0]]}))
""",
    "by hand": """
import mlflow
mlflow.set_experiment("bench")
def train():
    with mlflow.start_run():
        mlflow.log_params({"units": 16, "rate": 0.1, "epochs": 3})
        mlflow.keras.log_model(small, name="model", pip_requirements=[f"keras=={keras.__version__}"])
print(json.dumps({"seconds": timed(train, 5)}))
""",
}
CALL = {
    "mlwrap": """
import json, time, mlwrap
@mlwrap.tracked_training(experiment="bench")
def train(*, units=16, rate=0.1, epochs=3):
    return {"loss": 0.1, "accuracy": 0.9}
def timed(call, times):
    call()
    return [(time.perf_counter(), call(), time.perf_counter()) for _ in range(times)]
print(json.dumps({"seconds": [after - before for before, _, after in timed(train, 20)]}))
""",
    "by hand": """
import json, time, mlflow
mlflow.set_experiment("bench")
def train():
    with mlflow.start_run():
        mlflow.log_params({"units": 16, "rate": 0.1, "epochs": 3})
        mlflow.log_metrics({"loss": 0.1, "accuracy": 0.9})
def timed(call, times):
    call()
    return [(time.perf_counter(), call(), time.perf_counter()) for _ in range(times)]
print(json.dumps({"seconds": [after - before for before, _, after in timed(train, 20)]}))
""",
}
LARGE = {
    name: TIMED
    + """
import psutil, mlwrap, mlflow, tempfile, shutil
me = psutil.Process()
class Peak:
    def __enter__(self):
        self.on, self.base = True, me.memory_info().rss
        self.peak = self.base
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        self.began = time.perf_counter()
        return self
    def look(self):
        while self.on:
            self.peak = max(self.peak, me.memory_info().rss)
            time.sleep(0.003)
    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.began
        self.on = False
        self.thread.join()
        self.extra = self.peak - self.base
layers, size = 20, int((int(sys.argv[1]) * 1e6 / 4 / 20) ** 0.5)
large = keras.Sequential([keras.Input((size,)), *(keras.layers.Dense(size) for _ in range(layers))])
bytes_ = sum(int(np.prod(w.shape)) * 4 for w in large.weights)
"""
    + body
    for name, body in {
        "mlwrap": """
with mlwrap.model_run("warm", experiment="bench") as run:
    run.log_model(small)
began = time.perf_counter()
with mlwrap.model_run("large", experiment="bench") as run:
    with Peak() as peak:
        run.log_model(large)
assert run.models[0].status == "READY", run.models
ready = time.perf_counter() - began
print(json.dumps({"seconds": peak.seconds, "extra": peak.extra / bytes_, "ready": ready}))
""",
        "by hand": """
mlflow.set_experiment("bench")
began = time.perf_counter()
with mlflow.start_run():
    made = tempfile.mkdtemp()
    with Peak() as peak:
        large.save(f"{made}/model.keras")
    mlflow.log_artifacts(made, "model")
    shutil.rmtree(made)
ready = time.perf_counter() - began
print(json.dumps({"seconds": peak.seconds, "extra": peak.extra / bytes_, "ready": ready}))
""",
    }.items()
}
HISTORY = {
    name: TIMED
    + """
import mlflow, mlwrap
from mlflow.entities import Metric
client = mlflow.MlflowClient()
mlflow.set_experiment("bench")
def fill(run_id):
    for name in range(10):
        for start in range(0, 20_000, 1000):
            client.log_batch(run_id, [Metric(f"m{name}", s, s, s) for s in range(start, start + 1000)])
"""
    + body
    for name, body in {
        "mlwrap": """
def log(points):
    with mlwrap.model_run("r", experiment="bench") as run:
        if points:
            fill(run.run_id)
        began = time.perf_counter()
        run.log_model(small)
    return time.perf_counter() - began
log(0)
print(json.dumps({"empty": log(0), "full": log(200_000)}))
""",
        "mlflow": """
def log(points):
    with mlflow.start_run() as run:
        if points:
            fill(run.info.run_id)
        began = time.perf_counter()
        mlflow.keras.log_model(small, name="model", pip_requirements=["keras"])
    return time.perf_counter() - began
log(0)
print(json.dumps({"empty": log(0), "full": log(200_000)}))
""",
    }.items()
}
FILES = {
    name: """
import json, sys, time, pathlib, tempfile, mlflow, mlwrap
from mlwrap.savers import Saved
made = pathlib.Path(tempfile.mkdtemp())
for number in range(200):
    (made / f"{number}.bin").write_bytes(bytes(10_000))
"""
    + body
    for name, body in {
        "mlwrap": """
import shutil
class Files(str): pass
class Saver:
    name, format, default_name, frameworks = "files", 1, "files", ("sys",)
    def matches(self, value): return isinstance(value, Files)
    def metrics(self, value): return ()
    def save(self, value, folder, options):
        shutil.copytree(value, folder / "saved_model")
        return Saved()
    def load(self, folder, details, *, into=None, trust=False): return folder
mlwrap.register_saver(Saver())
def log():
    with mlwrap.model_run("r", experiment="bench") as run:
        began = time.perf_counter()
        run.log_model(Files(str(made)))
    assert run.models[0].status == "READY"
    return time.perf_counter() - began
log()
print(json.dumps({"seconds": log()}))
""",
        "mlflow": """
client = mlflow.MlflowClient()
mlflow.set_experiment("bench")
def log():
    with mlflow.start_run() as run:
        began = time.perf_counter()
        client.log_artifacts(run.info.run_id, str(made), "saved_model")
    return time.perf_counter() - began
log()
print(json.dumps({"seconds": log()}))
""",
    }.items()
}
IMPORTS = {
    name: f"""
import json, subprocess, sys, time
began = time.perf_counter()
for _ in range(10):
    subprocess.run([sys.executable, "-c", {code!r}])
print(json.dumps({{"seconds": (time.perf_counter() - began) / 10}}))
"""
    for name, code in (("mlwrap", "import mlwrap"), ("pass", "pass"), ("mlflow", "import mlflow"))
}
DISABLED = """
import json, timeit, mlwrap
def train(a, *, b=1): return a
tracked = mlwrap.tracked_training(train)
best = lambda f: min(timeit.repeat(lambda: f(1), number=1000, repeat=30)) * 1000
print(json.dumps({"tracked": best(tracked), "plain": best(train)}))
"""


def main() -> None:
    """Measure all, and print."""
    with folder() as here, Server(here) as server:
        stores = {"sqlite": f"sqlite:///{here / 'local.db'}", "HTTP, one worker": server.uri}
        head("Models")
        small(stores)
        large(stores["sqlite"])
        history(stores["sqlite"])
        calls(stores)
        found = interleaved(REPEATS, FILES, MLFLOW_TRACKING_URI=server.uri)
        against("P18", "200 files over HTTP", "≤0.33", **_pair(found, "mlflow", "`log_artifacts`"))
        imports()


def small(stores: dict[str, str]) -> None:
    """P4 and P5: a model of 100 kB, saved and logged."""
    sources = {name: TIMED + source for name, source in SMALL.items()}
    for store, uri in stores.items():
        found = interleaved(REPEATS, sources, MLFLOW_TRACKING_URI=uri)
        users = _pair(found, "as users do", "`log_model` as users call it")
        against("P4", f"small Keras model, {store}", "≤0.02", **users)
        hand = _pair(found, "by hand", "`log_model`, requirements given")
        against("P5", f"the same, {store}", "≤0.7", **hand)


def large(uri: str) -> None:
    """P6 and P7: a model of hundreds of megabytes, in twenty layers."""
    found = interleaved(REPEATS, LARGE, str(MEGABYTES), MLFLOW_TRACKING_URI=uri)
    what = f"{MEGABYTES} MB Keras model"
    alone = _pair(found, "by hand", '`model.save("x.keras")`')
    against("P6", f"{what}, time in the training process", "≤0.35", **alone)
    ours, theirs = found["mlwrap"]["extra"], found["by hand"]["extra"]
    row("P6", f"{what}, extra memory / model", f"{ours:.2f}", f"`model.save` {theirs:.2f}", "-", "≤0.15")
    whole = _pair(found, "by hand", "save and `log_artifacts`", "ready")
    against("P7", f"{what}, start to READY", "≤0.6", **whole)


def history(uri: str) -> None:
    """P8: a model in a run that has 200k points already."""
    found = interleaved(REPEATS, HISTORY, MLFLOW_TRACKING_URI=uri)
    ours, theirs = (each["full"] / each["empty"] for each in found.values())
    what = "a model in a run of 200k points, over one in an empty run"
    row("P8", what, f"{ours:.2f}", f"mlflow {theirs:.2f}", "-", "≤1.1")


def calls(stores: dict[str, str]) -> None:
    """P10: a whole small call."""
    for store, uri in stores.items():
        found = interleaved(REPEATS, CALL, MLFLOW_TRACKING_URI=uri)
        what = f"a warm call, 3 params, 2 metrics, {store}"
        against("P10", what, "≤0.8", **_pair(found, "by hand", "by hand"))


def imports() -> None:
    """P15 and P16: what it costs where it does nothing."""
    found = {name: each["seconds"] for name, each in interleaved(REPEATS, IMPORTS).items()}
    own, theirs = found["mlwrap"] - found["pass"], found["mlflow"] - found["pass"]
    what = "`import mlwrap`, over `python -c pass`"
    row(
        "P15",
        what,
        f"+{own * 1e3:.0f} ms",
        f"mlflow +{theirs * 1e3:.0f} ms",
        f"{own / theirs:.3f}",
        "≤ +60 ms",
    )
    off = interleaved(REPEATS, {"mlwrap": DISABLED}, MLWRAP_DISABLED="1")["mlwrap"]
    cost, plain = off["tracked"] - off["plain"], off["plain"]
    row("P16", "a disabled decorator, a call", f"+{cost:.2f} µs", f"none {plain:.2f} µs", "-", "≤ +2 µs")


def _pair(found: dict, rival: str, called: str, key: str = "seconds") -> dict:
    return {"ours": found["mlwrap"][key], "theirs": found[rival][key], "called": called}


def against(number: str, what: str, target: str, *, ours: float, theirs: float, called: str) -> None:
    """A row of two times."""
    row(number, what, _seconds(ours), f"{called} {_seconds(theirs)}", f"{ours / theirs:.3f}", target)


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


if __name__ == "__main__":
    main()
