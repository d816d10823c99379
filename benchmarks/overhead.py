"""P10, P15 and P16: a small call, the import, and what is switched off; and what the sender takes for it all."""

from __future__ import annotations

import json

from harness import NOTHING, OURS, TIMED, Server, against, argument, folder, head, interleaved, row, time_text

REPEATS = argument(1, 3)
CALL = """
import json, os, sys
stores = json.loads(sys.argv[1]) | {"sqlite": os.environ["STORE"]}
found = {}
"""
TRACKED = """
import mlwrap
@mlwrap.tracked_training(experiment="bench"OPTIONS)
def train(*, units=16, rate=0.1, epochs=3):
    return {"loss": 0.1, "accuracy": 0.9}
for store, uri in stores.items():
    mlwrap.configure(tracking_uri=uri)
    found[store] = timed(train, 20)
print(json.dumps(found), flush=True)
"""
CALLS = {
    OURS: TRACKED.replace("OPTIONS", ""),
    "not waited for": TRACKED.replace("OPTIONS", ", wait=False"),
    "by hand": """
import mlflow
def train():
    with mlflow.start_run():
        mlflow.log_params({"units": 16, "rate": 0.1, "epochs": 3})
        mlflow.log_metrics({"loss": 0.1, "accuracy": 0.9})
for store, uri in stores.items():
    mlflow.set_tracking_uri(uri); mlflow.set_experiment("bench")
    found[store] = timed(train, 20)
print(json.dumps(found))
""",
    "client": """
import mlflow
from mlflow.entities import Metric, Param
params = [Param("units", "16"), Param("rate", "0.1"), Param("epochs", "3")]
def three_calls():
    run_id = client.create_run(experiment, run_name="train").info.run_id
    now = int(time.time() * 1000)
    client.log_batch(run_id, [Metric("loss", 0.1, now, 0), Metric("accuracy", 0.9, now, 0)], params)
    client.set_terminated(run_id)
for store, uri in stores.items():
    client = mlflow.MlflowClient(uri)
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.set_experiment("bench").experiment_id
    found[store] = timed(three_calls, 20)
print(json.dumps(found))
""",
}
IMPORTS = {
    name: f"""
import json, subprocess, sys, time
began = time.perf_counter()
for _ in range(5):
    subprocess.run([sys.executable, "-c", {code!r}])
print(json.dumps({{"seconds": (time.perf_counter() - began) / 5}}))
"""
    for name, code in ((OURS, "import mlwrap"), ("pass", "pass"), ("mlflow", "import mlflow"))
}
DISABLED = """
import json, timeit, mlwrap
def train(a, *, b=1): return a
tracked = mlwrap.tracked_training(train)
best = lambda f: min(timeit.repeat(lambda: f(1), number=1000, repeat=200)) / 1000
print(json.dumps({"tracked": best(tracked), "plain": best(train)}))
"""
FIRST = {
    OURS: """
import time
began = time.perf_counter()
import json, os, socket, psutil, mlwrap
with mlwrap.model_run("first", tracking_uri=os.environ["STORE"], experiment="bench") as run:
    run.log_metric("loss", 0.1)
    opened = time.perf_counter()
    line = run._recorder.line._socket  # the sender's first word: MLflow is imported there
    line.settimeout(60)
    line.recv(1, socket.MSG_PEEK)
    ready = time.perf_counter()
whole = time.perf_counter()
me = psutil.Process()
sender, = me.children()
print(json.dumps({"opened": opened - began, "ready": ready - began, "whole": whole - began,
                  "mine": me.memory_info().rss / 1e6, "sender": sender.memory_info().rss / 1e6}))
""",
    "by hand": """
import time
began = time.perf_counter()
import json, os, psutil, mlflow
mlflow.set_tracking_uri(os.environ["STORE"]); mlflow.set_experiment("bench")
with mlflow.start_run():
    mlflow.log_metric("loss", 0.1)
    opened = time.perf_counter()
whole = time.perf_counter()
print(json.dumps({"opened": opened - began, "whole": whole - began, "mine": psutil.Process().memory_info().rss / 1e6}))
""",
}


def main() -> None:
    """Measure all, and print."""
    with folder() as here:
        head(
            "What it costs where it does little",
            "A small call is a whole run with three parameters and two metrics and no model, warm; with mlwrap it "
            "returns when MLflow has it, and with `wait=False` when it is on the disk. Then the first run of a process, "
            "with the imports; and what the sender, which is a process of its own, takes for the gain elsewhere.",
        )
        with Server(here) as one, Server(here, None) as four:
            calls({"HTTP, one worker": one.uri, "HTTP, default server": four.uri})
        imports()
        first()


def calls(servers: dict[str, str]) -> None:
    """P10: a whole small call."""
    sources = {name: TIMED + CALL + code for name, code in CALLS.items()}
    found = interleaved(REPEATS, sources, json.dumps(servers))
    unwaited = {**found, OURS: found["not waited for"]}
    for store in ("sqlite", *servers):
        what = f"a warm call, 3 params, 2 metrics, {store}"
        shown = store != "HTTP, default server"
        short = f"a small tracked call, {store}: MLflow by hand" if shown else ""
        against("P10", what, found, "by hand", key=store, called="MLflow by hand", most=0.8, short=short)
        short = f"the same with wait=False, {store}: MLflow by hand" if shown else ""
        what = f"the same with `wait=False`, {store}"
        against("P10", what, unwaited, "by hand", key=store, called="MLflow by hand", most=0.05, short=short)
        what = f"what a warm call does in MLflow, which no delivery can leave out, {store}"
        called = "`MlflowClient`: create_run, log_batch and set_terminated alone"
        against("P10", what, found, "client", key=store, called=called)


def imports() -> None:
    """P15 and P16: what it costs where it does nothing."""
    found = interleaved(REPEATS, IMPORTS)
    if not any("failed" in each for each in found.values()):
        seconds = {name: each["seconds"] for name, each in found.items()}
        own, theirs = seconds[OURS] - seconds["pass"], seconds["mlflow"] - seconds["pass"]
        cells = (
            f"+{own * 1e3:.0f} ms",
            f"`import mlflow` +{theirs * 1e3:.0f} ms",
            f"{own / theirs:.3g}",
            "≤ +60 ms",
        )
        short = "the import: import mlflow"
        what = "`import mlwrap`, over `python -c pass`"
        row("P15", what, *cells, reached=own <= 0.06, factor=own / theirs, short=short)
    else:
        row(
            "P15",
            "`import mlwrap`, over `python -c pass`",
            "failed",
            NOTHING,
            NOTHING,
            "≤ +60 ms",
            reached=False,
        )
    off = interleaved(REPEATS, {OURS: DISABLED}, MLWRAP_DISABLED="1")[OURS]
    cost = (off["tracked"] - off["plain"]) * 1e6 if "tracked" in off else float("inf")
    told = f"the function alone {off.get('plain', 0) * 1e6:.2f} µs"
    row("P16", "a disabled decorator, a call", f"+{cost:.2f} µs", told, NOTHING, "≤ +2 µs", reached=cost <= 2)


def first() -> None:
    """A process's first run, and the sender."""
    found = interleaved(REPEATS, FIRST)
    ours, theirs = found[OURS], found["by hand"]
    begin = "the first run of a process, with the imports"
    against(
        "start",
        f"{begin}: until the first metric is logged",
        found,
        "by hand",
        key="opened",
        called="MLflow by hand",
    )
    against("start", f"{begin}: until it is closed", found, "by hand", key="whole", called="MLflow by hand")
    if "sender" in ours and "mine" in theirs:
        ready = time_text(ours["ready"])
        row("start", "the sender's first word, MLflow imported", ready, NOTHING, NOTHING, NOTHING)
        told = f"{ours['mine']:.0f} MB, and the sender {ours['sender']:.0f} MB"
        rival = f"{theirs['mine']:.0f} MB, MLflow imported in it"
        row("start", "memory of the training process, no TensorFlow", told, rival, NOTHING, NOTHING)


if __name__ == "__main__":
    main()
