"""Real faults need real parts: servers, senders and processes to end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow.entities import Run

from tests.faults.proxy import Proxy
from tests.faults.servers import Server, mlflow_server, postgres


@pytest.fixture(scope="session")
def on_sqlite(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server whose store is sqlite."""
    folder = tmp_path_factory.mktemp("sqlite-server")
    shutil.copy(empty_store, folder / "mlflow.db")
    with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", folder) as server:
        yield server


@pytest.fixture(scope="session")
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server whose store is PostgreSQL."""
    with (
        postgres() as backend,
        mlflow_server(backend, tmp_path_factory.mktemp("postgres-server")) as server,
    ):
        yield server


@pytest.fixture
def proxy(on_sqlite: Server) -> Iterator[Proxy]:
    """What stands between a test and the server on sqlite."""
    made = Proxy(on_sqlite.port)
    yield made
    made.refuse()


@pytest.fixture
def script(tmp_path: Path):
    """Start a script in a process of its own, with a sender of its own; both are ended at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, **environment: str) -> subprocess.Popen[str]:
        file = tmp_path / f"script{len(started)}.py"
        file.write_text(
            # As in a terminal: a runner in the background, or under nohup, hands on signals that are ignored.
            "import os, signal, sys, time\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
            "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
            "import mlwrap\n" + source
        )
        # Many tests at once on a small machine: a sender may take its time to import MLflow.
        env = {**os.environ, "MLWRAP_DELIVERY": "sender", "MLWRAP_DEADLINE": "60", **environment}
        process = subprocess.Popen(
            [sys.executable, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for sender in senders(tmp_path / "spool"):
        sender.send_signal(signal.SIGKILL)


def senders(spool: Path) -> list[psutil.Process]:
    """The senders that listen in a spool."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "mlwrap._sender.server" in line and str(spool) in line:
            found.append(process)
    return found


def runs() -> dict[str, Run]:
    """All runs of the store, by name."""
    client = mlflow.MlflowClient()
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {run.info.run_name: run for run in found}


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds; it is an error if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)
