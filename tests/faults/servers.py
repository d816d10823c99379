"""Real MLflow servers, on sqlite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Server(NamedTuple):
    """An MLflow server that runs.

    Attributes:
        port: Where it listens, on this machine.
        backend: URI of its store.
        artifacts: The folder that it keeps artifacts in.
        scheme: ``http`` or ``https``.
    """

    port: int
    backend: str
    artifacts: Path
    scheme: str = "http"

    @property
    def uri(self) -> str:
        """Its tracking URI."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


_CLIENTS_VARIABLES = ("MLFLOW_TRACKING", "MLWRAP_", "PYTHONPATH")


def free_port() -> int:
    """A port that no server listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def running(
    command: str | list[str], log: Path, is_there: Callable[[], bool], seconds: float = 180, **options: Any
) -> Iterator[None]:
    """Run a server until the end of the block, and its children with it; the block begins when it is there.

    Args:
        command: What starts it.
        log: The file that it writes to.
        is_there: Whether it answers.
        seconds: How long it may take to start.
        options: Of ``subprocess.Popen``.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        end = time.monotonic() + seconds
        while not is_there():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def mlflow_server(
    backend: str,
    folder: Path,
    options: str = "",
    *,
    python: str | Path = sys.executable,
    artifacts: str | None = None,
    scheme: str = "http",
    **environment: str,
) -> Iterator[Server]:
    """``mlflow server`` with one worker, which keeps artifacts for its clients.

    Args:
        backend: URI of its store.
        folder: A folder of its own.
        options: More options of its command line.
        python: The Python whose MLflow it is.
        artifacts: Where it keeps artifacts; by default in a folder.
        scheme: ``https`` if ``options`` make it that.
        environment: More environment variables.
    """
    server = Server(free_port(), backend, folder / "artifacts", scheme)
    server.artifacts.mkdir(parents=True)
    with running(
        f"exec {python} -m mlflow server --host 127.0.0.1 --port {server.port} --workers 1 "
        f"--backend-store-uri {backend} --serve-artifacts "
        f"--artifacts-destination {artifacts or server.artifacts} {options}",
        folder / "server.log",
        lambda: _answers(server),
        shell=True,
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(_CLIENTS_VARIABLES)},
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # ten processes that nobody here needs
            **environment,
        },
    ):
        yield server


def _answers(server: Server) -> bool:
    try:
        unchecked = ssl._create_unverified_context()
        with urllib.request.urlopen(f"{server.uri}/health", timeout=5, context=unchecked) as answer:
            return answer.read() == b"OK"
    except OSError:
        return False


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of our own; gives the URI of its store. Skips where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    where = shutil.which("initdb")
    if not found and where is None:
        import pytest  # noqa: PLC0415 - not installed where the benchmarks use this

        pytest.skip("PostgreSQL is not installed (no initdb in /usr/lib/postgresql/*/bin or on PATH)")
    programs = found[-1].parent if found else Path(where).parent
    # It refuses to run as root; and its own user can't reach the folders that pytest makes.
    user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="mlwrap-postgres-"))
    if user:
        shutil.chown(folder, **user)
    data, port = folder / "data", free_port()

    def run(program: str, *arguments: str, check: bool = True) -> None:
        subprocess.run(
            [str(programs / program), *arguments], check=check, cwd=folder, stdout=subprocess.DEVNULL, **user
        )

    run("initdb", "-D", str(data), "-U", "mlflow", "-A", "trust", "--no-sync", "-E", "UTF8")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "-D", str(data), "-w", "-o", options, "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop", check=False)
        shutil.rmtree(folder, ignore_errors=True)
