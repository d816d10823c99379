"""Disks that are full, broken, read-only or elsewhere, and files that are damaged: what is whole arrives."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import stat
import subprocess
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModel, Run

import mlwrap
from mlwrap._journal.writer import MAX_WAITING_RECORDS
from mlwrap._mlflow.client import Client
from mlwrap._run.run import recorder_of
from mlwrap.errors import MlwrapWarning, SaveError, SpoolError
from tests.faults.weights import Weights, register
from tests.spools import waiting_in

MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[object]:
    """Mount a small filesystem of its own."""
    mounted: list[Path] = []

    def do(name: str, size: str = "2m") -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip(f"mounting a tmpfs is not allowed here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield do
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all the room there is on a disk, but for some; gives the file that takes it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - anything else is none of the test's
    if leave:
        os.truncate(ballast, ballast.stat().st_size - leave)
    return ballast


def only_run() -> Run:
    """The one run of the store."""
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return run


def models() -> list[LoggedModel]:
    """The logged models of the one run, oldest first."""
    found = mlflow.MlflowClient().search_logged_models([only_run().info.experiment_id])
    return sorted(found, key=lambda model: model.creation_timestamp)


def steps(metric: str = "loss") -> list[int]:
    """The steps of a metric of the one run."""
    history = mlflow.MlflowClient().get_metric_history(only_run().info.run_id, metric)
    return [point.step for point in history]


# The spool's disk.


def test_a_full_spool_ends_no_training_and_loses_nothing_if_room_comes(mount, store: str):
    """What the disk does not take waits in memory, said once, and is written when there is room."""
    spool = mount("small")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", MlwrapWarning)
        with mlwrap.model_run("r", spool=spool) as run:
            run.log_metric("loss", 0.0, step=0)
            ballast = fill(spool)
            for step in range(1, 500):
                run.log_metric("loss", 1.0, step=step)
            ballast.unlink()
            run.log_metric("loss", 1.0, step=500)
    (warning,) = said
    assert "No space left on device" in str(warning.message)
    assert "wait in memory" in str(warning.message)
    assert warning.filename == __file__
    assert steps() == list(range(501))
    assert only_run().info.status == "FINISHED"
    assert "mlwrap.lost_records" not in only_run().data.tags
    assert waiting_in(spool) == []


def test_a_spool_that_is_full_to_the_end(mount, store: str):
    """The room that was kept takes the run's end; the run says how many records are lost."""
    spool = mount("small")
    with (
        pytest.warns(MlwrapWarning, match="records are lost"),
        pytest.warns(MlwrapWarning, match="can't be written"),
        mlwrap.model_run("r", spool=spool) as run,
    ):
        run.log_metric("loss", 0.0, step=0)
        ballast = fill(spool)
        for step in range(1, MAX_WAITING_RECORDS + 500):
            run.log_metric("loss", 1.0, step=step)
        run.log_params({"late": 1})
    there = steps()
    found = only_run()
    assert found.info.status == "FINISHED"
    assert there == list(range(len(there)))
    lost = int(found.data.tags["mlwrap.lost_records"])
    # The parameters, too, came when the memory was full.
    assert lost == MAX_WAITING_RECORDS + 500 + 1 - len(there)
    assert waiting_in(spool) == [ballast]


def test_parameters_go_before_metrics_where_there_is_little_room(mount, store: str):
    """In the room that was kept for the end."""
    spool = mount("small")
    with pytest.warns(MlwrapWarning), mlwrap.model_run("r", spool=spool) as run:
        fill(spool)
        for step in range(5000):
            run.log_metric("loss", 1.0, step=step)
        run.log_params({"late": 1})
    assert only_run().data.params == {"late": "1"}
    assert int(only_run().data.tags["mlwrap.lost_records"]) > 0


def test_a_spool_without_room_to_start_is_an_error_before_training(mount, store: str):
    """Nothing of the run is left."""
    spool = mount("small")
    ballast = fill(spool)
    with pytest.raises(SpoolError, match="No space left on device"), mlwrap.model_run("r", spool=spool):
        pytest.fail("the body ran")
    assert waiting_in(spool) == [ballast]


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.ESTALE])
def test_a_disk_with_errors_ends_no_training(monkeypatch: pytest.MonkeyPatch, store: str, number: int):
    """Any error at any third write: all of it arrives, in order, and one warning comes."""
    real, calls = os.write, []
    with warnings.catch_warnings(record=True) as said, mlwrap.model_run("r") as run:
        warnings.simplefilter("always", MlwrapWarning)
        journal = recorder_of(run).journal._writer._descriptor

        def bad(descriptor: int, data: bytes) -> int:
            if descriptor == journal:
                calls.append(1)
                if len(calls) % 3 == 0:
                    raise OSError(number, os.strerror(number))
            return real(descriptor, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", bad)
            for step in range(300):
                run.log_metric("loss", 1.0, step=step)
    assert [os.strerror(number) in str(w.message) for w in said] == [True]
    assert steps() == list(range(300))


@pytest.mark.filterwarnings("ignore:.*'tick' went back")  # where a tick comes within a tick
def test_a_write_that_a_signal_interrupts_is_whole(store: str):
    """A timer fires thousands of times while points are logged, and its handler logs, too."""
    ticks = itertools.count()
    with mlwrap.model_run("r") as run:

        def tick(*_: object) -> None:
            run.log_metric("tick", 1.0, step=next(ticks))  # and a tick may come within a tick

        before = signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            for step in range(5000):
                run.log_metric("loss", 1.0, step=step)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert steps() == list(range(5000))
    assert sorted(steps("tick")) == list(range(next(ticks)))


# The stage.


def test_a_model_that_there_is_no_room_for(mount, store: str):
    """Its stage is gone, it is FAILED; the model before it is whole; one warning; the caller gets it."""
    spool = mount("small")

    @mlwrap.tracked_training(spool=spool)
    def train() -> Weights:
        mlwrap.current_run().log_model(Weights(), "before")
        return Weights(4 * MEGABYTE)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", MlwrapWarning)
        model = train()
    assert model.size == 4 * MEGABYTE
    (warning,) = said
    assert (
        "'weights' could not be saved: The saver 'weights' of tests.faults.weights failed: OSError: [E"
        in str(warning.message)
    )
    before, after = models()
    assert (before.name, before.status.value) == ("before", "READY")
    assert (after.name, after.status.value) == ("weights", "FAILED")
    assert "No space left" in after.tags["mlwrap.error"]
    assert mlwrap.load_model(before.model_uri).size == 1000
    assert only_run().info.status == "FINISHED"
    assert waiting_in(spool) == []


@pytest.mark.parametrize("size", [4 * MEGABYTE, 0])
def test_strict_carries_the_model_that_there_is_no_room_for(mount, store: str, size: int):
    """SaveError, where not even the stage's folder can be made, too."""
    spool = mount("small")

    @mlwrap.tracked_training(spool=spool, strict=True)
    def train() -> Weights:
        if not size:
            fill(spool)
        return Weights(size)

    with pytest.raises(SaveError, match="No space left") as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore", MlwrapWarning)
        train()
    assert caught.value.value.size == size
    assert [model.status.value for model in models()] == ["FAILED"]
    assert only_run().info.status == "FAILED"


def test_a_text_that_there_is_no_room_for_leaves_no_half(mount, store: str):
    """Neither on the disk nor in MLflow."""
    spool = mount("small")
    with mlwrap.model_run("r", spool=spool) as run:
        run.log_text("whole", "whole.txt")
        with pytest.warns(MlwrapWarning, match=r"log_text\(\) failed.*No space left"):
            run.log_text("x" * 4 * MEGABYTE, "half.txt")
        assert [path.name for path in spool.glob("*/staged/*")] == ["1-whole.txt"]
    names = [file.path for file in mlflow.MlflowClient().list_artifacts(only_run().info.run_id)]
    assert names == ["whole.txt"]


def test_the_temporary_folder_does_not_matter(store: str, python, tmp_path: Path):
    """TMPDIR that is not there: the stage is in the spool."""
    done = python(
        "import mlwrap\n"
        "with mlwrap.model_run('r') as run:\n"
        "    run.log_text('hello', 'note.txt')\n"
        "print(run.run_id)\n",
        TMPDIR=str(tmp_path / "nowhere"),
    )
    assert done.stdout.strip() == only_run().info.run_id
    assert "mlwrap" not in done.stderr


# The artifact store's disk.


@pytest.fixture
def elsewhere(mount, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact store on another disk, a small one; runs go there."""
    folder = mount("artifacts")
    mlflow.create_experiment("elsewhere", artifact_location=folder.as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    return folder


def test_a_model_goes_to_another_disk_whole(elsewhere: Path, spool: Path):
    """Copied, compared, renamed: it loads, and no part of it is left under another name."""
    with mlwrap.model_run("r") as run:
        run.log_model(Weights(5000))
    (model,) = models()
    assert model.status.value == "READY"
    place = Path(model.artifact_location.removeprefix("file://"))
    assert place.is_relative_to(elsewhere)
    assert [path.name for path in place.parent.parent.iterdir()] == [place.parent.name]
    assert mlwrap.load_model(model.model_uri).size == 5000
    assert waiting_in(spool) == []


def test_an_artifact_store_without_room(elsewhere: Path, spool: Path):
    """Nothing of the model is to be seen there, it is not READY, it waits; with room, `sync` delivers it."""
    ballast = fill(elsewhere, leave=64 * 1024)
    with pytest.warns(MlwrapWarning, match="'mlwrap sync' delivers it"), mlwrap.model_run("r") as run:
        run.log_metric("loss", 1.0)
        run.log_model(Weights(MEGABYTE))
    assert [model.status.value for model in models()] == ["PENDING"]
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == [ballast]
    assert steps() == [0]
    (kept,) = spool.glob("*/staged/*/data/weights")
    assert kept.stat().st_size == MEGABYTE
    ballast.unlink()
    assert [synced.error for synced in mlwrap.sync()] == [None]
    (model,) = models()
    assert model.status.value == "READY"
    assert mlwrap.load_model(model.model_uri).size == MEGABYTE
    assert waiting_in(spool) == []


def test_a_read_only_artifact_store_is_named(elsewhere: Path):
    """The server answers, so "could not be reached" would send its reader the wrong way."""
    subprocess.run(["mount", "-o", "remount,ro", str(elsewhere)], check=True)
    with (
        pytest.warns(MlwrapWarning, match="can't be read or written: .*Read-only file system: ") as said,
        mlwrap.model_run("r") as run,
    ):
        run.log_text("a", "a.txt")
        run.log_model(Weights())
    assert "could not be reached" not in str(said[0].message)
    subprocess.run(["mount", "-o", "remount,rw", str(elsewhere)], check=True)
    assert [done.error for done in mlwrap.sync()] == [None]
    assert [model.status for model in models()] == ["READY"]


def test_a_read_only_sqlite_store_is_named(mount, empty_store: Path, monkeypatch: pytest.MonkeyPatch, python):
    """In one line. Another process opens the store, for a file that is open would forbid the mount."""
    folder = mount("store")
    shutil.copy(empty_store, folder / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    done = python("import mlwrap\nwith mlwrap.model_run('r'):\n    pass\n")
    said = done.stderr.rpartition("MlwrapWarning: ")[2]  # MLflow itself prints the SQL before
    assert "mlflow.db can't be written: attempt to write a readonly database" in said
    assert "INSERT" not in said


def test_a_place_that_is_taken(store: str, spool: Path, monkeypatch: pytest.MonkeyPatch):
    """Somebody's files lie where the model is to go: they are left alone, and it is FAILED."""
    real = Client.create_model

    def taken(self: Client, *args: object):
        made = real(self, *args)
        place = Path(made.artifact_location.removeprefix("file://"))
        place.mkdir(parents=True)
        (place / "theirs").write_text("theirs")
        return made

    monkeypatch.setattr(Client, "create_model", taken)
    with pytest.warns(MlwrapWarning, match="'mlwrap sync' tries it again"), mlwrap.model_run("r") as run:
        run.log_model(Weights())
    (model,) = models()
    assert model.status.value == "FAILED"
    assert only_run().info.status == "FINISHED"
    place = Path(model.artifact_location.removeprefix("file://"))
    assert [path.name for path in place.iterdir()] == ["theirs"]
    shutil.rmtree(place)
    assert [synced.error for synced in mlwrap.sync()] == [None]
    assert [model.status.value for model in models()] == ["READY"]


# Folders that can't be written.


def test_a_file_where_the_spool_is_to_be(store: str, tmp_path: Path):
    """Said before training starts."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(SpoolError, match="Not a directory"),
        mlwrap.model_run("r", spool=tmp_path / "file/spool"),
    ):
        pytest.fail("the body ran")


def test_a_spool_that_is_mounted_read_only(mount, store: str):
    """Said before training starts."""
    spool = mount("small")
    subprocess.run(["mount", "-o", "remount,ro", str(spool)], check=True)
    with pytest.raises(SpoolError, match="Read-only file system"), mlwrap.model_run("r", spool=spool):
        pytest.fail("the body ran")


# Damage.


def damaged(spool: Path, damage) -> None:
    """A run of 100 points that waits, with its journal's bytes changed by ``damage``."""
    with mlwrap.model_run("r", delivery="off") as run:
        for step in range(100):
            run.log_metric("loss", 1.0, step=step)
    (journal,) = spool.glob("*/journal.jsonl")
    journal.write_bytes(damage(bytearray(journal.read_bytes())))
    assert [synced.error for synced in mlwrap.sync()] == [None]


def line_start(content: bytearray, number: int) -> int:
    """Where in a journal the record of this step begins."""
    return content.rindex(b"\n", 0, content.index(b'"step":%d,' % number)) + 1


def test_a_bit_that_flipped_costs_one_record(store: str, spool: Path):
    """The records before and after it are there; the run says that one is damaged."""

    def flip(content: bytearray) -> bytearray:
        content[line_start(content, 50) + 3] ^= 0x80
        return content

    damaged(spool, flip)
    assert steps() == [step for step in range(100) if step != 50]
    assert only_run().data.tags["mlwrap.damaged_records"].startswith("1: number ")
    assert only_run().info.status == "FINISHED"


def test_a_block_of_zeros_costs_what_it_covers(store: str, spool: Path):
    """As a filesystem leaves it after a power cut."""

    def zero(content: bytearray) -> bytearray:
        start, end = line_start(content, 30) + 10, line_start(content, 60) + 10
        content[start:end] = bytes(end - start)
        return content

    damaged(spool, zero)
    assert steps() == [step for step in range(100) if not 30 <= step <= 60]
    assert only_run().data.tags["mlwrap.damaged_records"].startswith("31: numbers ")


def test_a_torn_tail_ends_the_run_as_killed(store: str, spool: Path):
    """The whole records before it are there; the run's end is not, so nobody claims that it finished."""
    damaged(spool, lambda content: content[: line_start(content, 99) + 20])
    assert steps() == list(range(99))
    assert only_run().info.status == "KILLED"


# What the user's own code does to the process.


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_modes_are_ours_whatever_the_umask(store: str, spool: Path, mask: int):
    """Folders 0700, the journal and locks 0600."""
    before = os.umask(mask)
    try:
        with mlwrap.model_run("r") as run:
            run.log_text("hello", "note.txt")
            (folder,) = waiting_in(spool)
            for path in (spool, folder, folder / "staged"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
            for path in folder.iterdir():
                assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o600, path
    finally:
        os.umask(before)
    assert only_run().info.status == "FINISHED"


@pytest.mark.parametrize("removed", [False, True])
def test_the_working_folder_changes(store: str, tmp_path: Path, removed: bool):
    """The body goes elsewhere, and that folder may even be removed: all arrives where it was to go."""
    other = tmp_path / "other"
    other.mkdir()
    with mlwrap.model_run("r", spool=tmp_path / "spool") as run:
        os.chdir(other)
        if removed:
            other.rmdir()
        run.log_text("hello", "note.txt")
        run.log_model(Weights())
        run.log_metric("loss", 1.0)
    os.chdir(tmp_path / "work")
    found = only_run()
    assert found.info.status == "FINISHED"
    assert mlflow.artifacts.load_text(f"runs:/{found.info.run_id}/note.txt") == "hello"
    assert [model.status.value for model in models()] == ["READY"]
    assert not list(tmp_path.glob("other/*"))


def test_the_stage_is_removed_under_our_feet(store: str, spool: Path):
    """A body that cleans up too much: the run ends with what is there, and says what is not."""
    with pytest.warns(MlwrapWarning), mlwrap.model_run("r") as run:
        run.log_metric("loss", 1.0)
        shutil.rmtree(next(spool.glob("*/")))
        run.log_text("hello", "note.txt")
    assert run.status == "FINISHED"


def test_a_link_in_place_of_the_stage_is_not_followed(store: str, spool: Path, tmp_path: Path):
    """Cleaning up removes the link and leaves what it leads to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "theirs").write_text("theirs")
    with mlwrap.model_run("r") as run:
        folder = next(spool.glob("*/"))
        run.log_metric("loss", 1.0)
        (folder / "staged").mkdir(exist_ok=True)
        (folder / "staged/link").symlink_to(outside)
    assert only_run().info.status == "FINISHED"
    assert (outside / "theirs").read_text() == "theirs"
    assert waiting_in(spool) == []


def test_thirty_two_threads(store: str):
    """A thousand points each: all there, each thread's in its order."""
    with mlwrap.model_run("r") as run:

        def log(thread: int) -> None:
            for step in range(1000):
                run.log_metric(f"loss{thread}", 1.0, step=step)

        threads = [threading.Thread(target=log, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(steps(f"loss{number}") == list(range(1000)) for number in range(32))
