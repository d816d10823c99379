"""What the benchmarks share: a server, processes of their own, interleaved repeats, tables."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("mlwrap", "mlflow", "keras", "tensorflow-cpu")


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of its own, which is the working folder, with a spool in it; removed at the end."""
    made = Path(tempfile.mkdtemp(prefix="mlwrap-bench-"))
    os.chdir(made)
    os.environ |= {
        "MLWRAP_SPOOL": str(made / "spool"),
        "MLWRAP_QUIET": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes that none of this needs
    }
    try:
        yield made
    finally:
        os.chdir("/")
        shutil.rmtree(made, ignore_errors=True)


class Server:
    """``mlflow server`` with one worker on the loopback, and how many requests it has answered."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, 120)

    def __enter__(self) -> Server:  # noqa: PYI034 - Self is of typing from 3.11 on
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def requests(self) -> int:
        """Lines of the access log, health checks left out."""
        return sum(' HTTP/1.1" ' in line and "/health" not in line for line in self._log.open())

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=1).status == 200
        except OSError:
            return False


def python(source: str, *arguments: str, **environment: str) -> str:
    """Run a script in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def interleaved(
    repeats: int, sources: Mapping[str, str], *arguments: str, **environment: str
) -> dict[str, Any]:
    """Run scripts in turns, so that what else the machine does hits all of them.

    Args:
        repeats: Processes of each.
        sources: Scripts by name; each prints a JSON object of numbers, or of lists of them, on its last line.
        *arguments: Of all scripts.
        **environment: Likewise.

    Returns:
        For each script the median of each number, over all its processes.
    """
    found: dict[str, dict[str, list[float]]] = {name: {} for name in sources}
    for _ in range(repeats):
        for name, source in sources.items():
            told = json.loads(python(source, *arguments, **environment).strip().rpartition("\n")[2])
            for what, numbers in told.items():
                found[name].setdefault(what, []).extend(numbers if isinstance(numbers, list) else [numbers])
    return {
        name: {what: statistics.median(each) for what, each in numbers.items()}
        for name, numbers in found.items()
    }


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait until something holds, looking often: it is being timed."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("it did not come true in time")
        time.sleep(0.002)


def head(title: str) -> None:
    """Print what a table begins with: what it is about, versions, the machine."""
    names = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    print(f"## {title}\n\nPython {platform.python_version()}, {names}.")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, load {os.getloadavg()[0]:.1f}.\n")
    print("| # | what | mlwrap | rival | ratio | target |\n|---|---|---|---|---|---|", flush=True)


def row(*cells: str) -> None:
    """Print a row of the table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def _version(name: str) -> str:
    try:
        return version(name)
    except LookupError:
        return "-"
