"""P8: a model logged in a run that has 200,000 points already, against one in an empty run."""

from __future__ import annotations

from harness import NOTHING, OURS, argument, folder, head, interleaved, row, time_text

REPEATS = argument(1, 2)
POINTS = argument(2, 200_000)
PREPARED = """
import json, os, sqlite3, sys, time
import keras, mlflow, mlwrap
from mlflow.entities import Metric
STORE, points = os.environ["STORE"], int(sys.argv[1])
small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
mlflow.set_tracking_uri(STORE); mlflow.set_experiment("bench")
client = mlflow.MlflowClient()
names = [f"m{i}" for i in range(10)]
def another():
    "A run that is filled where ours is to be empty: what was written just before is the same then."
    return client.create_run(client.get_experiment_by_name("bench").experiment_id).info.run_id
def fill(run_id):
    "MLflow logs the last point of each metric; what came before goes straight into its table: it takes a minute less."
    last = points // len(names)
    client.log_batch(run_id, [Metric(name, last, last, last) for name in names])
    with sqlite3.connect(STORE.removeprefix("sqlite:///")) as store:
        rows = ((n, float(s), s, run_id, s, 0) for n in names for s in range(last))
        store.executemany("insert into metrics (key, value, timestamp, run_uuid, step, is_nan) values (?,?,?,?,?,?)", rows)
"""
MAKE = {
    OURS: """
def log(full):
    with mlwrap.model_run("r", tracking_uri=STORE, experiment="bench") as run:
        own = delivered(run.key)
        fill(own if full else another())
        began = time.perf_counter()
        run.log_model(small)
    return time.perf_counter() - began
def delivered(key):
    "The run's id, once the sender has made it."
    experiment = client.get_experiment_by_name("bench").experiment_id
    while not (found := client.search_runs([experiment], f"tags.`mlwrap.key` = '{key}'")):
        time.sleep(0.05)
    return found[0].info.run_id
""",
    "mlflow": """
def log(full):
    with mlflow.start_run() as run:
        fill(run.info.run_id if full else another())
        began = time.perf_counter()
        mlflow.keras.log_model(small, name="model", pip_requirements=["keras"])
    return time.perf_counter() - began
""",
}
TIMED = """
log(False)
empty, full = zip(*((log(False), log(True)) for _ in range(5)))
print(json.dumps({"empty": empty, "full": full}))
"""


def main() -> None:
    """Measure, and print."""
    with folder():
        head(
            "A model in a long run",
            f"{POINTS:,} points of ten metrics are written before: into the run, or into another; over sqlite.",
        )
        found = interleaved(REPEATS, {n: PREPARED + code + TIMED for n, code in MAKE.items()}, str(POINTS))
        factors = {n: each["full"] / each["empty"] for n, each in found.items() if "full" in each}
        texts = {
            name: f"{factors[name]:.2f} ({time_text(each['full'])} over {time_text(each['empty'])})"
            if name in factors
            else f"failed: {each['failed']}"
            for name, each in found.items()
        }
        reached = OURS in factors and factors[OURS] <= 1.1
        what = f"a model in a run of {POINTS:,} points, over one in an empty run"
        both = len(factors) == 2
        ratio = f"{factors[OURS] / factors['mlflow']:.3g}" if both else NOTHING
        named = "`mlflow.keras.log_model`, requirements given"
        row("P8", what, texts[OURS], f"{named} {texts['mlflow']}", ratio, "≤1.1", reached=reached)


if __name__ == "__main__":
    main()
