"""Killed in the middle of something: a save, a delivery, the interpreter's end."""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import shutil
import signal
from pathlib import Path

import mlflow
import pytest

import mlwrap
from mlwrap._delivery.deliver import deliver
from mlwrap._mlflow.client import Client
from mlwrap._spool.run_folder import RunFolder
from tests.faults.conftest import until
from tests.faults.weights import Weights, register
from tests.spools import waiting_in

ROOT = Path(__file__).parents[2]


def statuses() -> dict[str, str]:
    """The status of every run of the store, by its name."""
    client = mlflow.MlflowClient()
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {run.info.run_name: run.info.status for run in found}


def test_a_kill_while_a_model_is_saved(script, store: str, spool: Path, tmp_path: Path):
    """At any byte: the model before it is READY, nothing of the other is anywhere, the run KILLED."""
    process = script(
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.faults.weights import Weights, WeightsSaver\n"
        "from mlwrap._savers import saver_registry as _registry\n"
        "class Dying(Weights): pass\n"
        "class DyingSaver(WeightsSaver):\n"
        "    name = default_name = 'dying'\n"
        "    def matches(self, value): return isinstance(value, Dying)\n"
        "    def save(self, value, folder, options):\n"
        "        if value.size >= 0:\n"
        "            super().save(value, folder, options)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "mlwrap.register_saver(WeightsSaver())\n"
        "mlwrap.register_saver(DyingSaver())\n"
        "with mlwrap.model_run('parent'): pass\n"  # the sender is warm
        "for size in (-1, 0, 1, 4096, 70_000, 3_000_000):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        run = mlwrap.model_run(f'child{size}').__enter__()\n"
        "        run.log_model(Weights(), 'before')\n"
        "        run.log_model(Dying(size))\n"
        "    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    assert process.stdout.readline() == "ready\n"
    until(lambda: not [path for path in spool.iterdir() if path.is_dir()])
    expected = {f"child{size}": "KILLED" for size in (-1, 0, 1, 4096, 70_000, 3_000_000)}
    assert statuses() == {"parent": "FINISHED", **expected}
    experiment = mlflow.get_experiment_by_name("test")
    found = mlflow.MlflowClient().search_logged_models([experiment.experiment_id])
    assert [(model.name, model.status.value) for model in found] == [("before", "READY")] * 6
    written = [path for path in (tmp_path / "work").rglob("weights") if path.is_file()]
    assert [path.stat().st_size for path in written] == [1000] * 6


class Stop:
    """Ends this process without a word at the n-th call of MLflow, before it or after its answer."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self._left, self._after = at, after
        for name, method in inspect.getmembers(Client, inspect.isfunction):
            if not name.startswith("_"):
                patch.setattr(Client, name, self._watched(method))

    def _watched(self, method):
        def call(*args, **kwargs):
            self._left -= 1
            last = self._left == 0
            if last and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = method(*args, **kwargs)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call


@pytest.mark.parametrize("after", [False, True])
def test_a_delivery_that_is_killed_anywhere(
    after: bool, spool: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before and after every call, between the rename and READY, too: `sync` makes each thing once."""
    register(monkeypatch)
    calls = 0
    killed = True
    while killed:
        calls += 1
        # A store of its own: an open connection does not outlive a fork.
        path = tmp_path / f"work/{calls}.db"
        shutil.copy(empty_store, path)
        uri = f"sqlite:///{path}"
        options = {"tracking_uri": uri, "experiment": "test", "delivery": "off"}
        with mlwrap.model_run("r", params={"a": 1}, **options) as run:
            run.log_metric("loss", 1.0)
            run.log_model(Weights())
            run.log_text("hello", "note.txt")
        child = os.fork()
        if child == 0:
            gc.disable()  # what TensorFlow has left of other tests can't be collected after a fork
            with pytest.MonkeyPatch.context() as patch:
                Stop(patch, calls, after=after)
                deliver(RunFolder(spool / run.key))
            os._exit(0)
        killed = os.waitpid(child, 0)[1] != 0
        assert [synced.error for synced in mlwrap.sync()] == [None] * bool(killed)
        client = mlflow.MlflowClient(uri)
        ids = [e.experiment_id for e in client.search_experiments()]
        (found,) = client.search_runs(ids)
        assert found.info.status == "FINISHED"
        assert (found.data.params, found.data.metrics) == ({"a": "1"}, {"loss": 1.0})
        assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["note.txt"]
        (model,) = client.search_logged_models(ids)
        assert model.status.value == "READY"
        assert [output.model_id for output in found.outputs.model_outputs] == [model.model_id]
        assert waiting_in(spool) == []
    assert calls > 7


def test_the_interpreter_ends_while_threads_log(script, store: str):
    """Threads that go on, and a run of an exit handler's own: no hang, no complaint, all arrives."""
    process = script(
        "import atexit, threading\n"
        "def late():\n"
        "    with mlwrap.model_run('late') as run: run.log_metric('loss', 1.0)\n"
        "atexit.register(late)\n"
        "def log(run):\n"
        "    while run.status == 'RUNNING':\n"
        "        run.log_metric('loss', 1.0)\n"
        "with mlwrap.model_run('r') as run:\n"
        "    stopped = threading.Event()\n"
        "    def until_stopped():\n"
        "        while not stopped.is_set(): run.log_metric('loss', 1.0, step=1)\n"
        "    threads = [threading.Thread(target=until_stopped) for _ in range(8)]\n"
        "    [thread.start() for thread in threads]\n"
        "    time.sleep(0.1); stopped.set(); [thread.join() for thread in threads]\n"
        "open_run = mlwrap.model_run('open').__enter__()\n"
        "for _ in range(8): threading.Thread(target=log, args=(open_run,), daemon=True).start()\n"
    )
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    until(lambda: statuses() == {"r": "FINISHED", "late": "FINISHED", "open": "KILLED"})


def test_a_handler_that_is_set_within_the_body(script, store: str):
    """It is the user's last word on the signal: it runs, and it stays when the run has ended."""
    process = script(
        "def leave(*_): sys.exit(5)\n"
        "try:\n"
        "    with mlwrap.model_run('r'):\n"
        "        signal.signal(signal.SIGTERM, leave)\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "finally:\n"
        "    assert signal.getsignal(signal.SIGTERM) is leave\n"
    )
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (5, "")
    assert statuses() == {"r": "FAILED"}


def test_a_signal_to_a_run_of_another_thread(script, store: str):
    """Only the main thread can have handlers: the process dies of the signal, and its sender says so."""
    process = script(
        "import threading\n"
        "def train():\n"
        "    with mlwrap.model_run('r') as run:\n"
        "        run.log_metric('loss', 1.0)\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "threading.Thread(target=train).start()\n"
    )
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(timeout=60) == -signal.SIGTERM
    until(lambda: statuses() == {"r": "KILLED"})


@pytest.mark.parametrize(
    ("first", "second"),
    list(itertools.product((signal.SIGTERM, signal.SIGINT), repeat=2)),
)
def test_a_second_signal_while_waiting_for_delivery(script, store: str, spool: Path, first: int, second: int):
    """MLflow is away and the deadline is long: the process ends at once, and the run waits in the spool."""
    process = script(
        "with mlwrap.model_run('r', tracking_uri='http://127.0.0.1:9', deadline=600) as run:\n"
        "    run.log_metric('loss', 1.0)\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(first)
    (journal,) = spool.glob("*/journal.jsonl")
    until(lambda: b'"type":"run_ended","status":"KILLED"' in journal.read_bytes())
    process.send_signal(second)
    # After SIGTERM the process ends by it in any case: that is what it was sent for.
    assert process.wait(timeout=30) == (-first if first == signal.SIGTERM else -second)
    assert journal.exists()
