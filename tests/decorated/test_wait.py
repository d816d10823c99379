"""``wait=False``: the call returns as soon as all is on disk, and whoever wants to know waits later."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psutil
import pytest

from mlwrap import model_run, tracked_training
from mlwrap._delivery.deliver import deliver
from mlwrap._journal.progress import Progress
from mlwrap._run import flush
from mlwrap._run.run import recorder_of
from mlwrap._spool.delivered_runs import note_delivered
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import MlwrapWarning
from mlwrap.testing import capture_runs
from tests.faults.conftest import senders
from tests.spools import folder_of

MANY = 40
AWAY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def one_sender(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What all tests here have in common, so that one sender serves them: to start it takes seconds."""
    return {name: str(tmp_path_factory.mktemp(name)) for name in ("MLWRAP_SPOOL", "HOME")}


@pytest.fixture
def spool(one_sender: dict[str, str]) -> Path:
    """The folder that run folders live in."""
    return Path(one_sender["MLWRAP_SPOOL"])


@pytest.fixture
def sender(one_sender: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs are delivered by a sender."""
    for name, value in one_sender.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLWRAP_DELIVERY", "sender")
    monkeypatch.setenv("MLWRAP_WAIT", "0")
    monkeypatch.setenv("MLWRAP_DEADLINE", "60")  # many tests at once on a small machine
    monkeypatch.setenv("MLWRAP_LINGER", "60")
    yield
    flush._pending.clear()


@pytest.mark.usefixtures("sender")
def test_what_is_known_before_and_after(runs, spool: Path):
    """The status at once; what MLflow calls it once somebody has waited, as often as one likes."""

    @tracked_training
    def train(units=3):
        return {"accuracy": 0.9}

    train()
    run = train.last_run
    assert (run.status, run.run_id, run.url, run.model_uri) == ("FINISHED", None, None, None)
    assert run.wait() is True
    found = runs()["train"]
    assert (found.info.run_id, found.info.status) == (run.run_id, "FINISHED")
    assert found.data.metrics == {"accuracy": 0.9}
    assert run.wait() is True
    assert not (spool / run.key).exists()


@pytest.mark.usefixtures("sender")
def test_many_runs_in_a_loop(runs, spool: Path):
    """One sender for all, no descriptor for any, and none is kept in memory once it is delivered."""
    with model_run("first") as first:
        pass
    assert first.wait()
    before = psutil.Process().num_fds()
    for number in range(MANY):
        with model_run(f"run{number}") as run:
            run.log_metric("number", number)
    assert psutil.Process().num_fds() == before
    (process,) = senders(spool)
    assert process.num_threads() < MANY  # though as many runs wait to be delivered
    flush._wait_for_pending()
    assert flush._pending == {}
    assert run.wait() is True
    assert process.num_fds() < MANY
    found = runs()
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert [found[f"run{number}"].data.metrics for number in range(MANY)] == [
        {"number": number} for number in range(MANY)
    ]
    assert [path for path in spool.iterdir() if path.is_dir()] == []


def test_those_that_are_delivered_are_forgotten(spool: Path):
    """Two earlier ones are looked at whenever there is another."""
    folder = RunFolder(spool / "delivered")
    note_delivered(folder, Progress(run_id="r"))
    for number in range(9):
        flush._add_pending(str(number), flush._PendingRun("r", folder, None, 1.0))
        assert len(flush._pending) <= 2


@pytest.mark.usefixtures("sender")
def test_nested_runs(runs):
    """A child that is not waited for is below its parent, whichever ends first."""
    with model_run("outer") as outer, model_run("inner") as inner:
        pass
    assert inner.wait()
    assert outer.wait()
    assert runs()["inner"].data.tags["mlflow.parentRunId"] == outer.run_id


@pytest.mark.usefixtures("sender")
def test_a_coroutine(runs):
    """Its end does not even ask for a thread; another one waits, and the loop goes on meanwhile."""

    @tracked_training
    async def train():
        await asyncio.sleep(0)
        return {"accuracy": 0.9}

    async def both():
        await asyncio.gather(train(), train())
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("mlwrap")]
        return await asyncio.to_thread(train.last_run.wait) if train.last_run else None

    asyncio.run(both())
    assert train.last_run.wait()
    assert runs()["train"].info.status == "FINISHED"


@pytest.mark.usefixtures("sender", "store")
def test_threads_that_wait_for_the_same_run():
    """All get the same answer; one of them asks."""
    with model_run("r") as run:
        pass
    said: list[bool] = []
    threads = [threading.Thread(target=lambda: said.append(run.wait())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [True] * 8


@pytest.mark.usefixtures("sender", "store")
def test_a_forked_child_has_nothing_to_wait_for():
    """The run is its parent's, who still waits for it."""
    with model_run("r") as run:
        pass
    child = os.fork()
    if child == 0:
        os._exit(0 if run.wait() and run.run_id is None and not flush._pending else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert run.wait()
    assert run.run_id is not None


@pytest.mark.usefixtures("sender")
def test_a_server_that_is_away(spool: Path):
    """Nothing is said until somebody waits; then where it is, and what to do; as often as one asks."""
    with model_run("r", tracking_uri=AWAY, deadline=0.5) as run:
        pass
    for _ in range(2):
        with pytest.warns(MlwrapWarning, match=f"(?s)no server listens.*It waits in {spool / run.key}.*sync"):
            assert run.wait() is False
    assert run.status == "FINISHED"


@pytest.mark.usefixtures("sender")
def test_a_time_out(spool: Path):
    """It goes before the deadline."""
    with model_run("r", tracking_uri=AWAY) as run:
        pass
    with pytest.warns(MlwrapWarning, match="does not have all of it yet"):
        assert run.wait(timeout=0) is False
    assert (spool / run.key).exists()


@pytest.mark.usefixtures("sender")
def test_a_run_that_another_process_has_delivered_is_known(runs, monkeypatch: pytest.MonkeyPatch):
    """There is nothing to wait for, whoever it was; and what MLflow calls it is known from the spool."""
    with model_run("r", delivery="off") as run:
        pass
    monkeypatch.setattr(recorder_of(run), "offline", False)
    deliver(folder_of(run))
    assert run.wait() is True
    assert run.run_id == runs()["r"].info.run_id


@pytest.mark.usefixtures("sender")
def test_a_run_folder_that_is_gone_is_not_delivered():
    """It is said once, at the first call that notices; waiting never says that all is well."""
    with model_run("r", tracking_uri=AWAY) as run:
        pass
    folder_of(run).remove()
    with pytest.warns(MlwrapWarning, match="was removed: what MLflow does not have of it is lost"):
        assert run.wait() is False
    assert run.wait() is False
    assert run.run_id is None


@pytest.mark.usefixtures("sender")
def test_runs_that_are_lost_are_named_at_the_end_of_the_process():
    """Nobody has waited for them; the end of the process does not take them for delivered."""
    with model_run("r", tracking_uri=AWAY, deadline=0.5) as run:
        pass
    folder_of(run).remove()
    with pytest.warns(MlwrapWarning, match="run 'r': its run folder .* was removed"):
        flush._wait_for_pending()
    assert flush._pending == {}


def test_inline_waits_all_the_same(runs):
    """There is nobody else who could deliver it."""
    with model_run("r", wait=False) as run:
        pass
    assert run.run_id == runs()["r"].info.run_id
    assert run.wait() is True


def test_a_run_that_is_not_delivered_now():
    """Offline, disabled or captured by a test: nothing to wait for."""
    with model_run("offline", wait=False, delivery="off") as run:
        pass
    assert run.wait() is True
    assert run.run_id is None
    with model_run("disabled", wait=False, disabled=True) as run:
        pass
    assert run.wait() is True
    with capture_runs() as captured, model_run("captured", wait=False) as run:
        pass
    assert run.wait() is True
    assert [each.status for each in captured] == ["FINISHED"]


@pytest.mark.usefixtures("store")
def test_a_run_that_has_waited(spool: Path):
    """There is nothing more to wait for."""
    with model_run("r") as run:
        pass
    before = run.run_id
    assert run.wait() is True
    assert run.run_id == before


@pytest.mark.filterwarnings("ignore::mlwrap.errors.MlwrapWarning")
def test_an_id_that_can_not_be_had_is_not_asked_for_at_each_look():
    """Code that looks at ``run.run_id`` in a loop does not wait for an absent server each time."""
    assert mlflow.__version__  # only where MLflow is imported the look asks the server
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with model_run("r", tracking_uri=uri, delivery="inline") as run:
            assert run.run_id is None
            server.listen()
            assert run.run_id is None
            server.setblocking(False)
            with pytest.raises(BlockingIOError):  # nobody has connected
                server.accept()
            server.close()


@pytest.mark.parametrize("disabled", [True, False])
def test_a_run_that_is_open(disabled: bool):
    """It would wait for itself."""
    with (
        model_run("r", disabled=disabled, delivery="off") as run,
        pytest.warns(MlwrapWarning, match="is open"),
    ):
        assert run.wait() is False


@pytest.mark.usefixtures("sender")
def test_the_report_says_who_delivers_it(store: str, capfd: pytest.CaptureFixture[str]):
    """And not that it waits for a command."""
    with model_run("r", quiet=False) as run:
        pass
    err = capfd.readouterr().err
    assert "is being delivered" in err
    assert "mlwrap sync" not in err
    assert run.wait()


@pytest.mark.usefixtures("sender")
def test_a_sweep(runs):
    """Its points do not wait either; the table has their keys, and what they logged."""

    @tracked_training
    def train(units=1):
        return {"result": float(units)}

    table = train.sweep({"units": [1, 2, 3]}, n_jobs=1)
    assert [point.metrics["result"] for point in table] == [1.0, 2.0, 3.0]
    flush._wait_for_pending()
    found = [run for name, run in runs().items() if name == "train"]
    assert {run.info.status for run in found} == {"FINISHED"}


@pytest.mark.usefixtures("sender")
def test_a_parent_that_waits_for_its_own_alone(runs):
    """The call's own option goes before the environment."""
    with model_run("outer", wait=True) as outer, model_run("inner") as inner:
        pass
    assert outer.run_id is not None
    assert inner.wait()
    assert runs()["inner"].info.status == "FINISHED"
