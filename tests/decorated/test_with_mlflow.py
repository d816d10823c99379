"""A training process that has imported MLflow: its own calls and ours go together."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import fluent

from mlwrap import configure, current_run, model_run, tracked_training
from mlwrap.errors import MlwrapWarning, OptionError
from tests.spools import folder_of

PARENT = "mlflow.parentRunId"


def test_a_metric_that_mlflow_is_told_lands_in_our_run(runs):
    """Parameters, tags and artifacts, too; the run's status and end are ours to tell."""

    @tracked_training
    def train(units=3):
        mlflow.log_metric("loss", 0.5)
        mlflow.log_param("theirs", 1)
        mlflow.set_tag("phase", "one")
        return {"accuracy": 0.9}

    train()
    assert mlflow.active_run() is None
    (run,) = runs().values()
    assert run.data.metrics == {"loss": 0.5, "accuracy": 0.9}
    assert run.data.params == {"theirs": "1", "units": "3"}
    assert run.data.tags["phase"] == "one"
    assert run.info.status == "FINISHED"


def test_an_exception_there_is_failed(runs):
    """MLflow's own end of the run says the same as ours."""
    with pytest.raises(ZeroDivisionError), model_run("r"):
        mlflow.log_metric("loss", 1 / 0)
    assert runs()["r"].info.status == "FAILED"
    assert mlflow.active_run() is None


def test_runs_of_both_kinds_nest(runs):
    """Theirs around ours around theirs around ours: each under the one before."""
    with mlflow.start_run(run_name="a"), model_run("b"):
        with mlflow.start_run(run_name="c", nested=True), model_run("d"):
            mlflow.log_metric("deep", 1.0)
        mlflow.log_metric("shallow", 1.0)
    found = runs()
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in found.items()}
    ids = {name: run.info.run_id for name, run in found.items()}
    assert parents == {"a": None, "b": ids["a"], "c": ids["b"], "d": ids["c"]}
    assert found["d"].data.metrics == {"deep": 1.0}
    assert found["b"].data.metrics == {"shallow": 1.0}


def test_a_body_that_ends_the_active_run_itself(runs):
    """It may: ours has its own end all the same."""
    with model_run("r"):
        mlflow.end_run()
    assert runs()["r"].info.status == "FINISHED"


def test_another_mlflow_is_left_alone(runs, store: str, tmp_path):
    """Our run is delivered elsewhere; the body's own calls go where they went before."""
    other = f"sqlite:///{tmp_path / 'other.db'}"
    with mlflow.start_run(run_name="theirs"), model_run("ours", tracking_uri=other):
        mlflow.log_metric("loss", 1.0)
    assert runs()["theirs"].data.metrics == {"loss": 1.0}


def test_a_server_that_is_away_is_said_once_and_costs_nothing_else(runs, monkeypatch: pytest.MonkeyPatch):
    """Our own calls are written down; MLflow's can't land."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    def train():
        with model_run("r") as run:
            run.log_metric("loss", 1.0)
            assert (mlflow.active_run(), mlflow.active_run(), run.run_id) == (None, None, None)

    with pytest.warns(MlwrapWarning) as caught:
        train()
    first, second = (str(warning.message) for warning in caught)
    assert "calls to mlflow.* in its body do not log to it" in first
    assert "no server listens at 127.0.0.1:9" in first
    assert "'mlwrap sync' delivers it" in second


def test_a_body_that_does_not_call_mlflow_makes_no_run_before_its_end(runs):
    """MLflow is imported here; the run's own calls and a nested run need nothing of it."""
    with model_run("ours") as run, model_run("nested"):
        run.log_metric("loss", 1.0)
        assert folder_of(run).progress().run_id is None
    assert parents(runs()) == {"ours": None, "nested": "ours"}


def test_the_id_of_an_open_run_is_that_of_the_run_in_mlflow(runs):
    """Whoever asks for it, the run is created for it."""
    with model_run("ours") as run:
        assert mlflow.get_run(run.run_id).info.status == "RUNNING"
        mlflow.MlflowClient().log_metric(run.run_id, "loss", 1.0)
    assert runs()["ours"].data.metrics == {"loss": 1.0}


@pytest.mark.parametrize(
    "before",
    ["", "import mlwrap._mlflow.client\n", "with mlwrap.model_run('first'): pass\n"],
    ids=["nobody", "mlwrap", "a run that is delivered here"],
)
def test_a_body_that_imports_mlflow_itself(runs, python, before: str):
    """Whether or not mlwrap has imported it before."""
    done = python(
        "import mlwrap\n"
        f"{before}"
        "@mlwrap.tracked_training\n"
        "def train():\n"
        "    import mlflow\n"
        "    mlflow.log_metric('a', 1.0)\n"
        "    with mlflow.start_run(run_name='theirs'):\n"
        "        mlflow.log_metric('b', 2.0)\n"
        "train()\n"
    )
    assert "Traceback" not in done.stderr
    found = runs()
    found.pop("first", None)
    assert parents(found) == {"train": None, "theirs": "train"}
    assert {name: run.data.metrics for name, run in found.items()} == {
        "train": {"a": 1.0},
        "theirs": {"b": 2.0},
    }


def parents(found) -> dict[str, str | None]:
    """Names of the runs to the names of their parents."""
    names = {run.info.run_id: name for name, run in found.items()}
    return {name: names.get(run.data.tags.get(PARENT, "")) for name, run in found.items()}


def experiment(run) -> str:
    """The name of the experiment that a run is in."""
    return mlflow.get_experiment(run.info.experiment_id).name


def test_start_run_in_the_body_makes_a_child(runs):
    """As the script had it, with name, tags and what is logged in it; then ours is the active run again."""

    @tracked_training
    def train(rate=0.1):
        for fold in range(2):
            with mlflow.start_run(run_name=f"fold {fold}", tags={"fold": str(fold)}) as run:
                assert mlflow.active_run().info.run_id == run.info.run_id
                mlflow.log_param("rate", "another text than ours")
                mlflow.log_metric("loss", fold)
            assert mlflow.active_run().info.run_id == current_run().run_id
        mlflow.log_metric("mean", 0.5)

    train()
    found = runs()
    assert parents(found) == {"train": None, "fold 0": "train", "fold 1": "train"}
    assert [found[f"fold {n}"].data.metrics for n in range(2)] == [{"loss": 0.0}, {"loss": 1.0}]
    assert found["fold 1"].data.tags["fold"] == "1"
    assert found["train"].data.metrics == {"mean": 0.5}
    assert found["train"].data.params == {"rate": "0.1"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert mlflow.active_run() is None


def test_start_run_and_end_run_without_with(runs):
    """The idiom of scripts: end what may be open, start, log, end. Ours is not ended by it."""
    with model_run("ours"):
        mlflow.end_run()
        mlflow.start_run(run_name="theirs")
        mlflow.log_metric("a", 1.0)
        mlflow.end_run()
        mlflow.end_run()
        mlflow.log_metric("b", 2.0)
    found = runs()
    assert parents(found) == {"ours": None, "theirs": "ours"}
    assert found["theirs"].data.metrics == {"a": 1.0}
    assert found["ours"].data.metrics == {"b": 2.0}


def test_a_run_that_the_body_leaves_open_ends_with_ours(runs):
    """And is not the parent of the next one."""
    for number in range(2):
        with pytest.raises(ZeroDivisionError), model_run(f"ours {number}"):
            mlflow.log_metric("a", len(mlflow.start_run(run_name=f"theirs {number}").info.run_id) / 0)
        assert mlflow.active_run() is None
    found = runs()
    assert parents(found) == {"ours 0": None, "theirs 0": "ours 0", "ours 1": None, "theirs 1": "ours 1"}
    assert {run.info.status for run in found.values()} == {"FAILED"}


def test_an_exception_within_start_run_is_failed_in_both(runs):
    """What a child raises and the body does not catch."""
    with pytest.raises(ZeroDivisionError), model_run("ours"), mlflow.start_run(run_name="theirs"):
        mlflow.log_metric("loss", 1 / 0)
    assert {name: run.info.status for name, run in runs().items()} == {"ours": "FAILED", "theirs": "FAILED"}


@pytest.mark.parametrize("uri", [None, "sqlite:///relative.db", "sqlite:///folder/../mlflow.db"])
def test_a_store_in_the_working_folder(monkeypatch: pytest.MonkeyPatch, uri: str | None):
    """Its URI is relative, as MLflow's own default is."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("folder").mkdir()
    mlflow.set_tracking_uri(uri)
    with model_run("ours"):
        mlflow.log_metric("a", 1.0)
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert (run.info.run_name, run.data.metrics) == ("ours", {"a": 1.0})


def test_names_imported_from_mlflow_are_the_same(runs, python):
    """``from mlflow import start_run``, before any run of ours."""
    done = python(
        "from mlflow import end_run, log_metric, start_run\n"
        "from mlwrap import tracked_training\n"
        "@tracked_training\n"
        "def train():\n"
        "    end_run()\n"
        "    with start_run(run_name='theirs'):\n"
        "        log_metric('a', 1.0)\n"
        "    log_metric('b', 2.0)\n"
        "train()\n"
    )
    assert "Traceback" not in done.stderr
    found = runs()
    assert parents(found) == {"train": None, "theirs": "train"}
    assert found["train"].data.metrics == {"b": 2.0}


def test_outside_our_runs_start_run_is_as_it_was(runs):
    """Two at a time are MLflow's own error, in a body, too."""
    with model_run("ours"):
        mlflow.start_run(run_name="theirs")
        with pytest.raises(Exception, match="already active"):
            mlflow.start_run()
    with mlflow.start_run(run_name="theirs too"), pytest.raises(Exception, match="already active"):
        mlflow.start_run()
    mlflow.end_run()
    assert set(runs()) == {"ours", "theirs", "theirs too"}


def test_start_run_with_another_parent_or_id(runs, store: str):
    """What the body says of its run goes before what we would make of it."""
    client = mlflow.MlflowClient(store)
    other = client.create_run(client.create_experiment("other"), run_name="other")
    with model_run("ours") as run:
        with mlflow.start_run(run_name="child of other", parent_run_id=other.info.run_id):
            mlflow.log_metric("a", 1.0)
        assert mlflow.active_run().info.run_id == run.run_id
        with mlflow.start_run(run_id=other.info.run_id):
            mlflow.log_metric("b", 1.0)
        with mlflow.start_run(run_id=run.run_id):
            mlflow.log_metric("c", 1.0)
        with mlflow.start_run(run_name="elsewhere", experiment_id=other.info.experiment_id):
            mlflow.log_metric("d", 1.0)
        assert len(fluent._active_run_stack.get()) == 1
    found = runs()
    assert parents(found) == {"ours": None, "other": None, "child of other": "other", "elsewhere": "ours"}
    assert found["other"].data.metrics == {"b": 1.0}
    assert found["ours"].data.metrics == {"c": 1.0}
    assert experiment(found["elsewhere"]) == "other"


def test_threads_of_the_body(runs):
    """A thread in a copy of the context belongs to our run; another one is alone, as MLflow has it."""
    ids = []

    def alone():
        with mlflow.start_run(run_name="alone"):
            mlflow.log_metric("a", 1.0)

    def within():
        mlflow.log_metric("c", 3.0)
        with mlflow.start_run(run_name="theirs"):
            mlflow.log_metric("d", 4.0)
        ids.append(mlflow.active_run().info.run_id)

    async def train():
        async with model_run("ours") as run:
            thread = threading.Thread(target=alone)
            thread.start()
            thread.join()
            await asyncio.to_thread(within)
            assert ids == [run.run_id]

    asyncio.run(train())
    found = runs()
    assert parents(found) == {"ours": None, "alone": None, "theirs": "ours"}
    assert found["ours"].data.metrics == {"c": 3.0}


def test_tasks_of_one_thread_log_to_their_own_runs(runs):
    """MLflow has one stack of active runs for all of them."""

    async def train(name: str, turns: asyncio.Queue[None], others: asyncio.Queue[None]):
        async with model_run(name):
            with mlflow.start_run(run_name=f"theirs in {name}"):
                await others.put(None)
                await turns.get()
                mlflow.log_metric(f"inner {name}", 1.0)
            await others.put(None)
            await turns.get()
            mlflow.log_metric(f"outer {name}", 2.0)

    async def both():
        first: asyncio.Queue[None] = asyncio.Queue()
        second: asyncio.Queue[None] = asyncio.Queue()
        await asyncio.gather(train("a", first, second), train("b", second, first))

    asyncio.run(both())
    found = runs()
    assert parents(found) == {"a": None, "b": None, "theirs in a": "a", "theirs in b": "b"}
    assert {name: set(run.data.metrics) for name, run in found.items()} == {
        "a": {"outer a"},
        "b": {"outer b"},
        "theirs in a": {"inner a"},
        "theirs in b": {"inner b"},
    }


def test_a_run_in_a_run_that_the_body_left_open(runs):
    """All of them end with ours."""
    with model_run("ours"):
        mlflow.start_run(run_name="theirs")
        mlflow.start_run(run_name="in theirs", nested=True)
        mlflow.log_metric("a", 1.0)
    assert mlflow.active_run() is None
    found = runs()
    assert parents(found) == {"ours": None, "theirs": "ours", "in theirs": "theirs"}
    assert found["in theirs"].data.metrics == {"a": 1.0}
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_last_active_run_is_waited_for(runs):
    """It may be delivered later."""
    with model_run("ours", delivery="sender", wait=False) as run:
        pass
    assert run.run_id is None
    assert mlflow.last_active_run().info.run_id == run.run_id
    assert set(runs()) == {"ours"}


def test_last_active_run_is_ours(runs):
    """Scripts ask for it after the training."""
    with model_run("ours") as run, model_run("nested"):
        pass
    assert mlflow.last_active_run().info.run_id == run.run_id
    assert set(runs()) == {"ours", "nested"}


def test_set_experiment_and_another_one_at_the_decorator(runs):
    """MLflow's calls land in our run, and what they start is in its experiment."""
    mlflow.set_experiment("A")

    @tracked_training(experiment="B")
    def train():
        mlflow.log_metric("inner", 1.0)
        with mlflow.start_run(run_name="theirs"):
            pass

    train()
    found = runs()
    assert parents(found) == {"train": None, "theirs": "train"}
    assert {name: experiment(run) for name, run in found.items()} == {"train": "B", "theirs": "B"}
    assert found["train"].data.metrics == {"inner": 1.0}


def test_an_experiment_of_another_mlflow_is_none_of_ours(tmp_path: Path, empty_store: Path):
    """``set_experiment`` leaves an id behind, which means nothing in the store that the run is to go to."""
    mlflow.set_experiment("A")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    (tmp_path / "other.db").write_bytes(empty_store.read_bytes())
    with model_run("ours", tracking_uri=other) as run:
        pass
    found = mlflow.MlflowClient(other).get_run(run.run_id)
    assert (found.info.status, found.info.experiment_id) == ("FINISHED", "0")


def test_a_nested_run_is_in_its_parents_experiment(runs):
    """Whoever the parent is, and whatever else is said than by the call itself."""
    configure(experiment="configured")
    try:
        with model_run("ours", experiment="B"), model_run("nested"), model_run("own", experiment="C"):
            pass
        other = mlflow.create_experiment("theirs")
        with mlflow.start_run(run_name="theirs", experiment_id=other), model_run("in theirs"):
            pass
    finally:
        configure(experiment=None)
    places = {name: experiment(run) for name, run in runs().items()}
    assert places == {"ours": "B", "nested": "B", "own": "C", "theirs": "theirs", "in theirs": "theirs"}


def test_a_run_that_the_environment_names_is_ours(runs, store: str, monkeypatch: pytest.MonkeyPatch):
    """Once, as MLflow takes it; it keeps its name and experiment, and what is nested goes there."""
    client = mlflow.MlflowClient(store)
    made = client.create_run(client.create_experiment("project"), run_name="made by mlflow run")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)

    @tracked_training
    def train(units=8):
        if units == 8:
            with mlflow.start_run(run_name="theirs"), model_run("nested"):
                assert "MLFLOW_RUN_ID" not in os.environ
        return {"accuracy": 0.5}

    train()
    train(9)
    found = runs()
    first = found["made by mlflow run"]
    assert first.data.params == {"units": "8"}
    assert first.data.metrics == {"accuracy": 0.5}
    assert first.info.status == "FINISHED"
    assert first.data.tags["mlwrap.key"]
    assert parents(found) == {
        "made by mlflow run": None,
        "theirs": "made by mlflow run",
        "nested": "theirs",
        "train": None,
    }
    assert {experiment(found[name]) for name in ("theirs", "nested", "made by mlflow run")} == {"project"}
    assert found["train"].data.params == {"units": "9"}


def test_run_id_opens_a_run_again(runs, store: str):
    """It is RUNNING, then ends as the body ends; what it had stays, what is nested is its child."""
    client = mlflow.MlflowClient(store)
    made = client.create_run(client.create_experiment("before"), run_name="before")
    run_id = made.info.run_id
    client.log_metric(run_id, "loss", 1.0, step=0)
    client.set_tag(run_id, "mlflow.source.name", "their script")
    client.set_terminated(run_id, "FAILED")
    with model_run("again", run_id=run_id, tags={"phase": "two"}, experiment="not this one") as run:
        assert run.run_id == run_id
        assert client.get_run(run_id).info.status == "RUNNING"
        run.log_metric("loss", 0.5, step=1)
        with model_run("nested"):
            pass
    found = runs()
    assert parents(found) == {"before": None, "nested": "before"}
    before = found["before"]
    assert before.info.status == "FINISHED"
    assert before.data.tags["phase"] == "two"
    assert before.data.tags["mlflow.source.name"] == "their script"
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == [0, 1]
    assert {experiment(each) for each in found.values()} == {"before"}


def test_run_id_at_the_decorator(runs, store: str):
    """Each call writes on the run; a sweep would write on it with every point, and is refused."""
    client = mlflow.MlflowClient(store)
    run_id = client.create_run(client.create_experiment("before"), run_name="before").info.run_id

    @tracked_training(run_id=run_id)
    def train(units=8):
        return {"accuracy": units / 10}

    train()
    train()
    assert train.last_run.run_id == run_id
    (run,) = runs().values()
    assert run.data.metrics == {"accuracy": 0.8}
    with pytest.raises(OptionError, match="can't be swept"):
        train.sweep({"units": [1, 2]})
    with pytest.raises(OptionError, match="run_id=3 can't be used"):
        tracked_training(run_id=3)


def test_run_id_that_is_not_there_is_said_and_ends_no_training(runs):
    """The run folder waits, as with anything else that MLflow refuses."""
    with pytest.warns(MlwrapWarning) as caught, model_run("r", run_id="0" * 32) as run:
        run.log_metric("loss", 1.0)
    assert any("0" * 32 in str(each.message) and "mlwrap sync" in str(each.message) for each in caught)
    assert runs() == {}
