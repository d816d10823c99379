"""What the points of a sweep leave in their journals."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlwrap._journal.records import Metrics, RunEnded, RunStarted
from mlwrap._journal.tags import TagName
from mlwrap._journal.writer import Writer
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.sweep_trials import FinishedTrial, last_values, waiting_trials


def written(root: Path, key: str, *records, tags=()) -> RunFolder:
    """A run folder with a journal of these records."""
    folder = RunFolder(root / key)
    folder.path.mkdir(parents=True)
    writer = Writer(folder.journal)
    writer.append(
        RunStarted(key=key, name="n", time=1, tracking_uri="sqlite:///x", folder="/", tags=dict(tags))
    )
    for record in records:
        writer.append(record)
    writer.close()
    return folder


def test_the_last_value_is_the_latest_of_the_highest_step(tmp_path):
    """As MLflow has it, whatever the order in which they were logged."""
    folder = written(
        tmp_path,
        "a" * 32,
        Metrics.of({"loss": 0.5, "lr": 1.0}, step=1, time=10),
        Metrics.of({"loss": 0.25}, step=2, time=20),
        Metrics.of({"loss": 0.75, "accuracy": float("inf")}, step=0, time=30),
        Metrics.of({"lr": 2.0}, step=1, time=9),
        Metrics.of({"loss": 0.125}, step=2, time=21),
    )
    assert last_values(folder) == {"loss": 0.125, "lr": 1.0, "accuracy": float("inf")}


@pytest.mark.parametrize("sweep", ["s1", None])
def test_points_that_wait_are_found(tmp_path, sweep):
    """Those that FINISHED, of one sweep or of any; what can't be read costs no other."""
    done = RunEnded(status="FINISHED", time=5)
    tags = {TagName.SWEEP: "s1", TagName.TRIAL: "digest"}
    loss = Metrics.of({"loss": 0.5}, step=0, time=2)
    written(tmp_path, "a" * 32, loss, done, tags=tags)
    written(tmp_path, "b" * 32, loss, RunEnded(status="FAILED", time=5), tags=tags)
    written(tmp_path, "c" * 32, loss, tags=tags)
    written(tmp_path, "d" * 32, loss, done)
    written(tmp_path, "e" * 32, loss, done, tags={TagName.SWEEP: "s2", TagName.TRIAL: "other"})
    damaged = written(tmp_path, "f" * 32, tags=tags)
    damaged.journal.write_text("not a journal\n")
    found = dict(waiting_trials(tmp_path, sweep))
    assert found.pop("digest") == FinishedTrial("a" * 32, None, {"loss": 0.5})
    assert found == ({} if sweep else {"other": FinishedTrial("e" * 32, None, {"loss": 0.5})})
