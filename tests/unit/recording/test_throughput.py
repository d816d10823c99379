"""How fast a loop goes and how long it will take, with a clock that the test holds."""

from __future__ import annotations

import itertools

import pytest

from mlwrap import model_run
from mlwrap._recording.metrics.throughput import Throughput
from mlwrap.testing import capture_runs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """The time, in a list of one."""
    now = [100.0]
    monkeypatch.setattr("mlwrap._recording.metrics.throughput.time.monotonic", lambda: now[0])
    return now


def test_a_pace(clock):
    """The first step takes longer: once there is another, it says nothing of how long the rest will."""
    pace = Throughput(10)
    clock[0] += 20
    pace.advance(1)
    assert pace.metrics("rate") == {"rate": 1 / 20, "seconds_left": 180.0}
    for _ in range(4):
        clock[0] += 2
        pace.advance(1)
    assert pace.metrics("rate") == {"rate": 0.5, "seconds_left": 10.0}
    assert pace.metrics("rate") == {"seconds_left": 10.0}
    assert not pace.elapsed(1)
    clock[0] += 1
    assert pace.elapsed(1)


def test_a_pace_without_an_end(clock):
    """Has no time left."""
    pace = Throughput()
    clock[0] += 2
    pace.advance(4)
    pace.advance(4)
    assert pace.metrics("rate") == {"rate": 4.0}


def test_steps_go_on_over_several_loops():
    """One that was left early, and one within another, too."""
    with capture_runs() as runs, model_run("r") as run:
        for step in run.steps(3):
            run.log_metric("loss", 1.0, step=step)
        for step in run.steps():
            run.log_metric("loss", 2.0, step=step)
            if step == 5:
                break
        inner = [list(run.steps(2)) for _ in run.steps(2)]
        assert inner == [[7, 8], [10, 11]]
        assert list(run.steps(0)) == []
    assert [step for step, _ in runs[0].metrics["loss"]] == list(range(6))


def test_steps_log_their_pace(clock):
    """Not at each of them, and always at the last."""
    with capture_runs() as runs, model_run("r") as run:
        for _ in run.steps(10, every=5):
            clock[0] += 2
    assert [step for step, _ in runs[0].metrics["steps_per_second"]] == [2, 5, 8, 9]
    assert {value for _, value in runs[0].metrics["steps_per_second"]} == {0.5}
    assert [value for _, value in runs[0].metrics["seconds_left"]] == [14.0, 8.0, 2.0, 0.0]


def test_steps_outlive_their_run():
    """What is logged of them does not: nothing of ours ends a loop."""
    with model_run("r", delivery="off") as run:
        steps = run.steps(every=0)
        next(steps)
    assert list(itertools.islice(steps, 3)) == [1, 2, 3]


def test_steps_of_a_disabled_run():
    """Are counted."""
    with model_run("r", disabled=True) as run:
        assert list(run.steps(3)) == [0, 1, 2]
