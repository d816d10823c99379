"""The sender: a process that delivers while training goes on, and after it has died.

One thread listens to all lines: a byte on a run's line wakes it, the line's end means that the run is over or
that its writer is gone. A few threads deliver what is due, first what somebody waits for. It ends when the
one that started it is gone and no run is left.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import queue
import resource
import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from mlwrap._delivery.due import Due
from mlwrap._delivery.line import Hello, connected, short
from mlwrap._delivery.served import Served, close_for_the_dead, get_ready
from mlwrap._journal import RunFolder, header, run_folders, sweep
from mlwrap._passwords import without_password
from mlwrap.errors import DeliveryError, JournalError

_AT_ONCE = 16  # deliveries; some may wait for a server that does not answer
_LINGER_SECONDS = (
    10.0  # after the last writer is gone, for an MLflow that does not answer; then `mlwrap sync` is needed
)
_ABANDONED_SECONDS = 60.0  # that a sender stays for what others have left


def main(listener: int, address: str) -> None:
    """Serve the lines that come in on a listening socket until nobody can bring another.

    Args:
        listener: Descriptor of the socket.
        address: Its path, removed at the end.
    """
    _give_way()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each line is a descriptor
    abandoned = threading.Thread(target=finish_abandoned, args=(Path(address).parent,), daemon=True)
    abandoned.start()
    try:
        Sender(socket.socket(fileno=listener)).serve()
    finally:
        abandoned.join(_ABANDONED_SECONDS)
        with short(Path(address)) as path, contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - a path through a descriptor


def _give_way() -> None:
    """Let whoever wakes this process go on first, where it would be put in its place: on Linux."""
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Sender:
    """Listens to all lines, and has delivered what is due.

    Args:
        server: The socket that lines come in on.
    """

    def __init__(self, server: socket.socket) -> None:
        server.setblocking(False)
        self._server: socket.socket | None = server
        self._selector = selectors.DefaultSelector()
        self._selector.register(server, selectors.EVENT_READ, self._accept)
        self._selector.register(0, selectors.EVENT_READ, self._look_for_starter)
        self._lines = 0
        self._runs: dict[str, Served] = {}  # by their folders
        self._due = Due()
        self._threads = ThreadPoolExecutor(_AT_ONCE)
        self._working: set[Served] = set()
        self._worked: queue.SimpleQueue[Served] = queue.SimpleQueue()
        bell, self._bell = socket.socketpair()
        self._selector.register(bell, selectors.EVENT_READ, functools.partial(self._rest, bell))
        self._give_up = math.inf

    def serve(self) -> None:
        """Serve until the starter is gone and no run is left."""
        while self._server is not None or self._lines or self._runs:
            full = len(self._working) >= _AT_ONCE
            for key, _ in self._selector.select(None if full else self._due.pause()):
                key.data()
            while len(self._working) < _AT_ONCE and (run := self._due.take()) is not None:
                self._working.add(run)
                run.begin()
                self._threads.submit(self._work, run)
        self._threads.shutdown()

    def _look_for_starter(self) -> None:
        """Standard input ends when the process that started this one does."""
        if os.read(0, 4096) or self._server is None:
            return
        self._accept()  # who has knocked by now
        self._selector.unregister(0)
        self._selector.unregister(self._server)
        self._server.close()
        self._server = None
        self._look_for_writers()

    def _accept(self) -> None:
        while self._server is not None:
            try:
                line, _ = self._server.accept()
            except OSError:  # nobody else is there
                return
            self._lines += 1
            self._selector.register(
                line, selectors.EVENT_READ, functools.partial(self._meet, line, bytearray())
            )

    def _meet(self, line: socket.socket, said: bytearray) -> None:
        """The run's folder is the first line that is sent."""
        data = _received(line)
        said += data
        hello, ended, rest = bytes(said).partition(b"\n")
        if ended:
            told = msgspec.json.decode(hello, type=Hello)
            without_password(told.tracking_uri)  # from now on it is known here
            run = self._runs.setdefault(told.folder, Served(RunFolder(Path(told.folder))))
            run.join(line)
            if rest:
                run.heard(rest)
            self._selector.modify(line, selectors.EVENT_READ, functools.partial(self._hear, line, run))
            self._note(run)
        elif not data:
            self._forget(line)
            line.close()

    def _hear(self, line: socket.socket, run: Served) -> None:
        if line.fileno() < 0:  # closed in this very round
            return
        if data := _received(line):
            run.heard(data)
        else:
            run.closed(self._forget(line))
        self._note(run)

    def _forget(self, line: socket.socket) -> socket.socket:
        self._selector.unregister(line)
        self._lines -= 1
        self._look_for_writers()
        return line

    def _look_for_writers(self) -> None:
        """Once nobody is left who could write, or wait, each run has one more try."""
        if self._server is None and not self._lines and self._give_up == math.inf:
            self._give_up = time.monotonic() + _LINGER_SECONDS
            for run in self._runs.values():
                run.last_try()
                self._note(run)

    def _note(self, run: Served) -> None:
        if run not in self._working:  # else it is noted once it rests
            self._due.note(run)

    def _work(self, run: Served) -> None:
        try:
            run.work()
        finally:
            self._worked.put(run)
            self._bell.send(b".")

    def _rest(self, bell: socket.socket) -> None:
        """Runs have been delivered, as far as they go."""
        bell.recv(4096)
        while not self._worked.empty():
            run = self._worked.get()
            self._working.discard(run)
            if run.rest() and run.due <= max(self._give_up, time.monotonic()):
                self._due.note(run)
                continue
            del self._runs[str(run.folder.path)]
            if run.line is not None:
                run.closed(self._forget(run.line))


def _received(line: socket.socket) -> bytes:
    try:
        return line.recv(65536)
    except OSError:
        return b""


def finish_abandoned(spool: Path) -> None:
    """Deliver what dead processes left in the spool; what waits for ``mlwrap sync`` goes on waiting."""
    get_ready()
    from mlwrap._delivery import runs  # noqa: PLC0415 - has just been imported

    for address in spool.glob("sender-*.sock"):
        try:
            connected(address).close()
        except ConnectionRefusedError:
            address.unlink(missing_ok=True)
        except OSError:
            continue
    sweep(spool)
    for folder in run_folders(spool):
        with contextlib.suppress(DeliveryError, JournalError, OSError):
            if not header(folder.journal).offline and close_for_the_dead(folder, 0):
                runs.deliver(folder)
