"""Delivery that takes no longer than it must: all that this process does from now on.

Answers are taken at once. ``mlflow server`` with several workers, which is its default, sends the head of an
answer and its body apart, and holds the body back until the head is acknowledged (Nagle's algorithm; asyncio
turns it off only on sockets that it has opened itself). Linux acknowledges late, after 40 ms, where a
connection has been in use for a while: so every request would take 40 ms longer than it need.

And what is the same for all requests is found out once. Before each of them MLflow's client tries to import
what there is in Databricks and notebooks, and requests reads the whole environment, twice, for the names of
proxies: together that is half of what a request costs here.

What is imported, MLflow above all, is looked through for garbage no more. With that, and with a look only
after every 20,000 new objects (a request has some thousands), points take a fifth less time over sqlite.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import socket
import sys
from typing import Any

import requests.utils
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


_TRIED = ("dbruntime", "pyspark", "IPython")
_GARBAGE_AFTER = 20_000  # objects


def tune_http() -> None:
    """From now on, in all of this process: so only in one that is ours alone, and keeps its environment."""
    HTTPConnectionPool.ConnectionCls = _Prompt
    HTTPSConnectionPool.ConnectionCls = _PromptTLS
    for name in _TRIED:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = None  # type: ignore[assignment] # which says to an import that there is none
    for function in ("getproxies", "proxy_bypass"):
        setattr(requests.utils, function, functools.cache(getattr(requests.utils, function)))
    gc.freeze()
    gc.set_threshold(_GARBAGE_AFTER, *gc.get_threshold()[1:])
