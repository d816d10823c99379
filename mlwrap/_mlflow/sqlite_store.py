"""Locate an SQL store and its artifacts, so that no process has to change its working directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

_SQLITE = "sqlite:///"
_ARTIFACTS = "mlruns"  # MLflow's folder for artifacts, in the training's working directory
# Set in a process of an MLflow server; MLflow reads it itself.
_SERVER_ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"


def absolute_uri(tracking_uri: str) -> str:
    """Return the URI that makes MLflow open the intended store.

    SQLAlchemy 2.1 decodes ``%2F`` in the path of an sqlite file to a slash. MLflow escapes its own default
    for that (``%252F``), but a user may not: the URI whose folder exists is taken.
    """
    path, mark, options = tracking_uri.partition("?")
    if not path.startswith(_SQLITE) or "%" not in path:
        return tracking_uri
    escaped = path.replace("%", "%25")
    folder_exists = (Path(make_url(uri).database or "").parent.is_dir() for uri in (path, escaped))
    return f"{escaped}{mark}{options}" if list(folder_exists) == [False, True] else tracking_uri


def database_of(tracking_uri: str) -> str | None:
    """Return the path of an sqlite store's file."""
    return make_url(absolute_uri(tracking_uri)).database


def artifact_root(tracking_uri: str, folder: str) -> str | None:
    """Return the artifact root of an SQL store for a training whose working directory was ``folder``.

    MLflow resolves ``./mlruns`` when it opens the store, and keeps the result for the whole process.

    Returns:
        ``None`` for MLflow's own choice: the store is a server, or the folder no longer exists.
    """
    dialect = urlsplit(tracking_uri).scheme.partition("+")[0]
    if dialect not in {"sqlite", "postgresql", "mysql", "mssql"} or os.environ.get(_SERVER_ARTIFACT_ROOT):
        return None
    if not Path(folder).is_dir():
        return None
    # Leave a "%2F" unescaped: MLflow decodes it both when it writes and when it reads. It decodes what it has
    # read once more, so it would not find files in the literal folder.
    return str(Path(folder) / _ARTIFACTS)


@contextlib.contextmanager
def existing_directory(tracking_uri: str, folder: str | None) -> Iterator[None]:
    """Change to an existing directory if this process's working directory was removed.

    MLflow calls getcwd() when it opens an SQL store, even if it does not need the result. An existing
    working directory is left unchanged, because other threads may depend on it.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        removed_directory = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    else:
        yield
        return
    try:
        store_folder = Path(urlsplit(tracking_uri).path[1:]).parent
        os.chdir(next((path for path in (folder, store_folder) if path and Path(path).is_dir()), "/"))
        yield
    finally:
        os.fchdir(removed_directory)
        os.close(removed_directory)
