"""Models that are saved while the training goes on: failures, a slow disk, little memory, any kind of end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

import mlwrap
from mlwrap._recording.background_work import BackgroundWork
from mlwrap._run.run import recorder_of
from mlwrap._savers import saver_registry
from mlwrap.errors import MlwrapWarning, SaveError
from mlwrap.testing import capture_runs
from tests.faults.conftest import until
from tests.faults.test_kills import statuses
from tests.faults.weights import Held, HeldSaver, Weights, WeightsSaver
from tests.spools import folder_of

ROOT = Path(__file__).parents[2]
CHILD = f"""
import threading
sys.path.insert(0, {str(ROOT)!r})
from tests.faults.weights import Held, HeldSaver, Weights, WeightsSaver
saver = HeldSaver()
mlwrap.register_saver(WeightsSaver())
mlwrap.register_saver(saver)
"""


@pytest.fixture
def saver(monkeypatch: pytest.MonkeyPatch) -> HeldSaver:
    """A saver that saves in the background, when it is let."""
    monkeypatch.setattr(saver_registry, "_savers", list(saver_registry._savers))
    mlwrap.register_saver(WeightsSaver())
    made = HeldSaver()
    mlwrap.register_saver(made)
    return made


@pytest.fixture(autouse=True)
def _nothing_goes_on() -> Iterator[None]:
    """No thread of ours is left when a test is through."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("mlwrap")] == []


# Row 57.


def test_a_save_that_fails_is_told_once_by_the_next_call(saver: HeldSaver):
    """The training's own thread says it, and the training goes on; the others are whole."""
    saver.go.release(2)
    with capture_runs() as runs, mlwrap.model_run("r") as run:
        failed = run.log_model(Held(-1), background=True)
        recorder_of(run).models.wait()
        with pytest.warns(MlwrapWarning, match="'held' could not be saved: .* no room for it") as said:
            run.log_metric("loss", 1.0)
        run.log_metric("loss", 1.0)
        run.log_model(Held(1), background=True)
    assert len(said) == 1
    assert failed.status == "FAILED"
    assert [(model.name, model.error) for model in runs[0].models] == [
        ("held", "The saver 'held' of tests.faults.weights failed: OSError: no room for it"),
        ("held", None),
    ]
    assert runs[0].status == "FINISHED"


def test_a_save_that_fails_is_told_at_the_end(saver: HeldSaver):
    """Where no call came after it."""
    saver.go.release()
    with (
        pytest.warns(MlwrapWarning, match="no room for it") as said,
        mlwrap.model_run("r", delivery="off") as run,
    ):
        run.log_model(Held(-1), background=True)
    assert len(said) == 1
    assert (run.status, run.models[0].status) == ("FINISHED", "FAILED")
    assert not list(folder_of(run).path.glob("staged/*"))


def test_strict_is_told_once_by_the_next_call(saver: HeldSaver):
    """It carries the model."""
    saver.go.release()
    model = Held(-1)
    with mlwrap.model_run("r", delivery="off", strict=True) as run:
        run.log_model(model, background=True)
        recorder_of(run).models.wait()
        with pytest.raises(SaveError, match="run 'r': the model 'held' could not be saved") as told:
            run.log_metric("loss", 1.0)
        run.log_metric("loss", 1.0)
    assert told.value.value is model
    assert run.status == "FINISHED"


def test_strict_is_told_at_the_end(saver: HeldSaver):
    """By the first; the others are warnings, and none hides what the body raised."""
    saver.go.release(3)
    with (
        pytest.warns(MlwrapWarning, match="'b' could not be saved") as said,
        pytest.raises(SaveError, match="'a' could not be saved"),
        mlwrap.model_run("r", delivery="off", strict=True) as run,
    ):
        run.log_model(Held(-1), "a", background=True)
        run.log_model(Held(-1), "b", background=True)
    assert len(said) == 1
    assert run.status == "FAILED"
    with (
        pytest.warns(MlwrapWarning, match="'c' could not be saved"),
        pytest.raises(ZeroDivisionError),
        mlwrap.model_run("r", delivery="off", strict=True) as run,
    ):
        run.log_model(Held(-1), "c", background=True)
        1 / 0  # noqa: B018
    assert run.status == "FAILED"


def test_strict_is_told_at_the_end_of_what_is_awaited(saver: HeldSaver):
    """Likewise; and other tasks go on while a save is waited for."""

    async def train() -> None:
        async with mlwrap.model_run("r", delivery="off", strict=True) as run:
            run.log_model(Held(-1), background=True)

    async def both() -> None:
        training = asyncio.create_task(train())
        await asyncio.to_thread(saver.began.get)
        saver.go.release()  # by another task, while that one waits
        await training

    with pytest.raises(SaveError, match="no room for it"):
        asyncio.run(both())


def test_a_task_that_is_cancelled_while_a_save_is_waited_for(saver: HeldSaver):
    """The run is closed and KILLED, the model FAILED, and the cancelling gets through."""
    runs: list[mlwrap.Run] = []

    async def train() -> None:
        async with mlwrap.model_run("r", delivery="off") as run:
            runs.append(run)
            run.log_model(Held(), background=True)

    async def both() -> None:
        training = asyncio.create_task(train())
        await asyncio.to_thread(saver.began.get)
        training.cancel()
        try:
            await training
        finally:
            saver.go.release()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(both())
    assert (runs[0].status, runs[0].models[0].status) == ("KILLED", "FAILED")
    recorder_of(runs[0]).models.wait()


# Row 58.


def test_saves_that_are_slower_than_they_come(saver: HeldSaver, monkeypatch: pytest.MonkeyPatch):
    """One is written and one waits, of each name: the newest. The memory of the others is free."""
    taken: list[weakref.ref[Weights]] = []

    def snapshot(value: Held) -> Weights:
        made = Weights(value.size)
        taken.append(weakref.ref(made))
        return made

    monkeypatch.setattr(saver, "snapshot", snapshot)
    with capture_runs() as runs, mlwrap.model_run("r") as run:
        first = run.log_model(Held(0), step=0, background=True)
        assert saver.began.get(timeout=60) == 0
        best = run.log_model(Held(100), "best", step=0, background=True)
        others = [run.log_model(Held(step), step=step, background=True) for step in range(1, 6)]
        gc.collect()
        assert [made().size for made in taken if made() is not None] == [0, 100, 5]
        assert [model.status for model in others] == ["REPLACED"] * 4 + ["SAVING"]
        assert run.models == [first, best, others[-1]]
        assert (first.status, best.status, run.model_uri) == ("SAVING", "SAVING", None)
        saver.go.release(4)
        run.log_model(Held(6), step=6)  # at once: it is the newest
    assert [(model.name, model.step) for model in runs[0].models] == [
        ("held", 0),
        ("best", 0),
        ("held", 5),
        ("held", 6),
    ]
    assert [model.status for model in run.models] == ["STAGED"] * 4
    gc.collect()
    assert [made() for made in taken] == [None] * 7


def test_before_the_end_of_the_process_nothing_is_waited_for(saver: HeldSaver):
    """Row 63. A model that is saved then is not behind those that are slow."""
    with capture_runs() as runs, mlwrap.model_run("r", preemption_signal="SIGUSR1") as run:
        run.log_model(Held(0), background=True)
        saver.began.get(timeout=60)
        os.kill(os.getpid(), signal.SIGUSR1)
        run.log_model(Weights(), "preempted")
        assert [model.name for model in runs[0].models] == ["preempted"]
        saver.go.release()
    assert [model.name for model in runs[0].models] == ["preempted", "held"]


def test_where_no_thread_can_be_started_a_model_is_saved_at_once(
    saver: HeldSaver, monkeypatch: pytest.MonkeyPatch
):
    """As a system with a limit of threads has it, or an interpreter that ends."""

    def fails(self):
        raise RuntimeError("can't start new thread")

    saver.go.release()
    with mlwrap.model_run("r", delivery="off") as run:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fails)
            run.log_model(Held(1), background=True)
        assert run.models[0].status == "STAGED"


# Ends.


def models() -> dict[str, str]:
    """The status of each logged model, by its name."""
    experiment = mlflow.get_experiment_by_name("test")
    found = mlflow.MlflowClient().search_logged_models([experiment.experiment_id])
    return {model.name: model.status.value for model in found}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_ends_while_a_model_is_saved(script, store: str, spool: Path, number: int):
    """It is not waited for: the older one is whole, nothing of the other is anywhere, the run is KILLED."""
    process = script(
        CHILD + "with mlwrap.model_run('r') as run:\n"
        "    run.log_model(Weights(), 'before')\n"
        "    run.log_model(Held(), background=True)\n"
        "    run.log_model(Held(), 'waits', background=True)\n"
        "    saver.began.get()\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(60) == -number
    until(lambda: not [path for path in spool.iterdir() if path.is_dir()])
    assert statuses() == {"r": "KILLED"}
    given_up = {"held": "FAILED", "waits": "FAILED"} if number == signal.SIGTERM else {}
    assert models() == {"before": "READY", **given_up}


def test_an_interpreter_that_ends_while_a_model_is_saved(script, store: str, spool: Path):
    """Of a run that nobody closed: what is under way is waited for, and nothing hangs."""
    process = script(
        CHILD + "run = mlwrap.model_run('r').__enter__()\n"
        "run.log_model(Held(), background=True)\n"
        "saver.began.get()\n"
        "threading.Timer(0.2, saver.go.release).start()\n"
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "thread" not in err
    until(lambda: not [path for path in spool.iterdir() if path.is_dir()])
    assert models() == {"held": "READY"}


def test_a_fork_while_a_model_is_saved(script, store: str, spool: Path):
    """The child leaves it to its parent, whatever it calls, and ends."""
    process = script(
        CHILD + "with mlwrap.model_run('r') as run:\n"
        "    run.log_model(Held(), background=True)\n"
        "    saver.began.get()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        run.log_model(Held(), background=True)\n"
        "        run.log_model(Weights())\n"
        "        sys.exit(3)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3\n"
        "    saver.go.release()\n"
    )
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    until(lambda: not [path for path in spool.iterdir() if path.is_dir()])
    assert (statuses(), models()) == ({"r": "FINISHED"}, {"held": "READY"})


def test_ctrl_c_while_the_end_waits_for_a_model(saver: HeldSaver, monkeypatch: pytest.MonkeyPatch):
    """The run is closed and the wait is over; the model is FAILED, and what is still written of it goes."""
    waits, real = threading.Event(), BackgroundWork.wait

    def wait(self: BackgroundWork) -> None:
        waits.set()
        real(self)

    def interrupt() -> None:
        assert waits.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    monkeypatch.setattr(BackgroundWork, "wait", wait)
    interrupts = threading.Thread(target=interrupt)
    with capture_runs() as runs, pytest.raises(KeyboardInterrupt), mlwrap.model_run("r") as run:
        run.log_model(Held(), background=True)
        saver.began.get(timeout=60)
        interrupts.start()
    interrupts.join()
    assert (runs[0].status, run.models[0].status) == ("KILLED", "FAILED")
    saver.go.release()
    real(recorder_of(run).models._background)


# Row 59.

MEMORY = """
import resource, keras, numpy, psutil
from mlwrap.keras import MetricsCallback
from mlwrap._savers.keras import snapshot as _keras_snapshot
def peak(what):
    "Bytes that this process has at most while it does something."
    open("/proc/self/clear_refs", "w").write("5")
    what()
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
def more(what):
    "Bytes that it has more then than before."
    before = psutil.Process().memory_info().rss
    return peak(what) - before
size = 600
model = keras.Sequential([keras.Input((size,)), *(keras.layers.Dense(size) for _ in range(25))])
model.compile("adam", "mse")
x = numpy.zeros((64, size), "float32")
def fit(*callbacks, epochs=3):
    model.fit(x, x, epochs=epochs, verbose=0, callbacks=list(callbacks))
fit()
bytes_ = 3 * 4 * model.count_params()
assert bytes_ > 100e6
"""


def test_a_save_streams(python, store: str):
    """Beside the model there is little, whether or not the save is in the background."""
    done = python(
        "import mlwrap\nfrom mlwrap._run.run import recorder_of\n" + MEMORY + "def log(background):\n"
        "    run.log_model(model, background=background)\n"
        "    recorder_of(run).models.wait()\n"
        "with mlwrap.model_run('r', delivery='off') as run:\n"
        "    run.log_model(model)\n"
        "    fit(MetricsCallback(checkpoint_every=1))\n"
        "    found = [more(lambda: log(False)), more(lambda: log(True))]\n"
        "print(*(extra / bytes_ for extra in found))\n"
    )
    at_once, background = map(float, done.stdout.split())
    assert at_once < 0.15
    assert background < 0.15


def test_a_training_that_saves_each_epoch_holds_two_snapshots_at_most(python, store: str):
    """One is written and the newest waits; counted, because TensorFlow's own memory varies by more."""
    done = python(
        "import gc, mlwrap\nfrom mlwrap._savers.keras.snapshot import Snapshot\n" + MEMORY + "held = []\n"
        "def count(epoch, logs):\n"
        "    held.append(sum(isinstance(item, Snapshot) for item in gc.get_objects()))\n"
        "with mlwrap.model_run('r', delivery='off') as run:\n"
        "    counted = keras.callbacks.LambdaCallback(on_epoch_end=count)\n"
        "    fit(MetricsCallback(checkpoint_every=1), counted, epochs=8)\n"
        "print(max(held))\n"
    )
    assert done.stdout in {"1\n", "2\n"}


def test_a_limit_of_memory_is_kept(python, store: str):
    """Where there is not enough for a copy, the training waits for the save, and goes on."""
    done = python(
        "import mlwrap\n" + MEMORY + "taken = []\n"
        "real = _keras_snapshot.take_snapshot\n"
        "from mlwrap._savers.keras import model as _keras\n"
        "_keras.take_snapshot = lambda model: taken.append(real(model)) or taken[-1]\n"
        "with mlwrap.model_run('r', delivery='off') as run:\n"
        "    fit(MetricsCallback(checkpoint_every=1), epochs=1)\n"
        # A snapshot wants twice the model's size, and is refused; the rest is for the training itself.
        "    most = psutil.Process().memory_info().vms + int(1.9 * bytes_)\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "    fit(MetricsCallback(checkpoint_every=1), epochs=1)\n"
        "print([one is not None for one in taken], [model.status for model in run.models])\n"
    )
    assert done.stdout == "[True, False] ['STAGED', 'STAGED']\n"
