"""What every test stands on: an empty home, a spool and an MLflow store of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlwrap._run.run import current
from mlwrap.errors import MlwrapWarning
from tests import markers

# Before anything imports TensorFlow or MLflow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


_unexpected: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers; see ``tests/markers.py``."""
    for marker, meaning in markers.MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a test file whose tests are all left out."""
    return markers.is_left_out(collection_path, config.option.markexpr) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test."""
    for item in items:
        markers.mark(item)


def pytest_warning_recorded(warning_message: warnings.WarningMessage, nodeid: str) -> None:
    """A warning of ours that no test expected is a failure; as an error, ours would only be printed."""
    if issubclass(warning_message.category, MlwrapWarning):
        _unexpected.append(f"{nodeid}: {warning_message.message}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session for what no test expected."""
    if _unexpected and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests they came from."""
    for line in _unexpected:
        terminalreporter.line(f"UNEXPECTED MlwrapWarning {line}", red=True)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sqlite store that MLflow made: making one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("store")
    from mlflow import MlflowClient  # noqa: PLC0415 - only sessions that need a store pay for it

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    here = Path.cwd()
    os.chdir(folder)
    try:
        MlflowClient(uri).search_experiments()
    finally:
        os.chdir(here)
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test works in a folder, a home and a spool of its own, with no settings from outside."""
    for name in list(os.environ):
        if name.startswith(("MLWRAP_", "MLFLOW_")) and name != "MLFLOW_DISABLE_TELEMETRY":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MLWRAP_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("MLWRAP_QUIET", "1")
    # Most tests are not about the sender, and starting one costs each of them an import of MLflow.
    monkeypatch.setenv("MLWRAP_DELIVERY", "inline")
    monkeypatch.setenv("MLWRAP_LINGER", "0")  # a sender of a test is not needed by the next
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(work)
    yield
    current.set(None)
    if fluent := sys.modules.get(
        "mlflow.tracking.fluent"
    ):  # what a test left open there is not the next one's
        fluent._active_run_stack.get().clear()
        fluent._active_experiment_id = None
        sys.modules["mlflow"].set_tracking_uri(None)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The folder that run folders live in."""
    return tmp_path / "spool"


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of an empty MLflow store, which runs are delivered to; MLflow's own calls find it too."""
    path = tmp_path / "work" / "mlflow.db"
    shutil.copy(empty_store, path)
    uri = f"sqlite:///{path}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # Not the default experiment, whose artifacts lie beside the store that this one was copied from.
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "test")
    return uri


@pytest.fixture
def python(tmp_path: Path):
    """Run a script in a process of its own, as a user would; gives the finished process."""

    def run(source: str, *, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(source)
        return subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            check=check,
            env={**os.environ, **extra},
            timeout=300,
        )

    return run
