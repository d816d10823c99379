"""P17: the command ``mlwrap sync`` against a script that logs the same points with ``log_batch``."""

from __future__ import annotations

from harness import OURS, against, argument, folder, head, interleaved

REPEATS = argument(1, 3)
POINTS = argument(2, 200_000)
TIMED = """
import json, os, subprocess, sys, time
points = sys.argv[1]
def run(*command):
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
"""
SCRIPTS = {
    OURS: """
run("-c", '''
import os, sys, mlwrap
with mlwrap.model_run("r", tracking_uri=os.environ["STORE"], experiment="bench", delivery="off") as run:
    for step in range(int(sys.argv[1]) // 5):
        run.log_metrics({f"m{i}": (step + i) / 7 for i in range(5)}, step=step)
''', points)
print(json.dumps({"seconds": run("-m", "mlwrap", "sync")}))
""",
    "by hand": """
print(json.dumps({"seconds": run("-c", '''
import os, sys
from mlflow import MlflowClient
from mlflow.entities import Metric
points = int(sys.argv[1])
metrics = [Metric(f"m{i}", (step + i) / 7, 1_700_000_000_000 + step, step)
           for step in range(points // 5) for i in range(5)]
client = MlflowClient(os.environ["STORE"])
run_id = client.create_run(client.create_experiment("bench"), run_name="r").info.run_id
for start in range(0, points, 1000):
    client.log_batch(run_id, metrics[start : start + 1000])
client.set_terminated(run_id)
''', points)}))
""",
}


def main() -> None:
    """Measure, and print."""
    with folder():
        head(
            "Delivery of many points",
            "The same points, 1000 a request, over sqlite; each a process from its start to its end, MLflow's import "
            "with it. `mlwrap sync` reads them from the journal, and keeps account of how far it is. 0.9 times the "
            "rate is 1.11 times the time.",
        )
        found = interleaved(REPEATS, {name: TIMED + code for name, code in SCRIPTS.items()}, str(POINTS))
        against(
            "P17",
            f"`mlwrap sync` of {POINTS:,} points, over sqlite",
            found,
            "by hand",
            called="a script with `log_batch`",
            most=1.11,
            short=f"`mlwrap sync` of {POINTS // 1000}k points: `log_batch`",
        )


if __name__ == "__main__":
    main()
