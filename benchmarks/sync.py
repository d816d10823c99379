"""P17: ``mlwrap sync`` against ``log_batch`` of the same points by hand."""

from __future__ import annotations

from harness import OURS, against, argument, folder, head, interleaved

REPEATS = argument(1, 2)
POINTS = argument(2, 200_000)
SYNC = """
import json, os, sys, time
import mlwrap
from mlflow import MlflowClient
from mlflow.entities import Metric
STORE, points = os.environ["STORE"], int(sys.argv[1])
def record(count):
    with mlwrap.model_run("r", tracking_uri=STORE, experiment="bench", delivery="off") as run:
        for step in range(count // 5):
            run.log_metrics({f"m{i}": (step + i) / 7 for i in range(5)}, step=step)
record(100)
mlwrap.sync()  # now there is an experiment, and all is imported
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
taken = {call.__name__: call() for call in ORDER}
print(json.dumps(taken))
"""


def main() -> None:
    """Measure, and print."""
    with folder():
        head(
            "Delivery of many points",
            "The same points, 1000 a request, over sqlite; in one process each, half of them with the one first "
            "and half with the other. `mlwrap sync` reads them from the journal, and keeps account of how far it is. "
            "0.9 times the rate is 1.11 times the time.",
        )
        orders = {order: SYNC.replace("ORDER", order) for order in ("(ours, by_hand)", "(by_hand, ours)")}
        each = interleaved(REPEATS, orders, str(POINTS))
        found = {}
        for name, key in ((OURS, "ours"), ("by hand", "by_hand")):
            failed = [some["failed"] for some in each.values() if "failed" in some]
            times = [some[key] for some in each.values() if key in some]
            found[name] = {"failed": failed[0]} if failed else {"seconds": sum(times) / len(times)}
        against(
            "P17",
            f"`mlwrap sync` of {POINTS:,} points, over sqlite",
            found,
            "by hand",
            called="`log_batch` by hand",
            most=1.11,
            short=f"`mlwrap sync` of {POINTS // 1000}k points: `log_batch`",
        )


if __name__ == "__main__":
    main()
