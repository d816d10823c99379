"""What mlwrap gives to those who test code that uses it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlwrap
from mlwrap import configure, current_run, model_run, tracked_training
from mlwrap.testing import capture_runs


@tracked_training(delivery="sender", tracking_uri="http://127.0.0.1:9", disabled=True)
def train(*, units: int = 3):
    """Logs some of everything, and is set to go elsewhere."""
    run = current_run()
    run.log_metrics({"loss": 0.5, "odd": math.nan}, step=1)
    run.set_tags({"team": "vision"})
    run.log_text("hello", "notes/note.txt")
    with model_run("inner"):
        pass
    return {"accuracy": 0.9}


def test_a_run_is_captured_whatever_it_is_set_to(spool: Path):
    """Nothing is sent, nothing is left, and what was recorded can be looked at."""
    with capture_runs() as runs:
        assert list(runs) == []
        train(units=4)
        assert len(runs) == 2
    outer, inner = runs
    assert (outer.name, outer.status, outer.error) == ("train", "FINISHED", None)
    assert outer.params == {"units": "4"}
    assert outer.metrics["loss"] == [(1, 0.5)]
    assert outer.metrics["accuracy"] == [(0, 0.9)]
    assert math.isnan(outer.metrics["odd"][0].value)
    assert outer.tags["team"] == "vision"
    assert outer.artifacts == ["notes/note.txt"]
    assert (inner.name, inner.parent) == ("inner", outer.key)
    assert not spool.exists()


def test_how_a_run_ended_is_captured():
    """With the exception, which is the user's own."""
    with capture_runs() as runs, pytest.raises(ValueError, match="diverged"), model_run("r"):
        raise ValueError("diverged")
    assert (runs[0].status, runs[0].error) == ("FAILED", "ValueError: diverged")


def test_a_model_that_can_not_be_saved_is_captured():
    """With the reason."""

    class Saver:
        name, format, default_name, frameworks = "broken", 1, "broken", ("sys",)

        def matches(self, value):
            return isinstance(value, Broken)

        def metrics(self, value):
            return ()

        def save(self, value, folder, options):
            raise OSError("no room")

        def load(self, folder, details, *, into=None, trust=False):
            return None

    class Broken:
        pass

    mlwrap.register_saver(Saver())
    with capture_runs() as runs, model_run("r") as run, pytest.warns(match="no room"):
        run.log_model(Broken(), step=7)
    ((name, saver, step, error),) = runs[0].models
    assert (name, saver, step) == ("broken", "broken", 7)
    assert error.endswith("failed: OSError: no room")


def test_settings_are_as_they_were():
    """After the block, and after one within another."""
    configure(quiet=True)
    with capture_runs() as outer:
        with capture_runs() as inner, model_run("a"):
            pass
        with model_run("b"):
            pass
    assert [run.name for run in inner] == ["a"]
    assert [run.name for run in outer] == ["b"]
    assert mlwrap.config.settings().delivery == os.environ["MLWRAP_DELIVERY"]
    configure(quiet=None)


def test_the_fixture_is_found_by_pytest(tmp_path: Path):
    """In a process of its own, with a test of a user's; MLflow is not imported."""
    (tmp_path / "test_theirs.py").write_text(
        "import sys, mlwrap\n"
        "def test_it(mlwrap_runs):\n"
        "    with mlwrap.model_run('r', params={'a': 1}): pass\n"
        "    assert mlwrap_runs[0].params == {'a': '1'}\n"
        "    assert 'mlflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
