"""Scripts that send decorated functions to other processes, and what was recorded there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlwrap._spool.spool import run_folders
from mlwrap.testing import CapturedRun

WORK = """
import os

from mlwrap import tracked_training

@tracked_training(name="of_module", tags={"kept": "yes"})
def of_module(point):
    return {"point": point, "process": os.getpid()}
"""

# What each script begins with: a function of ``__main__`` beside the module's, whose run is one only if the
# decorator and its options came along.
MAIN = """
import os
import sys

from work import of_module
from mlwrap import model_run, tracked_training

SCALE = 1

@tracked_training(name="of_main", tags={"kept": "yes"})
def of_main(point):
    assert of_main.last_run.status == "RUNNING"  # it finds itself, and not the function without its tracking
    return {"point": point * SCALE, "process": os.getpid()}
"""

BOTH = ("of_main", "of_module")


@pytest.fixture
def travel(tmp_path: Path, spool: Path, python, monkeypatch: pytest.MonkeyPatch):
    """Run a script that begins as ``MAIN``; gives the runs of both functions, by name and point.

    They were recorded in other processes than the script's own, are whole, and are all there are.
    """
    (tmp_path / "work.py").write_text(WORK)
    monkeypatch.setenv("MLWRAP_DELIVERY", "off")
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(
        script: str, *, names: tuple[str, ...] = ("of_main", "of_module")
    ) -> dict[str, list[CapturedRun]]:
        done = python(MAIN + script, check=False, PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[2]}")
        assert done.returncode == 0, done.stderr
        runs = [CapturedRun(folder) for folder in run_folders(spool)]
        (own,) = done.stdout.split()[-1:]
        found = {name: [run for run in runs if run.name == name] for name in (*names, "outer")}
        for name in names:
            assert sorted(run.metrics["point"][0].value for run in found[name]) == [0.0, 1.0, 2.0]
            for run in found[name]:
                assert run.status == "FINISHED"
                assert run.tags["kept"] == "yes"
                assert run.metrics["process"][0].value != float(own)
        assert len(runs) == sum(map(len, found.values()))
        return found

    return run
