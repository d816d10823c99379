"""Requests take no longer than they must, and are what they were."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from mlwrap._mlflow import tune_http


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was sent."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for pool in (HTTPConnectionPool, HTTPSConnectionPool):
        monkeypatch.setattr(pool, "ConnectionCls", pool.ConnectionCls)
    thresholds = gc.get_threshold()
    tune_http.tune_http()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def echo() -> Iterator[str]:
    """A server; its threads go with the process, for MLflow's client keeps its connections."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("_at_once")
def test_each_answer_is_acknowledged_at_once(echo: str, monkeypatch: pytest.MonkeyPatch):
    """Of each request on one connection anew, for the kernel forgets it; where the kernel knows of it."""
    set_options: list[int] = []

    class Watched(socket.socket):
        def setsockopt(self, level, option, *value):
            set_options.append(option)
            return super().setsockopt(level, option, *value)

    monkeypatch.setattr("socket.socket", Watched)
    with urllib3.PoolManager() as pool:
        for text in (b"one", b"two", b"three"):
            assert pool.request("PUT", echo, body=text).data == text
    if hasattr(socket, "TCP_QUICKACK"):
        assert set_options.count(socket.TCP_QUICKACK) == 3


@pytest.mark.usefixtures("_at_once")
def test_connections_are_what_they_were_besides():
    """With TLS and without."""
    assert issubclass(HTTPConnectionPool.ConnectionCls, HTTPConnection)
    assert issubclass(HTTPSConnectionPool.ConnectionCls, HTTPSConnection)


@pytest.mark.usefixtures("_at_once")
def test_what_is_imported_is_looked_through_no_more():
    """Only what is made from now on."""
    assert gc.get_freeze_count() > 50_000
    assert len(gc.get_objects()) < 50_000
    assert gc.isenabled()
