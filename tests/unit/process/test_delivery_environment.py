"""The digest of what decides how a run is delivered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlwrap._process import delivery_environment
from mlwrap._process.delivery_environment import delivery_digest, search_path, sender_search_path


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The search path is that of the first call in each test."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    forget()
    yield
    forget()


def forget() -> None:
    """Forget what is known of the process."""
    sender_search_path.cache_clear()
    delivery_environment._digest.cache_clear()


@pytest.mark.parametrize(
    "variable",
    [
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_S3_ENDPOINT_URL",
        "AWS_SESSION_TOKEN",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "DATABRICKS_HOST",
        "https_proxy",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "PGPASSWORD",
        "COMPANY_API_KEY",
        "HOME",
    ],
)
def test_what_decides_who_delivers_and_where_to_changes_it(monkeypatch: pytest.MonkeyPatch, variable: str):
    """Set, changed and taken back."""
    monkeypatch.delenv(variable, raising=False)
    before = delivery_digest()
    monkeypatch.setenv(variable, "one")
    first = delivery_digest()
    monkeypatch.setenv(variable, "two")
    assert len({before, first, delivery_digest()}) == 3
    monkeypatch.delenv(variable)
    assert delivery_digest() == before


@pytest.mark.parametrize(
    "variable", ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLWRAP_QUIET", "TERM", "PATH"]
)
def test_what_else_there_is_changes_nothing(monkeypatch: pytest.MonkeyPatch, variable: str):
    """Nor what a run folder says itself."""
    before = delivery_digest()
    monkeypatch.setenv(variable, "other")
    assert delivery_digest() == before


def test_a_value_that_is_no_text(monkeypatch: pytest.MonkeyPatch):
    """Bytes that are no UTF-8 are bytes."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "caf\udce9")
    assert len(delivery_digest()) == 16


def test_it_tells_nothing_of_a_secret(monkeypatch: pytest.MonkeyPatch):
    """It is a name in the spool."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    assert "canary" not in delivery_digest()


def test_scripts_in_several_folders_have_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """And one that changes its folder or its search path meanwhile keeps it."""
    digests = set()
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [f"{name}.py"])
        sys.path.insert(0, str(folder))
        forget()
        digests.add(delivery_digest())
        assert str(folder) in search_path()
        assert str(folder) not in sender_search_path()
        monkeypatch.chdir(tmp_path)
        sys.path.insert(0, "elsewhere")
        digests.add(delivery_digest())
        del sys.path[:2]
    assert len(digests) == 1


def test_the_folder_of_the_package_stays_on_the_path(monkeypatch: pytest.MonkeyPatch):
    """Where mlwrap itself is found in the working folder."""
    root = Path(delivery_environment.__file__).parents[2]
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert str(root) in sender_search_path()
