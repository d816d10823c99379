"""``MLWRAP_DISABLED=1``: every body runs as if mlwrap were not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlwrap import Run, current_run, model_run, tracked_training


@pytest.fixture(autouse=True)
def _disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Disabled, where a run could not even be written down."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLWRAP_SPOOL", str(tmp_path / "file" / "spool"))
    monkeypatch.setenv("MLWRAP_DISABLED", "1")


class Odd:
    """What no saver knows: an enabled run would warn."""

    def __iter__(self):
        raise AssertionError("nobody may look inside")

    def __float__(self):
        raise AssertionError("nor ask for a number")


@pytest.mark.parametrize(
    "say",
    [
        lambda run: run.log_params({"odd": Odd()}),
        lambda run: run.log_metric("loss", Odd()),
        lambda run: run.log_metrics({"loss": Odd()}, step=3),
        lambda run: run.set_tags({"odd": Odd()}),
        lambda run: run.log_artifact("nothing there"),
        lambda run: run.log_text("text", "text.txt"),
        lambda run: run.log_figure(Odd(), "figure.png"),
        lambda run: run.log_model(Odd()),
        lambda run: run.record(Odd()),
    ],
)
def test_a_run_that_does_nothing(say: Callable[[Run], object]):
    """Whatever it is told; it is there all the same."""
    before = sorted(Path.cwd().iterdir())

    @tracked_training
    def train(value):
        run = current_run()
        assert (run.recording, run.recorded, run.run_id, run.models, run.status) == (
            False,
            False,
            None,
            [],
            "RUNNING",
        )
        assert say(run) is None
        return value

    odd = Odd()
    assert train(odd) is odd
    assert train.last_run.status == "FINISHED"
    assert sorted(Path.cwd().iterdir()) == before


def test_an_exception():
    """Leaves as it came, and the run around this code is what it was."""
    error = ValueError("the loss is on fire")

    @tracked_training
    def inner():
        raise error

    with model_run("outer") as outer:
        with pytest.raises(ValueError, match="on fire") as caught:
            inner()
        assert caught.value is error
        assert current_run() is outer
    assert inner.last_run.status == "FAILED"
    assert current_run() is None


def test_nobody_else_is_told():
    """Neither child processes nor MLflow."""
    with model_run("disabled") as run:
        assert "MLWRAP_PARENT" not in os.environ
        assert (run.model_uri, run.url, run.offline, run.preempted) == (None, None, False, False)


def test_a_single_function(monkeypatch: pytest.MonkeyPatch):
    """The decorator's own option does the same for one function."""
    monkeypatch.delenv("MLWRAP_DISABLED")

    @tracked_training(disabled=True)
    def train():
        return current_run().recording

    assert train() is False
