"""What MLflow is asked about earlier sweeps."""

from __future__ import annotations

import mlflow

from mlwrap._journal.tags import TagName
from mlwrap._mlflow.queries import Queries, finished_trials, sweep_of


def test_all_that_match_are_found_page_by_page(store):
    """However many there are, the newest first."""
    client = mlflow.MlflowClient(store)
    experiment = client.create_experiment("sweeps")
    made = [
        client.create_run(experiment, start_time=time, tags={"even": str(time % 2 == 0)}).info.run_id
        for time in range(1, 8)
    ]
    found = Queries(store).search(experiment, "tags.even = 'False'", page=2)
    assert [run.info.run_id for run in found] == made[::-1][::2]


def test_finished_points_of_one_sweep_or_of_any(store):
    """With the last metrics; those that did not finish are left out."""
    client = mlflow.MlflowClient(store)
    experiment = client.create_experiment("sweeps")
    keys = {}
    for number, (sweep, status) in enumerate([("s1", "FINISHED"), ("s1", "FAILED"), ("s2", "FINISHED")]):
        tags = {TagName.SWEEP: sweep, TagName.TRIAL: f"digest {number}", "mlwrap.key": f"k{number}"}
        run_id = client.create_run(experiment, start_time=number + 1, tags=tags).info.run_id
        client.log_metric(run_id, "loss", number)
        client.set_terminated(run_id, status)
        keys[f"k{number}"] = run_id
    assert finished_trials(store, "sweeps", None, "s1") == [("digest 0", ("k0", keys["k0"], {"loss": 0.0}))]
    by_id = finished_trials(store, None, experiment, None)
    assert [digest for digest, _ in by_id] == ["digest 2", "digest 0"]
    assert sweep_of(store, "sweeps", None, keys["k2"]) == "s2"
    assert sweep_of(store, "sweeps", None, "k1") == "s1"
    assert sweep_of(store, "sweeps", None, "k9") is None
