"""Where do an SQL store and its artifacts lie? Told to MLflow, so that no process has to stand there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

_SQLITE = "sqlite:///"
_ARTIFACTS = "mlruns"  # where MLflow lays them, beside the training
# Of a server that this process is a part of; MLflow looks there itself.
_OF_SERVER = "_MLFLOW_SERVER_ARTIFACT_ROOT"


def absolute_uri(tracking_uri: str) -> str:
    """The URI under which MLflow opens a store.

    SQLAlchemy 2.1 takes ``%2F`` in the path of an sqlite file for a slash. MLflow's own default is written
    for that (``%252F``), and what a user writes may be not: what counts is where there is a folder.
    """
    path, mark, options = tracking_uri.partition("?")
    if not path.startswith(_SQLITE) or "%" not in path:
        return tracking_uri
    escaped = path.replace("%", "%25")
    found = (Path(make_url(uri).database or "").parent.is_dir() for uri in (path, escaped))
    return f"{escaped}{mark}{options}" if list(found) == [False, True] else tracking_uri


def database_of(tracking_uri: str) -> str | None:
    """The path of an sqlite store's file."""
    return make_url(absolute_uri(tracking_uri)).database


def artifact_root(tracking_uri: str, folder: str) -> str | None:
    """Where the artifacts of an SQL store belong whose training stood in ``folder``.

    MLflow takes ``./mlruns`` at the moment at which it opens the store, and keeps it for all of the process.

    Returns:
        ``None`` for MLflow's own choice: the store is a server, or that folder is gone.
    """
    dialect = urlsplit(tracking_uri).scheme.partition("+")[0]
    if dialect not in {"sqlite", "postgresql", "mysql", "mssql"} or os.environ.get(_OF_SERVER):
        return None
    if not Path(folder).is_dir():
        return None
    # As it is, with a "%2F" in it: MLflow takes that for a slash when it writes and when it reads. What it
    # has read it takes apart once more, so that it would not find what lies in the folder itself.
    return str(Path(folder) / _ARTIFACTS)


@contextlib.contextmanager
def existing_directory(tracking_uri: str, folder: str | None) -> Iterator[None]:
    """Stand in a folder that exists, where this process's working folder was removed.

    MLflow asks for the working folder when it opens an SQL store, whatever it is told. Where there is one it
    is left alone: other threads may need it.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    else:
        yield
        return
    try:
        beside = Path(urlsplit(tracking_uri).path[1:]).parent
        os.chdir(next((place for place in (folder, beside) if place and Path(place).is_dir()), "/"))
        yield
    finally:
        os.fchdir(here)
        os.close(here)
