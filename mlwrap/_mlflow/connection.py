"""Check quickly whether a store can be reached; MLflow's client takes minutes to report that it can't."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from mlwrap.errors import Unreachable

_CONNECT_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mariadb": 3306}


class ServerNotListening(Unreachable):
    """No server or store exists at the URI: an immediate retry is useless."""


@contextlib.contextmanager
def exclusive_open(tracking_uri: str) -> Iterator[None]:
    """Let one process at a time open an sqlite store, because the first one creates its tables.

    The lock is on the store's folder, not on a file, so it leaves nothing behind.
    """
    folder = Path(urlsplit(tracking_uri).path[1:]).parent
    if not tracking_uri.startswith("sqlite:///") or not folder.is_dir():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # the filesystem has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_listening(tracking_uri: str) -> None:
    """Check that a server accepts connections, of HTTP or a database, or that an sqlite file can be opened.

    Raises:
        ServerNotListening: It can't. MLflow's client would retry for minutes.
    """
    if tracking_uri.startswith("sqlite:///"):
        _check_sqlite(tracking_uri)
    parts = urlsplit(tracking_uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme not in _PORTS or not parts.hostname or "," in parts.hostname:  # a list of a database's hosts
        return
    if urllib.request.getproxies().get(scheme):  # a proxy: a direct connection would prove nothing
        return
    port = parts.port or _PORTS[scheme]
    try:
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise ServerNotListening(f"no server listens at {parts.hostname}:{port} ({error}).") from error


def _check_sqlite(tracking_uri: str) -> None:
    from mlwrap._mlflow.sqlite_store import database_of  # noqa: PLC0415 - imports SQLAlchemy

    database = database_of(tracking_uri)
    if not database or database == ":memory:":
        return
    file = Path(database)
    try:
        with contextlib.closing(sqlite3.connect(file.absolute().as_uri() + "?mode=rw", uri=True, timeout=0)):
            return
    except sqlite3.OperationalError as error:
        if file.parent.is_dir() and not file.exists() and os.access(file.parent, os.W_OK):
            return  # MLflow creates it
        raise ServerNotListening(f"the sqlite store {database} can't be opened ({error}).") from error
