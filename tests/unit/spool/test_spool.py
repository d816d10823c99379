"""The spool and its run folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import filelock
import pytest

from mlwrap._journal.progress import ModelProgress, Progress
from mlwrap._journal.records import RunStarted
from mlwrap._spool.open_run import open_run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import foreign_folders, remove_leftovers, run_folders, spool_root, spool_roots
from mlwrap.errors import JournalError, MlwrapWarning, SpoolError
from tests.users import as_nobody, give_away, let_through, needs_root


def first(key: str) -> RunStarted:
    """The record that opens a journal."""
    return RunStarted(key=key, name="n", time=1, tracking_uri="sqlite:///x", folder="/")


def test_the_default_spool_is_in_the_users_state_folder(tmp_path: Path):
    """Made on first use, for its owner's eyes only."""
    root = spool_root(None)
    assert root == tmp_path / "home/.local/state/mlwrap/spool"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_configured_spool_that_cannot_be_written_is_an_error(tmp_path: Path):
    """The sentence names it and says what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"file/spool can't be written .* Set MLWRAP_SPOOL"):
        spool_root(str(tmp_path / "file/spool"))


def test_a_default_spool_that_cannot_be_written_gives_way_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As in a container without a home: the next best folder is taken."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.warns(MlwrapWarning, match="can't be written .* using .*mlwrap-"):
        root = spool_root(None)
    assert root.is_dir()
    assert root.parent.parent == tmp_path
    assert stat.S_IMODE(root.parent.stat().st_mode) == 0o700


def test_the_next_best_spool_is_never_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a temporary folder that all can write, a link laid there beforehand is not followed."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: 424242)
    with pytest.raises(SpoolError, match="belongs to another user"):
        spool_root(None)


def test_an_open_run_holds_its_lease(tmp_path: Path):
    """Nobody takes a living run for a dead one."""
    run = open_run(tmp_path, first("k"))
    with pytest.raises(filelock.Timeout):
        run.folder.writer_lease().acquire(timeout=0)
    run.release()
    with run.folder.writer_lease().acquire(timeout=0):
        pass


def test_run_folders_are_listed_oldest_first(tmp_path: Path):
    """What is no run folder is passed over."""
    (tmp_path / "lost+found").mkdir()
    for second, key in enumerate(("b", "a", "c"), start=1):
        open_run(tmp_path, first(key)).release()
        os.utime(tmp_path / key / "writer.lock", (second, second))
    assert [folder.key for folder in run_folders(tmp_path)] == ["b", "a", "c"]


def test_run_folders_of_one_tick_are_listed_as_they_began(tmp_path: Path):
    """A file system's clock stands still for milliseconds, in which several runs can start."""
    keys = [f"{number * 7919 % 100:032x}" for number in range(30)]
    for key in keys:
        open_run(tmp_path, first(key)).release()
        lock = tmp_path / key / "writer.lock"
        os.utime(lock, ns=(lock.stat().st_atime_ns, 1))
    assert [folder.key for folder in run_folders(tmp_path)] == keys


def test_stages_never_share_a_folder(tmp_path: Path):
    """Two models of one name are two folders, with names that every filesystem takes."""
    folder = open_run(tmp_path, first("k")).folder
    one, two = folder.stage("a/../b c\n"), folder.stage("a/../b c\n")
    assert one != two
    assert one.parent == two.parent == folder.path / "staged"
    assert folder.relative(one).startswith("staged/1-")


def test_a_stage_that_was_delivered_is_never_used_again(tmp_path: Path):
    """Its path is what delivery knows the model by: another one there would be taken for it."""
    folder = open_run(tmp_path, first("k")).folder
    gone = folder.stage("m")
    gone.rmdir()
    assert folder.stage("m") != gone


def test_a_sweep_takes_only_what_never_began(tmp_path: Path):
    """A folder without a whole first line, whose maker is gone; all others stay."""
    root = spool_root(str(tmp_path / "spool"))
    keys = [character * 32 for character in "abc"]
    begun, starting, dead = (root / key for key in keys)
    open_run(root, first(keys[0])).release()
    starting.mkdir()
    dead.mkdir()
    (dead / "journal.jsonl").write_bytes(b'{"type":"run_st')
    (root / "somebody's").mkdir()
    with RunFolder(starting).writer_lease().acquire():
        remove_leftovers(root)
        assert sorted(root.iterdir()) == [begun, starting, root / "somebody's"]


def test_a_run_whose_folder_is_swept_as_it_starts_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between the making of its folder and the lease on it a sweep may come."""
    real, swept = RunFolder.writer_lease, []

    def lease(self: RunFolder) -> filelock.BaseFileLock:
        if not swept:
            swept.append(1)
            remove_leftovers(tmp_path)
            assert not self.path.exists()
        return real(self)

    monkeypatch.setattr(RunFolder, "writer_lease", lease)
    run = open_run(tmp_path, first("a" * 32))
    assert run.folder.journal.exists()
    run.release()


def test_progress_is_what_was_saved(tmp_path: Path):
    """And a fresh start where nothing was."""
    folder = open_run(tmp_path, first("k")).folder
    assert folder.progress() == Progress()
    assert not folder.progress().asked
    progress = Progress(
        offset=7, run_id="r", models={"s": ModelProgress(name="m", model_id="i", location="l")}
    )
    folder.save_progress(progress)
    assert folder.progress() == progress
    assert stat.S_IMODE((folder.path / "delivered.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ['{"format":99}', '{"format":99,"offset":"of another type"}'])
def test_a_progress_of_a_newer_mlwrap_is_refused(tmp_path: Path, text: str):
    """A sentence, and nothing is delivered twice."""
    folder = open_run(tmp_path, first("k")).folder
    (folder.path / "delivered.json").write_text(text)
    with pytest.raises(JournalError, match="Upgrade"):
        folder.progress()


@pytest.mark.parametrize(
    "text", [None, b"", bytes(80), b'{"format":1,"off', b"[" * 100_000, b'{"offset":"x"}']
)
def test_a_progress_that_is_lost_is_looked_up(tmp_path: Path, text: bytes | None):
    """Removed, empty, zeroed, cut or damaged: MLflow is asked for the run before it is made."""
    folder = RunFolder(open_run(tmp_path, first("k")).folder.path)
    with folder.delivery_lease():
        assert folder.progress() == Progress()
    if text is not None:
        (folder.path / "delivered.json").write_bytes(text)
    progress = RunFolder(folder.path).progress()
    assert (progress.asked, progress.rebuilt, progress.offset) == (True, True, 0)
    assert (progress.error is None) == (text is None)


def test_what_stands_in_the_way_is_no_progress():
    """An error whose text changes each time, and what was refused, are not what MLflow has got."""
    before = Progress(offset=1, models={"m": ModelProgress(name="m", uploaded={"a"})})
    after = Progress(
        offset=1, models={"m": ModelProgress(name="m", uploaded={"a"})}, error="at 0x7f", held={"x": "y"}
    )
    assert after.delivered() == before.delivered()
    after.models["m"].uploaded.add("b")
    assert after.delivered() != before.delivered()


def test_a_copy_is_of_regular_files_only(tmp_path: Path):
    """A link in a folder would carry away what lies outside it."""
    folder = open_run(tmp_path, first("k")).folder
    source = tmp_path / "plots"
    source.mkdir()
    (source / "a.txt").write_text("a")
    assert (folder.stage_copy(source) / "a.txt").read_text() == "a"
    (source / "link").symlink_to("/etc/hostname")
    with pytest.raises(SpoolError, match="plots/link is a link"):
        folder.stage_copy(source)
    with pytest.raises(SpoolError, match="nothing is not there"):
        folder.stage_copy(tmp_path / "nothing")


def test_removing_a_folder_leaves_nothing(tmp_path: Path):
    """Its lock files too."""
    root = spool_root(str(tmp_path / "spool"))
    run = open_run(root, first("k"))
    run.release()
    RunFolder(root / "k").remove()
    assert list(root.iterdir()) == []


def test_a_spool_that_others_can_write_to_has_a_folder_for_each_user(tmp_path: Path):
    """As a folder that a group shares, or one under /tmp; nobody else can look into it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    for mode in (0o1777, 0o770):
        shared.chmod(mode)
        root = spool_root(str(shared))
        assert root == shared / f"user-{os.getuid()}"
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert spool_roots(str(shared)) == [root, shared]
    shared.chmod(0o700)
    assert spool_root(str(shared)) == shared


@pytest.mark.parametrize("how", ["link", "file", "open to others"])
def test_a_folder_in_a_shared_spool_that_others_laid_there_is_refused(tmp_path: Path, how: str):
    """With a sentence; nothing is written into it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    own = shared / f"user-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    if how == "link":
        own.symlink_to(tmp_path / "elsewhere")
    elif how == "file":
        own.touch()
    else:
        own.mkdir()
        own.chmod(0o777)
    with pytest.raises(SpoolError, match=r"the spool .*shared can't be written \(.*Set MLWRAP_SPOOL"):
        spool_root(str(shared))
    assert list((tmp_path / "elsewhere").iterdir()) == []


@needs_root
def test_a_folder_in_a_shared_spool_of_another_user_is_refused(tmp_path: Path):
    """Its name alone does not make it ours."""
    shared = tmp_path / "shared"
    (shared / f"user-{os.getuid()}").mkdir(parents=True)
    shared.chmod(0o1777)
    give_away(shared)
    with pytest.raises(SpoolError, match="belongs to another user"):
        spool_root(str(shared))


@needs_root
def test_folders_of_other_users_are_never_touched(tmp_path: Path):
    """Neither listed among ours nor swept, and no lock is made in them; they are named as foreign."""
    ours, begun, starting = (character * 32 for character in "abc")
    open_run(tmp_path, first(ours)).release()
    open_run(tmp_path, first(begun)).release()
    (tmp_path / starting).mkdir(mode=0o700)
    for key in (begun, starting):
        give_away(tmp_path / key)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert [folder.key for folder in run_folders(tmp_path)] == [ours]
    assert sorted(folder.key for folder in foreign_folders(tmp_path)) == [begun, starting]
    assert not RunFolder(tmp_path / begun).is_open()
    remove_leftovers(tmp_path)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@needs_root
def test_a_folder_that_can_not_be_looked_into_hides_no_other(tmp_path: Path):
    """Of a user who is not root: another's folder of 0700 is passed over."""
    root = tmp_path / "spool"
    (root / ("f" * 32)).mkdir(mode=0o700, parents=True)
    let_through(tmp_path)
    root.chmod(0o777)

    def look() -> None:
        open_run(root, first("e" * 32)).release()
        assert [folder.key for folder in run_folders(root)] == ["e" * 32]
        assert [folder.key for folder in foreign_folders(root)] == ["f" * 32]
        remove_leftovers(root)

    assert as_nobody(look)
