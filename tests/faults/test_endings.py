"""A process that ends while a run is open: the run's status is true, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from tests.spools import waiting_in

BODY = """
import os, signal, sys, time
import mlwrap

# As in a terminal: a test runner in the background, or under nohup, hands on signals that are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

class Slow:
    "A model that never finishes being saved."
class SlowSaver:
    name, format, default_name, frameworks = "slow", 1, "slow", ("sys",)
    def matches(self, value): return isinstance(value, Slow)
    def metrics(self, value): return ()
    def load(self, folder, details, *, into=None, trust=False): return None
    def save(self, value, folder, options):
        (folder / "half").write_bytes(b"x" * 1000)
        print("ready", flush=True)
        time.sleep(60)

mlwrap.register_saver(SlowSaver())
"""
LOOP = """
with mlwrap.model_run("r", params={"a": 1}) as run:
    run.log_metric("loss", 0.5)
    run.log_text("hello", "note.txt")
    print("ready", flush=True)
    time.sleep(60)
"""
SAVING = """
with mlwrap.model_run("r") as run:
    run.log_model(Slow())
"""


def ended_by(source: str, number: int, tmp_path: Path, store: str) -> tuple[int, str]:
    """Run a script, send it a signal when it says that it is ready; its exit status and standard error."""
    script = tmp_path / "script.py"
    script.write_text(BODY + source)
    env = {**os.environ, "MLFLOW_TRACKING_URI": store, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, err


def only_run() -> mlflow.entities.Run:
    """The one run of the store."""
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return run


@pytest.fixture
def nothing_left(spool: Path, tmp_path: Path):
    """No run folder, no temporary file."""

    def check() -> None:
        assert waiting_in(spool) == []
        assert list((tmp_path / "tmp").iterdir()) == []

    return check


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_process(number: int, tmp_path: Path, store: str, nothing_left):
    """The run is KILLED with all that it had logged; the process dies of the signal, as without us."""
    code, _ = ended_by(LOOP, number, tmp_path, store)
    assert code == -number
    run = only_run()
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"loss": 0.5}
    assert run.data.params == {"a": "1"}
    assert run.data.tags["mlwrap.signal"] == signal.Signals(number).name
    nothing_left()


def test_ctrl_c(tmp_path: Path, store: str, nothing_left):
    """KILLED, and KeyboardInterrupt goes on."""
    code, err = ended_by(LOOP, signal.SIGINT, tmp_path, store)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert only_run().info.status == "KILLED"
    nothing_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_model_is_saved(number: int, tmp_path: Path, store: str, nothing_left):
    """The half-written model is gone, FAILED in MLflow, and the run KILLED."""
    code, _ = ended_by(SAVING, number, tmp_path, store)
    assert code == -number
    run = only_run()
    assert run.info.status == "KILLED"
    (model,) = mlflow.MlflowClient().search_logged_models([run.info.experiment_id])
    assert model.status.value == "FAILED"
    nothing_left()


def test_a_handler_of_the_users_own_is_asked_first(tmp_path: Path, store: str, nothing_left):
    """It ends the body in its own way, here with status 7; the run is KILLED all the same."""
    source = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n" + LOOP
    code, _ = ended_by(source, signal.SIGTERM, tmp_path, store)
    assert code == 7
    assert only_run().info.status == "KILLED"
    nothing_left()


def test_a_handler_that_lets_the_body_go_on(tmp_path: Path, store: str, nothing_left):
    """The body finishes, so the run is FINISHED."""
    source = """
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
with mlwrap.model_run("r"):
    print("ready", flush=True)
    while not stop:
        time.sleep(0.01)
"""
    code, _ = ended_by(source, signal.SIGTERM, tmp_path, store)
    assert code == 0
    assert only_run().info.status == "FINISHED"
    nothing_left()


def test_a_signal_that_is_a_warning(
    tmp_path: Path, store: str, nothing_left, monkeypatch: pytest.MonkeyPatch
):
    """As Slurm's --signal=USR1@60: the body learns of it and ends in its own way; a handler is asked, too."""
    monkeypatch.setenv("MLWRAP_PREEMPTION_SIGNAL", "SIGUSR1")
    source = """
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
with mlwrap.model_run("r") as run:
    print("ready", flush=True)
    while not run.preempted:
        time.sleep(0.01)
    run.log_metric("saved", len(asked))
assert signal.getsignal(signal.SIGUSR1).__name__ == "<lambda>"
"""
    code, err = ended_by(source, signal.SIGUSR1, tmp_path, store)
    assert code == 0, err
    run = only_run()
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlwrap.preempted"] == "SIGUSR1"
    assert run.data.metrics == {"saved": 1}
    nothing_left()


def test_the_handlers_are_as_they_were(tmp_path: Path):
    """After the last run, and in a child made by fork."""
    import mlwrap  # noqa: PLC0415

    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
    with mlwrap.model_run("a", delivery="off"), mlwrap.model_run("b", delivery="off"):
        assert signal.getsignal(signal.SIGTERM) is not before[0]
        child = os.fork()
        if child == 0:
            same = signal.getsignal(signal.SIGTERM) is before[0]
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before
