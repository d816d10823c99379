"""Answers that are taken at once, for every request of this process.

``mlflow server`` with several workers, which is its default, sends the head of an answer and its body apart,
and holds the body back until the head is acknowledged (Nagle's algorithm; asyncio turns it off only on
sockets that it has opened itself). Linux acknowledges late, after 40 ms, where a connection has been in use
for a while: so every request would take 40 ms longer than it need.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_QUICK = getattr(socket, "TCP_QUICKACK", None)  # Linux has it


class _Prompt(HTTPConnection):
    def getresponse(self) -> Any:
        if _QUICK is not None and isinstance(self.sock, socket.socket):
            with contextlib.suppress(OSError):  # the connection is lost, as the answer will tell
                self.sock.setsockopt(socket.IPPROTO_TCP, _QUICK, 1)  # for one answer
        return super().getresponse()


class _PromptTLS(_Prompt, HTTPSConnection):
    pass


def take_answers_at_once() -> None:
    """From now on, in all of this process: so only in one that is ours alone."""
    HTTPConnectionPool.ConnectionCls = _Prompt
    HTTPSConnectionPool.ConnectionCls = _PromptTLS
