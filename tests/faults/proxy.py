"""A proxy between mlwrap and an MLflow server that fails in the ways in which networks and servers do."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    time: float

    @property
    def line(self) -> str:
        """Method and path, which is what rules look at."""
        return f"{self.method} {self.path}"


class Rule(NamedTuple):
    """What becomes of a request that fits: the first rule in force decides."""

    fits: Callable[[Asked], bool]
    how: Callable[[_Handler, Asked], None]


class Proxy:
    """Forwards to ``127.0.0.1:port`` whatever no rule is for.

    Attributes:
        asked: Every request that came in, in its order.
    """

    def __init__(self, port: int) -> None:
        self.behind = port
        self.asked: list[Asked] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.accept()

    @property
    def uri(self) -> str:
        """The tracking URI of what is behind it."""
        return f"http://127.0.0.1:{self.port}"

    def rule(
        self,
        how: Callable[[_Handler, Asked], None],
        pattern: str = "",
        *,
        after: int = 0,
        times: int | None = None,
        fits: Callable[[Asked], bool] = lambda _: True,
    ) -> None:
        """Treat requests so: those whose line has ``pattern``, from the one ``after`` so many on."""
        seen = 0

        def counted(asked: Asked) -> bool:
            nonlocal seen
            if not re.search(pattern, asked.line) or not fits(asked):
                return False
            seen += 1
            return seen > after and (times is None or seen <= after + times)

        self._rules.append(Rule(counted, how))

    def heal(self) -> None:
        """Forget all rules."""
        self._rules.clear()

    def lines(self, pattern: str = "") -> list[str]:
        """Method and path of the requests that fit."""
        return [asked.line for asked in list(self.asked) if re.search(pattern, asked.line)]

    def refuse(self) -> None:
        """Close the port: nobody listens. Connections that stand are reset at their next request."""
        if self._server is not None:
            self._rules.insert(0, Rule(lambda _: True, cut))
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def accept(self) -> None:
        """Listen, again on the same port."""
        if self._server is None:
            self._rules = [rule for rule in self._rules if rule.how is not cut]
            self._server = _Listener(("127.0.0.1", self.port), _Handler)
            self._server.proxy = self
            self.port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def treat(self, handler: _Handler, asked: Asked) -> None:
        """Do with a request what the first rule that fits says."""
        with self._lock:
            self.asked.append(asked)
            how = next((rule.how for rule in self._rules if rule.fits(asked)), forward)
        how(handler, asked)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def do(self) -> None:
        body = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.command, self.path, dict(self.headers), body, time.monotonic())
        self.server.proxy.treat(self, asked)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do  # noqa: N815 - the base class's names

    def ask(self, asked: Asked) -> http.client.HTTPResponse:
        """The server's answer, its body read."""
        behind = http.client.HTTPConnection("127.0.0.1", self.server.proxy.behind, timeout=120)
        headers = {
            k: v for k, v in asked.headers.items() if k.lower() not in {"connection", "content-length"}
        }
        headers = {k: v for k, v in headers.items() if k.lower() != "transfer-encoding"}
        behind.request(asked.method, asked.path, body=asked.body, headers={**headers, "Connection": "close"})
        answer = behind.getresponse()
        answer.all = answer.read()
        behind.close()
        return answer

    def give(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


_HOP = {"connection", "content-length", "transfer-encoding", "date", "server"}


def forward(handler: _Handler, asked: Asked) -> None:
    """As if there were no proxy."""
    answer = handler.ask(asked)
    headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
    handler.give(answer.status, answer.all, headers)


def cut(handler: _Handler, _: Asked) -> None:
    """Reset the connection; the server never hears of the request."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.rfile.close()
        handler.wfile.close()
    handler.connection.close()


def cut_after(handler: _Handler, asked: Asked) -> None:
    """The server does what it is asked, and the connection is reset before the answer is through."""
    handler.ask(asked)
    cut(handler, asked)


def hang(handler: _Handler, asked: Asked) -> None:
    """Never answer; ends when the other end gives up."""
    handler.connection.recv(1)
    cut(handler, asked)


def reply(status: int, body: str = "", **headers: str) -> Callable[[_Handler, Asked], None]:
    """Answer so, without asking the server; ``retry_after="1"`` is the header ``Retry-After``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: handler.give(status, body.encode(), named)


def keep(until: threading.Event) -> Callable[[_Handler, Asked], None]:
    """Hold each request back until an event is set."""

    def how(handler: _Handler, asked: Asked) -> None:
        until.wait(240)
        forward(handler, asked)

    return how


def slow(seconds: float, bytes_per_second: float = 1e9) -> Callable[[_Handler, Asked], None]:
    """Be late with each answer, and later for each byte that was sent."""

    def how(handler: _Handler, asked: Asked) -> None:
        time.sleep(seconds + len(asked.body) / bytes_per_second)
        forward(handler, asked)

    return how
