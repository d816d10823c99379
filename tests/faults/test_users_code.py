"""Whatever the code around us does: its result or its own exception comes out, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest

import mlwrap
from mlwrap import current_run, model_run, tracked_training
from mlwrap._journal.reader import read_records
from mlwrap._journal.records import RunEnded
from mlwrap.errors import MlwrapWarning
from tests.spools import waiting_in


def runs() -> dict[str, mlflow.entities.Run]:
    """All runs of the store, by name."""
    client = mlflow.MlflowClient()
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {run.info.run_name: run for run in found}


class NoText(Exception):
    """An exception that can't be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("caf\udce9"), NoText(), SystemExit(["a"]), ValueError("\x00"), BaseException("base")],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_that_is_hard_to_write_down(store: str, error: BaseException):
    """It leaves as it came, and the run is FAILED."""
    with pytest.raises(type(error)) as caught, model_run("r"):
        raise error
    assert caught.value is error
    assert runs()["r"].info.status == "FAILED"


class Notes(list[str]):
    """Notes of an exception that can't be read, as those of a wrapper whose object is gone."""

    def __iter__(self):
        raise RuntimeError("no")


def test_an_exception_whose_traceback_can_not_be_written_down(store: str):
    """It leaves as it came, and the run is FAILED, with its type and message."""
    error = ValueError("theirs")
    error.__notes__ = Notes(["a"])  # type: ignore[attr-defined] # since Python 3.11
    with warnings.catch_warnings(), pytest.raises(ValueError) as caught, model_run("r"):  # noqa: PT011
        warnings.simplefilter("ignore", MlwrapWarning)
        raise error
    assert caught.value is error
    run = runs()["r"]
    assert run.info.status == "FAILED"
    assert run.data.tags["mlwrap.error.message"] == "theirs"


class InterruptedOnce(Exception):
    """Ctrl-C is pressed while its message is read for the first time."""

    pressed = False

    def __str__(self) -> str:
        if not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt
        return "theirs"


def test_ctrl_c_while_the_reason_of_the_end_is_written(store: str, spool: Path):
    """The run is closed all the same, with the status that its error gave it."""
    with pytest.raises(KeyboardInterrupt), model_run("r", delivery="off") as run:
        raise InterruptedOnce
    *_, (last, _) = read_records(spool / run.key / "journal.jsonl")
    assert isinstance(last, RunEnded)
    assert (last.status, last.error) == ("FAILED", "InterruptedOnce: theirs")


@pytest.mark.parametrize("uri", ["bogus://nowhere", "mlruns", "postgresql://nobody@127.0.0.1:9/none"])
def test_a_delivery_that_fails_in_any_way(store: str, uri: str):
    """A warning; the result comes out, and so does the user's own exception."""

    @tracked_training(tracking_uri=uri)
    def train(fail):
        if fail:
            raise ValueError("mine")
        return 5

    with pytest.warns(MlwrapWarning, match="'mlwrap sync' delivers it"):
        assert train(False) == 5
    with pytest.warns(MlwrapWarning), pytest.raises(ValueError, match="mine"):
        train(True)


def test_processes_that_start_together_on_a_store_that_is_not_there(python, tmp_path: Path):
    """The first sweep of a new project: each makes the store, and all of them are in it."""
    done = python(
        "import multiprocessing, mlwrap\n"
        "def train(n):\n"
        "    with mlwrap.model_run(f'r{n}') as run: run.log_metric('loss', n)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    all = [context.Process(target=train, args=(n,)) for n in range(4)]\n"
        "    [p.start() for p in all]; [p.join() for p in all]\n"
        "    print([p.exitcode for p in all])\n",
    )
    assert done.stdout.strip() == "[0, 0, 0, 0]", done.stderr
    assert "MlwrapWarning" not in done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'work/mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert sorted(run.info.run_name for run in found) == ["r0", "r1", "r2", "r3"]


@pytest.mark.parametrize("how", ["closed", "none", "ascii"])
def test_standard_error_is_not_there(store: str, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nobody hears us; training goes on."""
    file = (tmp_path / "err").open("w", encoding="ascii")
    if how == "closed":
        file.close()
    monkeypatch.setattr(sys, "stderr", None if how == "none" else file)
    with model_run("Über", quiet=False) as run:
        run.log_metric("loss", 1.0)
    assert runs()["Über"].data.metrics == {"loss": 1.0}


def test_warnings_that_are_errors(store: str, capsys: pytest.CaptureFixture[str]):
    """Python -W error: ours are still no reason to end a training; they go to standard error."""

    @tracked_training
    def train():
        return object()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train() is not None
    assert "no saver knows builtins.object" in capsys.readouterr().err
    assert runs()["train"].info.status == "FINISHED"


def test_a_start_that_is_interrupted_leaves_nothing_open(
    store: str, spool: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C while the arguments are captured: no run is around the code after it."""

    class Slow:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    @tracked_training
    def train(x): ...

    with pytest.raises(KeyboardInterrupt):
        train(Slow())
    assert current_run() is None
    assert not spool.exists() or waiting_in(spool) == []


def test_arguments_that_are_no_text(store: str, monkeypatch: pytest.MonkeyPatch):
    """A file name that is no UTF-8, in the command line and in a parameter."""
    monkeypatch.setattr(sys, "argv", ["train.py", "caf\udce9.csv"])
    with model_run("r", params={"file": "caf\udce9.csv"}):
        pass
    assert "caf" in runs()["r"].data.params["file"]


def test_the_working_folder_is_removed(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Before the run, and while it is open."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    with model_run("a"):
        shutil.rmtree(gone)
    with model_run("b"):
        pass
    monkeypatch.chdir(tmp_path)
    assert {name: run.info.status for name, run in runs().items()} == {"a": "FINISHED", "b": "FINISHED"}


def test_a_body_that_changes_its_folder(python, tmp_path: Path):
    """A nested run is delivered to where the outer one is."""
    (tmp_path / "elsewhere").mkdir()
    python(
        "import os, mlwrap\n"
        "with mlwrap.model_run('outer'):\n"
        f"    os.chdir({str(tmp_path / 'elsewhere')!r})\n"
        "    with mlwrap.model_run('inner'):\n"
        "        pass\n"
    )
    assert list((tmp_path / "elsewhere").iterdir()) == []
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'work/mlflow.db'}")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    by_name = {run.info.run_name: run for run in found}
    parent = by_name["inner"].data.tags["mlflow.parentRunId"]
    assert parent == by_name["outer"].info.run_id


def test_an_offline_run_keeps_its_children_with_it(store: str, spool: Path):
    """What waits, waits together; sync delivers both."""
    with model_run("outer", delivery="off"), model_run("inner", delivery="inline"):
        pass
    assert runs() == {}
    assert [entry.error for entry in mlwrap.sync()] == [None, None]
    found = runs()
    assert found["inner"].data.tags["mlflow.parentRunId"] == found["outer"].info.run_id
    assert waiting_in(spool) == []


def test_values_that_are_almost_right(store: str):
    """Numpy's integers as steps, names that are a str of their own kind, one metric that is no number."""

    class Name(str):
        __slots__ = ()

    with model_run(Name("r"), tags={"odd": NoText()}) as run:
        with pytest.warns(MlwrapWarning, match="'auc' is no number"):
            run.log_metrics({"loss": 0.5, "auc": None, Name("f1"): np.float32(0.25)}, step=np.int64(3))
        run.set_tags({Name("tag"): Name("text")})
    found = runs()["r"]
    assert found.data.metrics == {"loss": 0.5, "f1": 0.25}
    assert found.data.tags["tag"] == "text"


def test_secrets_among_the_arguments_are_out_of_the_tags(store: str, monkeypatch: pytest.MonkeyPatch):
    """A secret that is known from a parameter is nowhere in what is written before it."""
    monkeypatch.setattr(sys, "argv", ["train.py", "hunter22secret"])
    with model_run("r", params={"password": "hunter22secret"}, tags={"note": "with hunter22secret"}):
        pass
    tags = runs()["r"].data.tags
    assert not [text for text in tags.values() if "hunter22secret" in text]
    assert tags["mlwrap.argv"] == "train.py [redacted]"


def test_a_run_left_in_another_thread(store: str):
    """It ends all the same."""
    context = model_run("r")
    context.__enter__()
    thread = threading.Thread(target=context.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert runs()["r"].info.status == "FINISHED"


def test_threads_have_runs_of_their_own(store: str):
    """Eight at once: each value in its own run."""

    def train(n: int) -> None:
        with model_run(f"r{n}", params={"n": n}) as run:
            assert current_run() is run
            run.log_metric("n", n)

    threads = [threading.Thread(target=train, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = runs()
    assert {name: run.data.metrics["n"] for name, run in found.items()} == {f"r{n}": n for n in range(8)}


def test_a_folder_that_holds_the_spool_is_no_artifact(store: str, tmp_path: Path):
    """It would be copied into itself."""
    with model_run("r") as run, pytest.warns(MlwrapWarning, match="holds the spool"):
        run.log_artifact(tmp_path)
    assert runs()["r"].info.status == "FINISHED"


def test_umask(store: str, spool: Path):
    """Run folders are their owner's alone, whatever the mask."""
    before = os.umask(0)
    try:
        with model_run("r", delivery="off") as run:
            run.log_text("x", "x.txt")
    finally:
        os.umask(before)
    (folder,) = waiting_in(spool)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "journal.jsonl").stat().st_mode & 0o777 == 0o600
