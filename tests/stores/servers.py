"""Artifact stores and databases as processes of their own; each is skipped where it is not installed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.servers import free_port, running

BUCKET = "mlwrap-test"
# Credentials that no server of these tests checks, but that every client must have.
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def needs(*packages: str) -> None:
    """Skip a test whose store's client is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[str]:
    """Moto as a server that speaks S3 over HTTP; gives its URL. It takes parts of any size."""
    needs("moto", "boto3")
    port = free_port()
    environment = {**os.environ, **S3_ENVIRONMENT, "S3_UPLOAD_PART_MIN_SIZE": "1"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, folder / "server.log", lambda: _listens(port), env=environment):
        url = f"http://127.0.0.1:{port}"
        s3_client(url).create_bucket(Bucket=BUCKET)
        yield url


def s3_client(url: str) -> Any:
    """A client of boto3, to look into the store."""
    import boto3  # noqa: PLC0415 - not installed everywhere

    return boto3.session.Session("test", "test", region_name="us-east-1").client("s3", endpoint_url=url)


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """A MariaDB or MySQL of our own; gives the URI of an empty database."""
    needs("pymysql")
    server = shutil.which("mariadbd") or shutil.which("mysqld") or shutil.which("mariadbd", path="/usr/sbin")
    if server is None:
        pytest.skip("MariaDB is not installed (no mariadbd or mysqld on PATH)")
    folder, port = Path(tempfile.mkdtemp(prefix="mlwrap-mariadb-")), free_port()
    data, user = folder / "data", ["--user=mysql"] if os.getuid() == 0 else []
    try:
        if user:
            shutil.chown(folder, "mysql")
        if install := shutil.which("mariadb-install-db"):
            command = [
                install,
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
            ]
            subprocess.run([*command, *user], check=True, stdout=subprocess.DEVNULL)
        else:
            command = [server, "--no-defaults", "--initialize-insecure", f"--datadir={data}"]
            subprocess.run([*command, *user], check=True, stderr=subprocess.DEVNULL)
        options = [
            f"--datadir={data}",
            f"--socket={folder / 's'}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
        ]
        options += [f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=0"]
        with running(
            [server, "--no-defaults", *options, *user], folder / "server.log", lambda: _listens(port)
        ):
            import pymysql  # noqa: PLC0415 - not installed everywhere

            with pymysql.connect(unix_socket=str(folder / "s"), user="root") as connection:
                cursor = connection.cursor()
                cursor.execute("CREATE DATABASE mlflow CHARACTER SET utf8mb4")
                cursor.execute("CREATE USER 'mlflow'@'127.0.0.1' IDENTIFIED BY 'secret'")
                cursor.execute("GRANT ALL ON mlflow.* TO 'mlflow'@'127.0.0.1'")
            yield f"mysql+pymysql://mlflow:secret@127.0.0.1:{port}/mlflow"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class CountingProxy:
    """Forwards bytes to ``127.0.0.1:port``, counts those that are sent there, and can interrupt the sender.

    Attributes:
        sent: How many bytes the clients have sent.
        at: At so many bytes ``then`` is called, once.
        then: What is done then.
    """

    def __init__(self, port: int) -> None:
        self._behind = port
        self.sent = 0
        self.at: int | None = None
        self.then: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._port = 0
        self._sockets: set[socket.socket] = set()
        self.listen()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Listen, again at the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Cut every connection, so that what the system still has of an ended process's requests is lost."""
        self.close_all()
        self.listen()

    def close_all(self) -> None:
        """Listen no more, and cut every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._sockets):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._behind))
                self._sockets |= {client, server}
                threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if is_sent:
                    self._count(len(data))
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        with self._lock:
            self.sent += size
            if self.at is not None and self.sent >= self.at:
                self.at = None
                self.then()


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """Azurite, Microsoft's emulator of Azure's blob storage; gives the connection string."""
    needs("azure.storage.blob")
    program = Path(__file__).parents[2] / ".tool" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        pytest.skip("Azurite is not installed ('make test-more' installs it where there is npm)")
    port = free_port()
    command = [str(program), "--silent", "--skipApiVersionCheck", "--blobHost", "127.0.0.1"]
    command += ["--blobPort", str(port), "--location", str(folder)]
    with running(command, folder / "server.log", lambda: _listens(port)):
        account = "devstoreaccount1"
        # Azurite's only key, which its documentation names.
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        endpoint = f"http://127.0.0.1:{port}/{account}"
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};BlobEndpoint={endpoint};"
        )
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - not installed everywhere

        BlobServiceClient.from_connection_string(connection).create_container(BUCKET)
        yield connection
