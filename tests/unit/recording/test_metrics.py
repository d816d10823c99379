"""What becomes of a step's names, numbers, steps and times: every rule of docs/reference/metrics.md."""

from __future__ import annotations

import contextlib
import datetime
import gc
import math
import os
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import mlwrap
from mlwrap import model_run
from mlwrap._run.run import recorder_of
from mlwrap.errors import Diverged, MlwrapWarning, OptionError
from mlwrap.savers import Metrics
from mlwrap.testing import capture_runs


@contextlib.contextmanager
def captured(**options):
    """A run, and what it recorded in the end."""
    with capture_runs() as runs:
        with model_run("r", **options) as run:
            yield run, runs
        runs.keep()


class Busy:
    """A tensor as of a device: JAX's face, and a number that comes when the test says so."""

    shape = ()
    dtype = "float32"

    def __init__(self, value: float) -> None:
        self.value, self.done, self.asked = value, False, 0

    def is_ready(self) -> bool:
        return self.done

    def __float__(self) -> float:
        self.asked += 1
        return self.value


class Ready(Busy):
    """One that is never seen to be busy."""

    def is_ready(self) -> bool:
        return True


NUMBERS = {
    "integer": (3, 3.0),
    "truth": (True, 1.0),
    "numpy_truth": (np.bool_(False), 0.0),
    "numpy_float": (np.float32(0.5), 0.5),
    "numpy_integer": (np.int64(7), 7.0),
    "array": (np.array(2.5), 2.5),
    "one_item": (np.array([[1.5]]), 1.5),
    "decimal": (Decimal("0.25"), 0.25),
    "fraction": (Fraction(1, 4), 0.25),
}
WRONG = {
    "text": ("0.5", "it is text"),
    "nothing": (None, "NoneType"),
    "complex": (1 + 2j, "it is complex"),
    "numpy_complex": (np.complex64(1), "it is complex"),
    "several": (np.zeros((2, 3)), r"its shape is \(2, 3\)"),
    "huge": (10**400, "too large"),
    "span": (datetime.timedelta(1), "timedelta"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_a_number(name: str):
    """Alone, and beside others."""
    value, expected = NUMBERS[name]
    with captured() as (run, runs):
        run.log_metric(name, value, step=1)
        run.log_metrics({name: value, "other": 1.0}, step=2)
    assert runs[0].metrics == {name: [(1, expected), (2, expected)], "other": [(2, 1.0)]}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_none_costs_no_other(name: str):
    """Said once, whatever a training repeats."""
    value, why = WRONG[name]
    with (
        captured() as (run, runs),
        pytest.warns(MlwrapWarning, match=f"{name!r} is no number.*{why}") as said,
    ):
        for step in range(3):
            run.log_metrics({name: value, "other": 1.0}, step=step)
    assert len(said) == 1
    assert runs[0].metrics == {"other": [(0, 1.0), (1, 1.0), (2, 1.0)]}


def test_names_that_mlflow_refuses():
    """Are renamed, as a parameter's are; anything that has a text is a name."""
    with captured() as (run, runs):
        run.log_metrics({"a#b": 1.0, 7: 2.0, "a" * 300: 3.0}, step=0)
    names = list(runs[0].metrics)
    assert names[1] == "7"
    assert "#" not in names[0]
    assert all(len(name) <= 250 for name in names)


def test_an_empty_mapping_writes_no_record():
    """There is nothing to log."""
    with captured() as (run, _):
        journal = recorder_of(run).folder.journal
        before = journal.read_bytes()
        run.log_metrics({})
        assert journal.read_bytes() == before


def test_steps_of_their_own():
    """The next one of each name; a call's metrics have one step."""
    with captured() as (run, runs):
        run.log_metric("a", 1)
        run.log_metric("a", 2)
        run.log_metric("b", 3)
        run.log_metrics({"a": 4, "b": 5})
        run.log_metric("a", 6, step=10)
        run.log_metrics({"c": 7, "a": 8})
    steps = {name: [step for step, _ in points] for name, points in runs[0].metrics.items()}
    assert steps == {"a": [0, 1, 2, 10, 11], "b": [0, 2], "c": [11]}


def test_a_step_that_goes_back_is_kept_and_said_once():
    """For it may be meant: a training that goes on from a checkpoint."""
    with captured() as (run, runs), pytest.warns(MlwrapWarning, match="went back from step 5 to 2") as said:
        for step in (5, 2, 3, 6, 1):
            run.log_metric("loss", step, step=step)
    assert len(said) == 1
    assert [step for step, _ in runs[0].metrics["loss"]] == [5, 2, 3, 6, 1]


@pytest.mark.parametrize("step", ["two", math.nan, 2**70], ids=str)
def test_a_step_that_is_none(step):
    """The next one stands for it, and the point is there."""
    with captured() as (run, runs), pytest.warns(MlwrapWarning, match="a step is no whole number"):
        run.log_metric("loss", 0.5, step=4)
        run.log_metric("loss", 0.25, step=step)
    assert runs[0].metrics["loss"] == [(4, 0.5), (5, 0.25)]


def test_steps_of_numpy():
    """Anything that is a whole number."""
    with captured() as (run, runs):
        run.log_metric("loss", 0.5, step=np.int32(4))
    assert runs[0].metrics["loss"] == [(4, 0.5)]


def test_times_that_are_given(store: str):
    """Milliseconds, as MLflow's; one that is none is now."""
    import mlflow  # noqa: PLC0415 - of this test alone

    with model_run("r") as run, pytest.warns(MlwrapWarning, match="a timestamp is no number"):
        run.log_metric("loss", 1, step=0, timestamp=1_700_000_000_000)
        run.log_metric("loss", 2, step=1, timestamp="noon")
    first, second = mlflow.MlflowClient().get_metric_history(run.run_id, "loss")
    assert first.timestamp == 1_700_000_000_000
    assert second.timestamp > first.timestamp


def test_a_busy_tensor_is_not_waited_for():
    """It is asked for its number when it is ready; the points of later steps do not wait for it."""
    busy = Busy(0.5)
    with captured() as (run, runs):
        run.log_metrics({"loss": busy, "rate": 1.0}, step=0)
        run.log_metric("other", 2.0, step=0)
        assert busy.asked == 0
        assert runs[0].metrics == {"rate": [(0, 1.0)], "other": [(0, 2.0)]}
        busy.done = True
        run.log_metric("other", 3.0, step=1)
        assert runs[0].metrics["loss"] == [(0, 0.5)]
    assert busy.asked == 1


def test_a_busy_tensor_waits_no_longer_than_a_second(monkeypatch: pytest.MonkeyPatch):
    """Then the next call asks for it."""
    busy, now = Busy(0.5), [0.0]
    with captured() as (run, runs):
        monkeypatch.setattr("mlwrap._recording.metrics.metric_log.time.monotonic", lambda: now[0])
        run.log_metric("loss", busy)
        now[0] = 1.5
        run.log_metric("other", 1.0)
        assert runs[0].metrics["loss"] == [(0, 0.5)]
        monkeypatch.undo()


def test_a_busy_tensor_is_there_at_the_end():
    """At the latest; one that fails then is said, and costs nothing else."""
    last, broken = Busy(0.5), Busy(1.0)
    broken.dtype = "complex64"
    with pytest.warns(MlwrapWarning, match="'broken' is no number"), captured() as (run, runs):
        run.log_metrics({"loss": last, "broken": broken}, step=3)
    assert runs[0].metrics == {"loss": [(3, 0.5)]}
    assert runs[0].status == "FINISHED"


def test_what_is_not_finite_is_kept_and_tagged():
    """The first of them, by its step and its name."""
    with captured() as (run, runs):
        run.log_metrics({"a": 1.0, "loss": 0.5}, step=0)
        run.log_metrics({"a": 1.0, "loss": math.nan}, step=1)
        run.log_metrics({"a": -math.inf, "loss": math.inf}, step=2)
    found = runs[0]
    assert [str(value) for _, value in found.metrics["loss"]] == ["0.5", "nan", "inf"]
    assert found.metrics["a"][2].value == -math.inf
    tags = {name: text for name, text in found.tags.items() if "nonfinite" in name or "diverged" in name}
    assert tags == {
        "mlwrap.diverged": "true",
        "mlwrap.first_nonfinite_step": "1",
        "mlwrap.first_nonfinite_metric": "loss",
    }


def test_large_numbers_have_not_diverged():
    """Though their sum is infinite."""
    with captured() as (run, runs):
        run.log_metrics({"a": 1.7e308, "b": 1.7e308}, step=0)
    assert runs[0].metrics == {"a": [(0, 1.7e308)], "b": [(0, 1.7e308)]}
    assert "mlwrap.diverged" not in runs[0].tags


def test_what_is_not_finite_can_be_skipped():
    """The run is tagged all the same."""
    with captured(nonfinite="skip") as (run, runs):
        run.log_metrics({"a": 1.0, "loss": math.nan}, step=1)
        run.log_metric("loss", math.nan, step=2)
    assert runs[0].metrics == {"a": [(1, 1.0)]}
    assert runs[0].tags["mlwrap.first_nonfinite_step"] == "1"


def test_what_is_not_finite_can_stop_the_training():
    """The point is there, and the run has FAILED with the reason."""
    with (
        capture_runs() as runs,
        pytest.raises(Diverged, match="'loss' is nan at step 1"),
        model_run("r", nonfinite="stop") as run,
    ):
        run.log_metric("loss", 0.5, step=0)
        run.log_metric("loss", math.nan, step=1)
    assert len(runs[0].metrics["loss"]) == 2
    assert (runs[0].status, runs[0].tags["mlwrap.diverged"]) == ("FAILED", "true")


def test_a_policy_that_there_is_not():
    """Found before anything starts."""
    with pytest.raises(OptionError, match="nonfinite"):
        model_run("r", nonfinite="ignore")


def test_a_point_that_was_logged_live_is_not_found_again():
    """The same name, step and value counts once, NaN too; another value is another point."""
    with captured() as (run, runs):
        for step, loss in enumerate((0.5, 0.25, math.nan)):
            run.log_metrics({"loss": loss, "rate": 1}, step=step)
        remembered = [
            Metrics.of({"loss": loss, "val": 1.0}, step=step, time=1)
            for step, loss in enumerate((0.5, 0.3, math.nan))
        ]
        recorder_of(run).metrics.log_found(remembered)
        recorder_of(run).metrics.log_found(remembered)
    found = [(step, str(value)) for step, value in runs[0].metrics["loss"]]
    assert found == [(0, "0.5"), (1, "0.25"), (2, "nan"), (1, "0.3")]
    assert len(runs[0].metrics["val"]) == 3


def test_very_many_names_do_not_pile_up():
    """A name for each step is a mistake, and must not cost the machine its memory."""
    with captured() as (run, runs):
        for step in range(1000):
            run.log_metric(f"loss_{step}", 1.0, step=step)
        assert len(recorder_of(run).metrics._streams) <= 256
    assert len(runs[0].metrics) == 1000


def test_what_is_remembered_has_an_end():
    """So that ten million points take no more memory than ten thousand."""
    with captured() as (run, _):
        for step in range(12_000):
            run.log_metric("loss", 1.0, step=step)
        (stream,) = recorder_of(run).metrics._streams.values()
        assert len(stream.recent) == 5_000


def held(points: object) -> int:
    """How many things the metrics of a run hold in memory, from numbers to records."""
    seen: set[int] = set()
    waiting: list[object] = [points]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen and not callable(thing):
            seen.add(id(thing))
            waiting += gc.get_referents(thing)
    return len(seen)


def test_all_that_is_held_has_an_end():
    """However it is logged: by number, numpy's or plain, tensors that are busy, with a step or without."""
    sizes = []
    with captured() as (run, _):
        for step in range(18_000):
            run.log_metrics({"loss": step / 7, "rate": 0.5}, step=step)
            run.log_metric("loss", np.float32(step))
            run.log_metric("busy", Ready(step / 2))
            if step in {6_000, 17_999}:
                sizes.append(held(recorder_of(run).metrics))
    assert sizes[0] > 10_000  # it was counted
    assert abs(sizes[1] - sizes[0]) < 100


def test_threads_that_log_without_a_step():
    """Each point has a step of its own."""
    with captured() as (run, runs):

        def log() -> None:
            for _ in range(500):
                run.log_metric("loss", 1.0)

        threads = [threading.Thread(target=log) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(step for step, _ in runs[0].metrics["loss"]) == list(range(4000))


def test_what_a_call_returned_for_survives_a_kill(spool):
    """Of plain numbers: the last one that the process could tell of, too."""
    source = (
        "import mlwrap\n"
        "run = mlwrap.model_run('r', delivery='off').__enter__()\n"
        "step = 0\n"
        "while True:\n"
        "    run.log_metrics({'a': 1.0, 'b': 2.0})\n"
        "    print(step, flush=True)\n"
        "    step += 1\n"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, env=os.environ) as process:
        for _ in range(200):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        acknowledged = 200 + sum(1 for line in process.stdout if line.endswith(b"\n"))
    (journal,) = spool.glob("*/journal.jsonl")
    written = sum(b'"metrics"' in line for line in journal.read_bytes().splitlines())
    assert written >= acknowledged


def test_a_run_that_is_disabled_takes_anything():
    """And says nothing."""
    with mlwrap.model_run("r", disabled=True) as run:
        run.log_metrics({"loss": object()}, step="x")
