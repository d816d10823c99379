"""What the machine does while a run lasts, as the sender writes it down for those who ask."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from tests.faults.conftest import senders, until
from tests.spools import waiting_in

CPU = "system/cpu_utilization_percentage"
FAST = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1"}
TRAINING = """
with mlwrap.model_run("r"{}) as run:
    run.log_metric("loss", 1.0, step=0)
    print("ready", flush=True)
    sys.stdin.readline()
"""
ASKING = TRAINING.format(", system_metrics=True")


def the_run() -> Run | None:
    """The one run that there is, if it is there yet."""
    client = mlflow.MlflowClient()
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return found[0] if found else None


def system_names() -> set[str]:
    """Names of the metrics that are the machine's."""
    run = the_run()
    return {name for name in run.data.metrics if name.startswith("system/")} if run else set()


def steps(name: str = CPU) -> list[int]:
    """The steps of a metric's points, in their order."""
    run = the_run()
    return [p.step for p in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)] if run else []


def go_on(process) -> None:
    """Let the training end, and see that it ended well."""
    _, err = process.communicate("\n", timeout=120)
    assert process.returncode == 0, err


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        (ASKING, {}),
        (
            TRAINING.format(""),
            {
                "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
                "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "3",
                "MLFLOW_SYSTEM_METRICS_NODE_ID": "node 1",
            },
        ),
    ],
    ids=["mlwrap", "MLflow"],
)
def test_who_asks_has_them(script, store: str, spool: Path, source: str, variables: dict[str, str]):
    """While the training says nothing itself: under MLflow's names, each at a step of its own."""
    process = script(source, **FAST, **variables)
    node = "node 1/" if variables else ""
    name = f"system/{node}cpu_utilization_percentage"
    until(lambda: len(steps(name)) >= 3)
    assert system_names() >= {
        name,
        f"system/{node}system_memory_usage_megabytes",
        f"system/{node}disk_usage_percentage",
    }
    go_on(process)
    assert the_run().info.status == "FINISHED"
    found = steps(name)
    assert found == sorted(set(found))
    assert steps("loss") == [0]
    until(lambda: not senders(spool))
    assert waiting_in(spool) == []


def test_who_does_not_ask_has_none(script, store: str):
    """Whatever else is set."""
    process = script(TRAINING.format(""), **FAST)
    until(lambda: steps("loss") == [0])
    go_on(process)
    assert not system_names()


def test_a_run_that_ends_at_once(script, store: str, spool: Path):
    """It has none, and nothing is left."""
    process = script("with mlwrap.model_run('r', system_metrics=True):\n    pass\n", **FAST)
    go_on(process)
    assert the_run().info.status == "FINISHED"
    until(lambda: not senders(spool))
    assert waiting_in(spool) == []


def test_the_training_process_is_killed(script, store: str, spool: Path):
    """KILLED, as without; the sender watches no further."""
    process = script(ASKING, **FAST)
    until(lambda: len(steps()) >= 2)
    process.kill()
    process.communicate()
    until(lambda: the_run().info.status == "KILLED")
    until(lambda: not senders(spool))
    assert waiting_in(spool) == []


def test_another_sender_goes_on_counting(script, store: str, spool: Path):
    """No step is in it twice, and none goes back."""
    process = script(
        "with mlwrap.model_run('r', system_metrics=True) as run:\n"
        "    while not os.path.exists('enough'):\n"
        "        run.log_metric('loss', 1.0)\n"
        "        time.sleep(0.01)\n",
        **FAST,
    )
    until(lambda: len(steps()) >= 2)
    (first,) = senders(spool)
    first.kill()
    before = steps()
    until(lambda: len(steps()) >= len(before) + 3)
    Path("enough").touch()
    go_on(process)
    found = steps()
    assert found == sorted(set(found))
    assert found[: len(before)] == before
