"""The machine's clock jumps: what was logged keeps its order, and the last value stays the last."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

import mlwrap
from mlwrap._recording.metrics import clock

HOUR = 3_600_000_000_000


def test_the_clock_jumps_back(store: str, monkeypatch: pytest.MonkeyPatch):
    """Row 44. An hour back, and standing still: MLflow's value of a metric is what came last."""
    noon = time.time_ns()
    readings = iter([noon, noon + 1, *[noon - HOUR] * 1000])
    with mlwrap.model_run("r") as run:
        monkeypatch.setattr(clock, "time_ns", lambda: next(readings))
        for value in (3.0, 9.0, 1.0, 7.0, 2.0):
            run.log_metric("no_step", value)
        for step, value in enumerate((5.0, 6.0, 4.0)):
            run.log_metric("loss", value, step=step)
        monkeypatch.undo()
    client = MlflowClient(store)
    assert client.get_run(run.run_id).data.metrics == {"no_step": 2.0, "loss": 4.0}
    history = client.get_metric_history(run.run_id, "no_step")
    assert [p.value for p in sorted(history, key=lambda p: p.timestamp)] == [3.0, 9.0, 1.0, 7.0, 2.0]


@given(st.lists(st.tuples(st.integers(0, 10**13), st.integers(-3, 3))))
def test_time_only_goes_forward(points: list[tuple[int, int]]):
    """Whatever the clock says: never back, and on wherever the step is not."""
    ours, before = clock.Clock(), (-1, -1)
    with pytest.MonkeyPatch.context() as patch:
        for reading, step in points:
            patch.setattr(clock, "time_ns", lambda reading=reading: reading * 1_000_000)
            at = ours.time(step)
            assert at >= before[0]
            assert step > before[1] or at > before[0]
            before = (at, step)
