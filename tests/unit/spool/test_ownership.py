"""Nothing outside a run folder, and nothing of another user's, is followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mlwrap._journal.records import RunStarted
from mlwrap._spool.open_run import open_run
from mlwrap._spool.ownership import ForeignFolder, make_private
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import JournalError
from tests.users import give_away, needs_root


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The folder of a run that has ended, with a model staged."""
    first = RunStarted(key="a" * 32, name="n", time=1, tracking_uri="sqlite:///x", folder="/")
    run = open_run(tmp_path, first)
    stage = run.folder.stage("model")
    (stage / "data").mkdir()
    (stage / "data" / "weights").write_text("w")
    run.release()
    return run.folder


def test_a_run_folder_of_our_own_passes(folder: RunFolder):
    """As it is while a run is open, and while it is delivered."""
    folder.check()
    with folder.delivery_lease():
        folder.check()
    assert folder.is_ours()


@pytest.mark.parametrize(
    "name", ["journal.jsonl", "delivered.json", "delivered.part", "writer.lock", "staged"]
)
def test_a_link_in_a_run_folder_is_refused(folder: RunFolder, tmp_path: Path, name: str):
    """Delivery would write to what it leads to, or move it."""
    outside = tmp_path / "outside"
    if (folder.path / name).exists():
        (folder.path / name).rename(outside)
    (folder.path / name).symlink_to(outside)
    with pytest.raises(JournalError, match=f"{name} is a link; it was not touched"):
        folder.check()
    assert not folder.is_open()


def test_a_run_folder_that_is_a_link_is_refused(folder: RunFolder, tmp_path: Path):
    """It leads to a folder that looks like one."""
    (tmp_path / ("b" * 32)).symlink_to(folder.path)
    with pytest.raises(JournalError, match="is a link"):
        RunFolder(tmp_path / ("b" * 32)).check()


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_run_folder_that_others_can_write_to_is_refused(folder: RunFolder, mode: int):
    """What is in it may be another user's work."""
    folder.path.chmod(mode)
    with pytest.raises(JournalError, match="other users can write to"):
        folder.check()


def test_a_run_folder_that_is_gone_is_named(folder: RunFolder):
    """Nothing is made to find that out."""
    folder.remove()
    with pytest.raises(JournalError, match="is gone"):
        folder.check()
    assert not folder.path.exists()


@needs_root
def test_a_run_folder_of_another_user_is_refused(folder: RunFolder):
    """Whole, or one file in it."""
    os.chown(folder.journal, 65534, 65534)
    with pytest.raises(JournalError, match=r"journal.jsonl belongs to another user \(uid 65534\)"):
        folder.check()
    give_away(folder.path)
    with pytest.raises(ForeignFolder, match="belongs to another user"):
        folder.check()


def test_a_staged_path_is_found(folder: RunFolder):
    """A file, a folder, and what is not there: whoever asks for it finds that out."""
    for path in (
        "staged/1-model",
        "staged/1-model/data/weights",
        "staged/2-gone",
        "staged/1-model/data/weights/no",
    ):
        assert folder.staged_path(path) == folder.path / path


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "/",
        "/etc/passwd",
        "staged",
        "staged/",
        "staged/..",
        "staged/../journal.jsonl",
        "journal.jsonl",
        "../x",
        "./../staged/x",
        "staged/1-model/../../../x",
        "staged/a\x00b",
        "Staged/1-model",
    ],
)
def test_a_path_out_of_the_stage_is_refused(folder: RunFolder, path: str):
    """Whatever the journal says."""
    with pytest.raises(JournalError, match="is no path in the 'staged' folder"):
        folder.staged_path(path)


@pytest.mark.parametrize(
    "where", ["staged/1-model/data", "staged/1-model/data/weights", "staged/1-model", "staged"]
)
def test_a_link_on_the_way_to_what_is_staged_is_refused(folder: RunFolder, tmp_path: Path, where: str):
    """At the end, in the middle, or below."""
    (folder.path / where).rename(tmp_path / "outside")
    (folder.path / where).symlink_to(tmp_path / "outside")
    for asked in ("staged/1-model/data/weights", "staged/1-model"):
        with pytest.raises(JournalError, match="is a link; it was not touched"):
            folder.staged_path(asked)


def test_what_is_no_regular_file_is_refused(folder: RunFolder, tmp_path: Path):
    """A pipe, and a file that has another name elsewhere."""
    data = folder.path / "staged/1-model/data"
    os.mkfifo(data / "pipe")
    with pytest.raises(JournalError, match="pipe is no regular file"):
        folder.staged_path("staged/1-model")
    (data / "pipe").unlink()
    os.link(data / "weights", tmp_path / "other name")
    with pytest.raises(JournalError, match="weights is a hard link"):
        folder.staged_path("staged/1-model")


def test_a_stage_without_end_is_refused(folder: RunFolder):
    """It costs an error, and no recursion."""
    os.chdir(folder.path / "staged/1-model")
    for _ in range(120):
        Path("d").mkdir(mode=0o700)
        os.chdir("d")
    with pytest.raises(JournalError, match="more than 100 folders deep"):
        folder.staged_path("staged/1-model")


@needs_root
def test_a_staged_file_of_another_user_is_refused(folder: RunFolder):
    """Another user laid it there, or could change it."""
    os.chown(folder.path / "staged/1-model/data/weights", 65534, 65534)
    with pytest.raises(JournalError, match="weights belongs to another user"):
        folder.staged_path("staged/1-model")


def test_folders_are_private_whatever_the_umask(tmp_path: Path):
    """Those on the way, too: who can write to one of them can put another in its place."""
    before = os.umask(0)
    try:
        make_private(tmp_path / "a/b/c")
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("a", "a/b", "a/b/c")} == {0o700}
