"""Sweeps on engines of others': the examples run, and every point is a run under the sweep's own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import joblib
import mlflow
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def family(store: str):
    """The runs of an experiment: those of sweeps by their ids, and those of the points by their parents'."""

    def read(experiment: str) -> tuple[dict[str, mlflow.entities.Run], dict[str, list[mlflow.entities.Run]]]:
        client = mlflow.MlflowClient(store)
        found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        parents = {run.info.run_id: run for run in found if "mlflow.parentRunId" not in run.data.tags}
        points: dict[str, list[mlflow.entities.Run]] = {parent: [] for parent in parents}
        for run in found:
            if run.info.run_id not in parents:
                points[run.data.tags["mlflow.parentRunId"]].append(run)
        return parents, points

    return read


def run_example(name: str) -> str:
    """Run one as its own docstring says, with today's settings; what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_EXPERIMENT_NAME"}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=300,
    ).stdout


def check_digits(family, experiment: str) -> None:
    """One sweep of six points, each with its accuracy."""
    parents, points = family(experiment)
    ((parent, run),) = parents.items()
    assert (run.info.run_name, run.info.status) == ("train sweep", "FINISHED")
    assert {(p.data.params["C"], p.data.params["samples"]) for p in points[parent]} == {
        (c, samples) for c in ("0.01", "0.1", "1.0") for samples in ("200", "400")
    }
    assert len(points[parent]) == 6
    assert all(p.info.status == "FINISHED" and p.data.metrics["accuracy"] > 0.7 for p in points[parent])


def test_a_dask_cluster_of_two_processes(family):
    """The example: from ``__main__``, so that the function travels by value, through Dask's scheduler."""
    pytest.importorskip("distributed", reason="Dask is not installed here")
    printed = run_example("sweep_dask.py")
    check_digits(family, "sweep-dask")
    assert printed.count("FINISHED") == 6


def test_a_cluster_that_shares_no_spool(family, store, monkeypatch, tmp_path):
    """Workers with a home of their own, as on other machines: the points are found under their parent."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed here")
    monkeypatch.delenv("MLWRAP_SPOOL")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("sweep_dask")
    elsewhere = {"HOME": str(tmp_path / "elsewhere"), "MLFLOW_TRACKING_URI": ""}
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address=None, env=elsewhere
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        table = example.train.sweep({"C": [0.1, 1.0]})
    _, points = family("sweep-dask")
    assert {p.info.run_id for p in points[table.run_id]} == {point.run_id for point in table}
    assert {p.metrics["accuracy"] > 0.7 for p in table} == {True}
    spools = [folder / ".local/state/mlwrap/spool" for folder in (tmp_path / "elsewhere", tmp_path / "home")]
    assert all(spool.is_dir() for spool in spools)


def test_ray(family):
    """The example, with two workers of Ray's."""
    pytest.importorskip("ray", reason="Ray is not installed here: it takes 200 MB")
    printed = run_example("sweep_ray.py")
    check_digits(family, "sweep-ray")
    assert printed.count("FINISHED") == 6


def test_optuna(family, store, monkeypatch):
    """The example: Optuna proposes, each batch is a sweep, and the best trial knows its run."""
    pytest.importorskip("optuna", reason="Optuna is not installed here")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    study = importlib.import_module("sweep_optuna").search(batches=2, batch=2, n_jobs=1)
    parents, points = family("sweep-optuna")
    assert len(parents) == 2
    assert [len(each) for each in points.values()] == [2, 2]
    best = mlflow.get_run(study.best_trial.user_attrs["run_id"])
    assert best.data.metrics["accuracy"] == study.best_value
    assert float(best.data.params["C"]) == pytest.approx(study.best_params["C"])
