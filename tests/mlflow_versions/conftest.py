"""A real server of each MLflow that has an environment of its own: ``make test-mlflow`` makes these."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlwrap.errors import MlwrapWarning
from tests.faults.servers import Server, mlflow_server
from tests.faults.weights import register

_PACKAGES = sorted(
    Path(__file__).parents[2].glob(".venv-mlflow-*/lib/python*/site-packages/mlflow-*.dist-info")
)
PYTHON_BY_VERSION = {
    package.name.split("-")[1].removesuffix(".dist"): package.parents[3] / "bin" / "python"
    for package in _PACKAGES
}


def version_key(version: str) -> tuple[int, ...]:
    """The release of a version, to compare with others."""
    return tuple(int(number) for number in version.split(".")[:2])


NEWEST = max(PYTHON_BY_VERSION, key=version_key, default="none")


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


@pytest.fixture(scope="session", params=sorted(PYTHON_BY_VERSION, key=version_key))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of each version."""
    folder = tmp_path_factory.mktemp("server")
    python = PYTHON_BY_VERSION[request.param]
    with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", folder, python=python) as started:
        yield started


@pytest.fixture
def is_mlflow_2(server: Server, request: pytest.FixtureRequest) -> bool:
    """Whether the server is of MLflow 2, and has no LoggedModels."""
    return request.node.callspec.params["server"].startswith("2.")


@pytest.fixture
def old_server_is_named(is_mlflow_2: bool):
    """The warning that MLflow 2 has no LoggedModels, once in a run; no other server causes it."""
    return lambda: pytest.warns(MlwrapWarning, match="too old") if is_mlflow_2 else contextlib.nullcontext()
