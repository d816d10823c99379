"""The spool's list of the runs that were delivered."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from mlwrap._journal.progress import ModelProgress, Progress
from mlwrap._spool import delivered_runs
from mlwrap._spool.delivered_runs import find_delivered, note_delivered
from mlwrap._spool.run_folder import RunFolder


def folder(root: Path, number: int) -> RunFolder:
    """The folder of a run, which is gone."""
    return RunFolder(root / f"{number:032x}")


def test_what_was_delivered_is_found(tmp_path: Path):
    """With its ids and models; of a run that was not, nothing is known."""
    models = {"staged/1-m": ModelProgress(name="m", model_id="i", status="READY", uploaded={"a", "b"})}
    progress = Progress(run_id="r", experiment_id="e", models=models, offset=7, degraded="old", ended=True)
    note_delivered(folder(tmp_path, 1), progress)
    note_delivered(folder(tmp_path, 2), Progress(run_id="r2"))
    found = find_delivered(folder(tmp_path, 1))
    assert found is not None
    assert (found.run_id, found.experiment_id, found.degraded, found.ended) == ("r", "e", "old", True)
    assert found.models == {"staged/1-m": ModelProgress(name="m", model_id="i", status="READY")}
    assert find_delivered(folder(tmp_path, 3)) is None
    assert find_delivered(folder(tmp_path / "no spool", 1)) is None


def test_the_list_is_its_owners_alone(tmp_path: Path):
    """Whatever the umask; and a link in its place is not followed."""
    before = os.umask(0)
    try:
        note_delivered(folder(tmp_path, 1), Progress(run_id="r"))
    finally:
        os.umask(before)
    path = tmp_path / "delivered.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert find_delivered(folder(tmp_path, 1)) is None
    with pytest.raises(OSError, match="symbolic"):
        note_delivered(folder(tmp_path, 2), Progress())


def test_the_list_is_cut_to_its_newer_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It never grows beyond its limit; the newest are there."""
    monkeypatch.setattr(delivered_runs, "_MAX_BYTES", 5_000)
    for number in range(500):
        note_delivered(folder(tmp_path, number), Progress(run_id=f"r{number}"))
        assert (tmp_path / "delivered.jsonl").stat().st_size <= 5_000
        known = find_delivered(folder(tmp_path, number))
        assert known is not None
        assert known.run_id == f"r{number}"
    assert find_delivered(folder(tmp_path, 480)) is not None
    assert find_delivered(folder(tmp_path, 0)) is None
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["delivered.jsonl"]


def test_many_that_note_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also while another one cuts the list."""
    monkeypatch.setattr(delivered_runs, "_MAX_BYTES", 60_000)
    missing: list[int] = []

    def note(first: int) -> None:
        for number in range(first, first + 100):
            note_delivered(folder(tmp_path, number), Progress(run_id=f"r{number}"))
            if find_delivered(folder(tmp_path, number)) is None:
                missing.append(number)

    threads = [threading.Thread(target=note, args=(first * 1000,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []


def test_a_line_that_was_cut_short_costs_no_other(tmp_path: Path):
    """A process that dies while it writes one."""
    note_delivered(folder(tmp_path, 1), Progress(run_id="r1"))
    with (tmp_path / "delivered.jsonl").open("ab") as file:
        file.write(b'{"key":"000')
    note_delivered(folder(tmp_path, 2), Progress(run_id="r2"))
    assert [find_delivered(folder(tmp_path, number)) is None for number in (1, 2)] == [False, False]
