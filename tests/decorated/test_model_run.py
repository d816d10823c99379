"""The context manager, and what a body can say of its run."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import mlflow
import mlflow.artifacts
import pytest

from mlwrap import current_run, model_run, savers, sync
from mlwrap._savers import saver_registry
from mlwrap.errors import MlwrapWarning, OptionError, RunStateError


def test_everything_that_a_body_can_log(runs, tmp_path: Path):
    """Parameters, metrics, tags, files, text and figures."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/a.csv").write_text("1,2")
    figure = Figure()
    figure.subplots().plot([1, 2])
    with model_run("ad-hoc", params={"optimizer": {"name": "adam", "beta": 0.9}}, tags={"a": 1}) as run:
        assert current_run() is run
        run.log_params({"units": 3})
        run.log_metrics({"loss": 0.5, "accuracy": 0.25}, step=0)
        run.log_metric("loss", 0.25, step=1)
        run.set_tags({"b": True})
        run.log_text("hello", "notes/hello.txt")
        run.log_artifact(tmp_path / "plots")
        run.log_artifact(tmp_path / "plots/a.csv", "tables")
        run.log_figure(figure, "figures/loss.png")
        run.record({"score": 7})
        (tmp_path / "plots/a.csv").write_text("changed since")
    found = runs()["ad-hoc"]
    assert found.data.params == {"optimizer.name": "adam", "optimizer.beta": "0.9", "units": "3"}
    assert found.data.metrics == {"loss": 0.25, "accuracy": 0.25, "score": 7.0}
    assert found.data.tags.items() >= {"a": "1", "b": "True"}.items()
    base = f"runs:/{run.run_id}"
    assert mlflow.artifacts.load_text(f"{base}/notes/hello.txt") == "hello"
    assert mlflow.artifacts.load_text(f"{base}/plots/a.csv") == "1,2"
    assert mlflow.artifacts.load_text(f"{base}/tables/a.csv") == "1,2"
    assert mlflow.artifacts.load_image(f"{base}/figures/loss.png").size == (640, 480)


def test_a_parameter_that_changes_is_kept_under_another_name(runs):
    """MLflow's parameters can't change; the second value is not lost, nor is the batch."""
    with model_run("r", params={"lr": 0.1}) as run:
        run.log_params({"lr": 0.1})
        with pytest.warns(MlwrapWarning, match=r"'lr' was '0.1' and can't change.* logged as 'lr.2'"):
            run.log_params({"lr": 0.01, "units": 3})
    assert runs()["r"].data.params == {"lr": "0.1", "lr.2": "0.01", "units": "3"}


def test_a_name_that_mlflow_refuses_costs_no_other(runs):
    """It is renamed, and the others arrive beside it."""
    with model_run("r") as run:
        run.log_metrics({"bad#name": 1.0, "good": 2.0})
        run.set_tags({"bad#tag": 1})
    metrics = runs()["r"].data.metrics
    assert metrics["good"] == 2.0
    assert len(metrics) == 2


@pytest.mark.parametrize("path", ["../up.txt", "/etc/up.txt", "a/../../up.txt", "", "."])
def test_an_artifact_path_stays_inside(runs, path: str):
    """A warning with what was expected; the run goes on."""
    with model_run("r") as run, pytest.warns(MlwrapWarning, match="is no artifact path"):
        run.log_text("x", path)
    assert runs()["r"].info.status == "FINISHED"


def test_an_artifact_that_is_not_there_is_a_warning(runs):
    """That names it."""
    with model_run("r") as run, pytest.warns(MlwrapWarning, match=r"nothing\.txt is not there"):
        run.log_artifact("nothing.txt")
    assert runs()["r"].info.status == "FINISHED"


def test_a_run_that_has_ended_says_so(runs):
    """A call that can't do anything any more is the caller's mistake."""
    with model_run("r") as run:
        pass
    with pytest.raises(RunStateError, match=r"log_metric\(\) was called on run 'r', which has ended"):
        run.log_metric("loss", 1.0)


def test_a_context_is_entered_once():
    """A second run is a second model_run()."""
    context = model_run("r", delivery="off")
    with context:
        pass
    with pytest.raises(RunStateError, match="once"), context:
        pass


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((3,), {}),
        ((), {"params": [1]}),
        ((), {"tags": 1}),
        ((), {"nothing": 1}),
        ((), {"preemption_signal": "USR1"}),
        ((), {"preemption_signal": "SIGKILL"}),
    ],
)
def test_a_wrong_option_is_an_error_before_the_run(args: tuple, options: dict, spool: Path):
    """Nothing is started."""
    with pytest.raises(OptionError):
        model_run(*args, **options)
    assert not spool.exists()


def test_an_exception_ends_the_run_as_failed(runs):
    """And goes on to the caller."""
    with pytest.raises(ZeroDivisionError), model_run("r"):
        1 / 0  # noqa: B018
    assert runs()["r"].info.status == "FAILED"


def test_what_a_run_says_of_itself(runs, capsys: pytest.CaptureFixture[str]):
    """One line at the start, one block at the end, on standard error; nothing on standard output."""
    with model_run("loud", quiet=False, experiment="digits"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("mlwrap: run 'loud' started, experiment 'digits' at sqlite:///")
    assert lines[1].startswith("mlwrap: run 'loud' FINISHED after ")
    assert lines[2] == f"        run {runs()['loud'].info.run_id}"
    assert len(lines) == 3


def test_tasks_have_runs_of_their_own(runs):
    """What a task logs is in its own run; one within it knows its parent; what is cancelled is KILLED."""

    async def one(number: int, begun: asyncio.Event) -> None:
        with model_run(f"outer{number}", delivery="off"):
            await asyncio.sleep(0)
            with model_run(f"inner{number}", delivery="off"):
                current_run().log_metric("number", number)
                begun.set()
                await asyncio.sleep(0 if number else 600)

    async def all_of_them() -> None:
        begun = [asyncio.Event() for _ in range(5)]
        tasks = [asyncio.create_task(one(number, event)) for number, event in enumerate(begun)]
        await asyncio.gather(*(event.wait() for event in begun))
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(all_of_them())
    sync()
    found = runs()
    assert len(found) == 10
    for number in range(5):
        outer, inner = found[f"outer{number}"], found[f"inner{number}"]
        assert inner.data.metrics == {"number": number}
        assert inner.data.tags["mlflow.parentRunId"] == outer.info.run_id
        assert outer.info.status == inner.info.status == ("FINISHED" if number else "KILLED")


def test_a_forked_child_leaves_the_run_to_its_parent(runs):
    """It can call everything, and records and ends nothing."""
    with model_run("r") as run:
        child = os.fork()
        if child == 0:
            try:
                run.log_metric("child", 1.0)
                os._exit(0 if not run.recording else 1)
            except BaseException:  # noqa: BLE001 - a child of pytest must never go on
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        run.log_metric("parent", 1.0)
    found = runs()["r"]
    assert found.data.metrics == {"parent": 1.0}
    assert found.info.status == "FINISHED"


class NoteSaver:
    """A saver of the user's own, which tells the parameters that a note was made with."""

    name = "note"
    format = 1
    default_name = "note"
    frameworks = ("sys",)

    def matches(self, value):
        return isinstance(value, Note)

    def save(self, value, folder, options):
        (folder / "note.txt").write_text("written")
        return savers.Saved()

    def metrics(self, value):
        return ()

    def params(self, value):
        return {"pages": 3, "per_page": 6 / value.lines}

    def load(self, folder, details, *, into=None, trust=False):
        return (folder / "note.txt").read_text()


class Note:
    """What it saves."""

    def __init__(self, lines):
        self.lines = lines


def test_a_saver_may_tell_parameters_and_one_that_fails_costs_a_warning(store: str, monkeypatch):
    """They become the run's; whatever the saver raises, the model is logged."""
    monkeypatch.setattr(saver_registry, "_savers", list(saver_registry._savers))
    savers.register(NoteSaver())
    with model_run("r") as run:
        run.record(Note(2))
        with pytest.warns(MlwrapWarning, match="ZeroDivisionError"):
            run.log_model(Note(0), "empty")
    assert mlflow.get_run(run.run_id).data.params == {"params.pages": "3", "params.per_page": "3.0"}
    assert [(model.name, model.status) for model in run.models] == [("note", "READY"), ("empty", "READY")]
