"""Sweeps: a run around many calls, wherever joblib makes them."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import joblib
import mlflow
import numpy as np
import pytest

import mlwrap
from mlwrap import SweepTable, model_run, tracked_training
from mlwrap.errors import MlwrapWarning, OptionError
from mlwrap.testing import capture_runs


def tracked(**options):
    """A decorated function that is found by no name, so that it travels by value."""

    @tracked_training(**options)
    def train(*, units: int = 8, rate: float = 0.1, x=None):
        import os as system  # noqa: PLC0415 - over there

        import mlwrap as over_there  # noqa: PLC0415 - likewise

        run = over_there.current_run()
        for step in range(3):
            run.log_metric("loss", units * rate / (step + 1), step=step)
        if units == 0:
            raise ValueError("no units at all, password=hunter2")
        return {"pid": system.getpid(), "double": 2 * units}

    return train


@pytest.fixture
def all_runs(store: str):
    """All runs of the store, the oldest first."""

    def read() -> list[mlflow.entities.Run]:
        client = mlflow.MlflowClient(store)
        experiments = [e.experiment_id for e in client.search_experiments()]
        return client.search_runs(experiments, order_by=["attributes.start_time"])

    return read


def check_family(table: SweepTable, runs) -> None:
    """Every point's run is in MLflow as the table says, and under the sweep's own."""
    by_id = {run.info.run_id: run for run in runs}
    parent = by_id[table.run_id]
    assert "mlflow.parentRunId" not in parent.data.tags
    for point in table:
        run = by_id[point.run_id]
        assert run.data.tags["mlflow.parentRunId"] == table.run_id
        assert run.info.status == point.status
        assert run.info.experiment_id == parent.info.experiment_id
        assert run.data.tags["mlwrap.key"] == point.key
        assert run.data.metrics == point.metrics
        assert {name: run.data.params[name] for name in point.params} == {
            name: str(value) for name, value in point.params.items()
        }


def test_a_grid_in_this_process(all_runs):
    """Every combination in a stable order, each a run under the sweep's own."""
    table = tracked().sweep({"units": [1, 2], "rate": [0.1, 0.2]})
    assert [tuple(point.params.values()) for point in table] == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    assert [point.status for point in table] == ["FINISHED"] * 4
    assert table[3].metrics == {"loss": pytest.approx(2 * 0.2 / 3), "pid": os.getpid(), "double": 4}
    runs = all_runs()
    check_family(table, runs)
    parent = runs[0]
    assert (parent.info.run_name, parent.info.status) == ("train sweep", "FINISHED")
    assert parent.data.params == {"units": "[1, 2]", "rate": "[0.1, 0.2]", "x": "None"}
    assert parent.data.tags["mlwrap.sweep.points"] == "4"
    assert parent.data.metrics["points.finished"] == 4
    assert len(runs) == 5


def test_a_table_is_a_pandas_frame(store):
    """Under the names that MLflow's own frames have."""
    frame = tracked().sweep([{"units": 1}, {"units": 0, "rate": 0.5}]).frame()
    assert list(frame["params.units"]) == [1, 0]
    assert list(frame["status"]) == ["FINISHED", "FAILED"]
    assert frame["metrics.double"][0] == 2
    assert frame["run_id"].notna().all()


def test_processes_of_lokys(all_runs):
    """Two workers; the runs are under the sweep's own, and what fails stays the point's own."""
    table = tracked().sweep({"units": [1, 2, 0, 3]}, n_jobs=2)
    check_family(table, all_runs())
    assert [point.status for point in table] == ["FINISHED", "FINISHED", "FAILED", "FINISHED"]
    assert table[2].error == "ValueError: no units at all, password=[redacted]"
    assert os.getpid() not in {point.metrics.get("pid") for point in table}
    assert table[2].metrics == {"loss": 0.0}


def test_workers_that_outlive_a_sweep_keep_nothing_of_it(all_runs, tmp_path, spool):
    """The next one has another spool and another experiment, and a run of a worker's own has no parent."""
    first = tracked().sweep({"units": [1, 2]}, n_jobs=2)
    mlflow.set_experiment("another")  # MLflow's own way, after the workers began
    mlwrap.configure(spool=str(tmp_path / "other"))
    try:
        second = tracked().sweep({"units": [3, 4]}, n_jobs=2)
        alone = joblib.Parallel(n_jobs=2, max_nbytes=None)(joblib.delayed(lone)(n) for n in range(2))
    finally:
        mlwrap.configure(spool=None)
    runs = all_runs()
    check_family(first, runs)
    check_family(second, runs)
    experiments = {run.info.run_id: run.info.experiment_id for run in runs}
    another = mlflow.get_experiment_by_name("another").experiment_id
    assert experiments[second.run_id] == another != experiments[first.run_id]
    assert alone == [None, None]
    assert [list(folder.glob("*/journal.jsonl")) for folder in (spool, tmp_path / "other")] == [[], []]


def lone(number):
    """Run in a worker, outside any sweep: what is around it there."""
    from mlwrap._run.parent_run import parent_from_environment  # noqa: PLC0415 - over there

    return parent_from_environment()


lone.__module__ = "__main__"  # so that it travels by value: the workers can't import this file


def test_threads(all_runs):
    """Many at a time: every value in its own run."""
    with joblib.parallel_config(backend="threading", n_jobs=4):
        table = tracked().sweep({"units": list(range(1, 9))})
    check_family(table, all_runs())
    assert [point.metrics["double"] for point in table] == [2 * units for units in range(1, 9)]


def test_what_a_point_returns_stays_where_it_is(store):
    """It can be too big to be sent, or not fit to be."""

    @tracked_training
    def train(*, units=1):
        import threading  # noqa: PLC0415 - over there

        return {"double": units * 2, "lock": threading.Lock()}

    table = train.sweep({"units": [1, 2]}, n_jobs=2)
    assert [point.metrics for point in table] == [{"double": 2.0}, {"double": 4.0}]


def test_values_come_as_they_are(store):
    """Large arrays, too, where joblib would make memory maps that can't be written to."""

    @tracked_training
    def train(*, x):
        x[0] = 1  # its own copy
        return {"sum": float(x.sum()), "plain": float(type(x).__name__ == "ndarray")}

    x = np.zeros(1_000_000)
    table = train.sweep([{"x": x}, {"x": x}], n_jobs=2)
    assert [point.metrics for point in table] == [{"sum": 1.0, "plain": 1.0}] * 2
    assert x.sum() == 0


def test_a_method_sweeps_too(all_runs):
    """It is called on its own object."""

    class Trainer:
        scale = 3

        @tracked_training
        def train(self, units):
            return {"scaled": self.scale * units}

    table = Trainer().train.sweep({"units": [1, 2]})
    check_family(table, all_runs())
    assert [point.metrics["scaled"] for point in table] == [3, 6]
    with pytest.raises(OptionError, match="needs 'units'"):
        Trainer().train.sweep([{}])


def test_an_exit_in_a_point_ends_that_point_alone(store):
    """As its run has it."""

    @tracked_training
    def train(*, code):
        sys.exit(code)

    table = train.sweep({"code": [0, 1]})
    assert [(point.status, point.error) for point in table] == [
        ("FINISHED", None),
        ("FAILED", "SystemExit: 1"),
    ]


def test_ctrl_c_ends_the_sweep(all_runs):
    """It and the point are KILLED; what was done stays, and the others never begin."""

    @tracked_training
    def train(*, units):
        if units == 2:
            raise KeyboardInterrupt

    with pytest.warns(MlwrapWarning, match="1 of 3 trials done"), pytest.raises(KeyboardInterrupt):
        train.sweep({"units": [1, 2, 3]})
    assert [(run.info.run_name, run.info.status) for run in all_runs()] == [
        ("train sweep", "KILLED"),
        ("train", "FINISHED"),
        ("train", "KILLED"),
    ]


def test_a_worker_that_dies_ends_the_sweep_which_can_be_resumed(all_runs):
    """The engine's own error leaves, and a warning says how to go on."""

    @tracked_training
    def train(*, units, folder):
        import os as system  # noqa: PLC0415 - over there
        from pathlib import Path as Place  # noqa: PLC0415 - likewise

        if units == 2 and not Place(folder, "died").exists():
            Place(folder, "died").touch()
            system._exit(1)

    points = {"units": [1, 2], "folder": [os.fspath(Path.cwd())]}
    with pytest.warns(MlwrapWarning, match="resume='(?P<key>[0-9a-f]+)'") as caught, pytest.raises(Exception):  # noqa: B017, PT011 - loky's
        train.sweep(points, n_jobs=2)
    key = str(caught[-1].message).rpartition("resume='")[2][:32]
    table = train.sweep(points, n_jobs=2, resume=key)
    assert [point.status for point in table] == ["FINISHED", "FINISHED"]
    assert next(run for run in all_runs() if run.data.tags["mlwrap.key"] == key).info.status == "FAILED"


def counted(folder: Path):
    """A function that leaves a mark in a folder for each time that it ran."""

    @tracked_training(ignore="folder")
    def train(*, units, folder=folder, fail=()):
        Path(folder, f"{units}-{len(list(Path(folder).iterdir()))}").touch()
        if units in fail:
            raise ValueError(units)
        return {"double": 2 * units}

    return train


@pytest.fixture
def marks(tmp_path: Path):
    """Which points ran since it was last asked."""
    folder = tmp_path / "marks"
    folder.mkdir()

    def ran() -> list[str]:
        names = sorted(path.name.partition("-")[0] for path in folder.iterdir())
        for path in folder.iterdir():
            path.unlink()
        return names

    ran.folder = folder
    return ran


@pytest.mark.parametrize("by", ["run_id", "key"])
def test_a_resumed_sweep_skips_what_finished(store, marks, by):
    """With the same parameters and code, under the sweep that is named; as often as it is resumed."""
    train = counted(marks.folder)
    before = train.sweep([{"units": 1}])
    assert [point.status for point in before] == ["FINISHED"]
    marks()
    again = train.sweep({"units": [1, 2]}, resume=getattr(before, by))
    assert marks() == ["2"]
    assert again[0] == before[0]
    third = train.sweep({"units": [1, 2, 3]}, resume=getattr(again, by))
    assert marks() == ["3"]
    assert third[:2] == again[:]
    train.sweep({"units": [1]})
    assert marks() == ["1"]  # nothing was to be resumed


def test_resuming_looks_at_parameters_code_and_status(store, marks):
    """With True, in every sweep in the experiment; a point that is in it twice runs twice."""
    train = counted(marks.folder)
    table = train.sweep([{"units": 1}, {"units": 2, "fail": (2,)}], resume=True)
    assert [point.status for point in table] == ["FINISHED", "FAILED"]
    assert marks() == ["1", "2"]
    train.sweep(
        [{"units": 1}, {"units": 2, "fail": (2,)}, {"units": 1}, {"units": 1, "fail": (7,)}], resume=True
    )
    assert marks() == ["1", "1", "2"]

    @tracked_training(ignore="folder")
    def other(*, units, folder=marks.folder, fail=()):
        return {"double": 3 * units}

    other.__qualname__ = train.__qualname__
    assert other.sweep({"units": [1]}, resume=True)[0].metrics == {"double": 3}


def test_what_waits_in_the_spool_has_finished_too(marks):
    """Offline, and where MLflow was away."""
    mlwrap.configure(delivery="off")
    try:
        train = counted(marks.folder)
        before = train.sweep({"units": [1, 2]})
        assert before.run_id is None
        marks()
        again = train.sweep({"units": [1, 2, 3]}, resume=before.key)
        assert marks() == ["3"]
        assert again[:2] == before[:]
        with pytest.raises(OptionError, match="names no sweep"):
            train.sweep({"units": [1]}, resume="0" * 32)
    finally:
        mlwrap.configure(delivery=None)


def test_an_offline_sweep_is_delivered_later(all_runs):
    """Children under their parent, from the workers as well."""
    mlwrap.configure(delivery="off")
    try:
        table = tracked().sweep({"units": [1, 2]}, n_jobs=2)
    finally:
        mlwrap.configure(delivery=None)
    assert all_runs() == []
    mlwrap.sync()
    runs = {run.data.tags["mlwrap.key"]: run for run in all_runs()}
    parent = runs[table.key].info.run_id
    assert [runs[point.key].data.tags["mlflow.parentRunId"] for point in table] == [parent, parent]


def test_a_name_that_is_no_sweep(store):
    """Nothing is resumed, and nothing runs."""
    with model_run("plain") as run:
        pass
    for wrong in (run.run_id, run.key, "0" * 32):
        with pytest.raises(OptionError, match="names no sweep"):
            tracked().sweep({"units": [1]}, resume=wrong)


@pytest.mark.parametrize(
    ("points", "options", "told"),
    [
        ({}, {}, "no trials at all"),
        ([], {}, "no trials at all"),
        ({"units": []}, {}, "empty list of values for 'units'"),
        ({"units": 8}, {}, r"got a value of type int for 'units': expected a list"),
        ({"units": "abc"}, {}, r"got a value of type str for 'units'"),
        ({"unit": [8]}, {}, r"trial 0: train\(\) has no parameter 'unit'.*It has: x, units, rate"),
        ([{"x": 1}, {"x": 1, "lr": 2}], {}, r"trial 1: train\(\) has no parameter 'lr'"),
        ([{"x": 1, 3: 2}], {}, "has no parameter 3"),
        ({"units": [8]}, {}, r"trial 0: train\(\) needs 'x' too"),
        (8, {}, "got a value of type int: expected a grid"),
        ([8], {}, "got a value of type int for a trial"),
        ({"x": [8]}, {"n_jobs": 0}, "n_jobs=0"),
        ({"x": [8]}, {"n_jobs": "two"}, "n_jobs='two'"),
        ({"x": [8]}, {"resume": 3}, "resume=3"),
        ({"x": [8]}, {"resume": "it's"}, "resume=.*expected the id or the key"),
        ({"x": [8, threading.Lock()]}, {"n_jobs": 2}, "the value of 'x' can't travel to another process"),
    ],
)
def test_bad_input_is_told_before_anything_runs(spool, points, options, told):
    """What was expected, what came, and what there is."""
    ran = []

    @tracked_training
    def train(x, units=8, *, rate=0.1):
        ran.append(x)

    with pytest.raises(OptionError, match=told):
        train.sweep(points, **options)
    assert not ran
    assert not spool.exists()


def test_a_closure_that_cannot_travel_is_told(spool):
    """By name, before anything runs."""
    lock = threading.Lock()

    @tracked_training
    def train(*, units):
        lock.acquire()

    with pytest.raises(OptionError, match=r"train\(\) can't travel"):
        train.sweep({"units": [1, 2]}, n_jobs=2)
    assert not spool.exists()


def test_any_name_goes_where_the_function_takes_any(store):
    """It has ``**kwargs``."""

    @tracked_training
    def train(**hyper):
        return {"sum": sum(hyper.values())}

    assert train.sweep({"a": [1], "b": [2, 3]})[1].metrics == {"sum": 4}


def test_a_disabled_sweep_runs_every_point(spool):
    """Untracked, as if the function were not decorated."""

    @tracked_training(disabled=True)
    def train(*, units):
        if units == 2:
            raise ValueError(units)

    table = train.sweep({"units": [1, 2]})
    assert [(p.status, p.run_id, p.key, p.error) for p in table] == [
        ("FINISHED", None, None, None),
        ("FAILED", None, None, "ValueError: 2"),
    ]
    assert (table.run_id, table.key) == (None, None)
    assert not spool.exists()


def test_it_is_told_how_far_it_is(store, monkeypatch, capsys):
    """A line for each trial, without secrets."""
    monkeypatch.delenv("MLWRAP_QUIET")

    @tracked_training
    def train(*, units, api_key):
        return {"double": 2 * units}

    train.sweep({"units": [1, 2], "api_key": ["s3cr3t-value"]})
    told = capsys.readouterr().err
    assert "train sweep 1/2 FINISHED  units=1, api_key=[redacted]  double 2" in told
    assert "train sweep 2/2 FINISHED" in told
    assert "s3cr3t" not in told
    assert told.count("started") == 1  # the points' own runs say nothing


def test_a_terminal_shows_a_bar(store, monkeypatch):
    """With how many are done."""
    monkeypatch.delenv("MLWRAP_QUIET")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    tracked().sweep({"units": [1, 2]})
    assert "2/2" in terminal.getvalue()
    assert "FINISHED" in terminal.getvalue()


def test_a_sweep_inside_a_run_is_its_child(all_runs):
    """As any run is."""
    with model_run("study"):
        table = tracked().sweep({"units": [1]})
    by_name = {run.info.run_name: run for run in all_runs()}
    assert by_name["train sweep"].data.tags["mlflow.parentRunId"] == by_name["study"].info.run_id
    assert by_name["train"].data.tags["mlflow.parentRunId"] == table.run_id


def test_runs_inside_a_point_are_its_children(all_runs):
    """And no points of the sweep; they go where it goes."""

    @tracked_training
    def train(*, units):
        with mlwrap.model_run(f"inner {units}") as run:
            run.log_metric("inner", 1)
        return {"outer": 1}

    table = train.sweep({"units": [1]}, n_jobs=1)
    assert table[0].metrics == {"outer": 1}
    inner = next(run for run in all_runs() if run.info.run_name == "inner 1")
    assert inner.data.tags["mlflow.parentRunId"] == table[0].run_id
    assert "mlwrap.sweep.point" not in inner.data.tags


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_what_a_sweep_records_can_be_captured(n_jobs):
    """From other processes, too; nothing is sent."""
    with capture_runs() as runs:
        table = tracked(delivery="inline").sweep({"units": [1, 2]}, n_jobs=n_jobs)
    parent, *points = runs
    assert parent.key == table.key
    assert {run.key for run in points} == {point.key for point in table}
    assert {run.parent for run in points} == {parent.key}
    assert sorted(run.params["units"] for run in points) == ["1", "2"]


def test_a_point_is_recorded_whatever_its_workers_rank(all_runs, monkeypatch):
    """Who was handed a point has all of it."""

    @tracked_training
    def train(*, units):
        monkeypatch.setenv("RANK", "1")  # as where each of a cluster's workers has one
        monkeypatch.setenv("WORLD_SIZE", "2")

    table = train.sweep({"units": [1, 2]})
    check_family(table, all_runs())


def test_a_worker_that_is_not_the_chief_sweeps_unrecorded(spool, monkeypatch):
    """As it trains."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    table = tracked().sweep({"units": [1, 2]})
    assert [(point.status, point.run_id) for point in table] == [("FINISHED", None)] * 2
    assert not list(spool.glob("*/journal.jsonl"))
