"""The sender: a process that delivers while training goes on, and after it has died.

One thread listens to all lines: a byte on a run's line wakes it, the line's end means that the run is over or
that its writer is gone. Other threads deliver what is due, first what somebody waits for; those of one store
never wait for another store. It ends when the one that started it is gone and no run is left.
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
from collections import defaultdict
from pathlib import Path

import msgspec

from mlwrap._delivery.backlog import deliver_backlog, is_stuck, patience_for
from mlwrap._delivery.threads import DaemonThreads
from mlwrap._journal.reader import header
from mlwrap._journal.sender_protocol import Handshake
from mlwrap._journal.uri_passwords import without_password
from mlwrap._sender.delivery_queue import DeliveryQueue
from mlwrap._sender.served_run import ServedRun, warm_up
from mlwrap._spool.delivered_runs import find_delivered
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.sender_sockets import is_own_peer, short_path
from mlwrap._spool.spool import remove_leftovers, run_folders
from mlwrap.errors import JournalError

_LINGER_SECONDS = (
    10.0  # after the last writer is gone, for an MLflow that does not answer; then `mlwrap sync` is needed
)
_ABANDONED_SECONDS = 60.0  # that a sender stays for what others have left
_LOOK_SECONDS = 1.0  # from one look to the next at what gets nowhere
_MAX_GREETING = 1 << 16  # bytes


def run_sender(listener: int, address: str) -> None:
    """Serve the lines that come in on a listening socket until nobody can bring another.

    Args:
        listener: Descriptor of the socket.
        address: Its path, removed at the end.
    """
    _give_way()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each line is a descriptor
    sender = Sender(socket.socket(fileno=listener))
    abandoned = threading.Thread(target=_start_up, args=(sender, Path(address).parent), daemon=True)
    abandoned.start()
    try:
        sender.serve()
    finally:
        abandoned.join(_ABANDONED_SECONDS)
        with short_path(Path(address)) as path, contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - a path through a descriptor
    if sender.is_stuck or is_stuck():  # a thread that hangs would keep the process alive
        os._exit(0)


def _start_up(sender: Sender, spool: Path) -> None:
    """Import MLflow, and say so to whoever waits; then deliver what dead processes have left."""
    with contextlib.suppress(Exception):  # each run finds out for itself, and says it
        warm_up()
    sender.note_ready()
    finish_abandoned(spool)


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
        self._lines: set[socket.socket] = set()
        self._runs: dict[str, ServedRun] = {}  # by their folders
        self._due: dict[str, DeliveryQueue] = defaultdict(DeliveryQueue)  # by their stores
        self._threads = DaemonThreads()
        self._working: set[ServedRun] = set()
        self._worked: queue.SimpleQueue[ServedRun | None] = queue.SimpleQueue()
        bell, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(bell, selectors.EVENT_READ, functools.partial(self._rest, bell))
        self._give_up = math.inf
        self.is_stuck = False

    def serve(self) -> None:
        """Serve until the starter is gone and no run is left."""
        while self._server is not None or self._lines or self._runs:
            pause = min((due.pause() for due in self._due.values()), default=math.inf)
            if self._give_up < math.inf:
                self._abandon()
                pause = min(pause, _LOOK_SECONDS)
            for key, _ in self._selector.select(None if pause == math.inf else pause):
                self._call(key)
            for due in self._due.values():
                while (run := due.take()) is not None:
                    self._working.add(run)
                    due.in_progress.start(run)
                    run.begin()
                    self._threads.submit(functools.partial(self._work, run))

    def note_ready(self) -> None:
        """MLflow is imported, which another thread has done."""
        self._report(None)

    def _report(self, worked: ServedRun | None) -> None:
        """Have the thread that listens look what another thread has done."""
        self._worked.put(worked)
        with contextlib.suppress(BlockingIOError):  # the bell has rung so often that it is heard all the same
            self._bell.send(b".")

    def _call(self, key: selectors.SelectorKey) -> None:
        """Do what is to be done; whatever goes wrong with a line costs that line alone."""
        try:
            key.data()
        except Exception:  # noqa: BLE001 - see above
            if key.fileobj in self._lines:
                self._close(key.fileobj)

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
            if not is_own_peer(line):
                line.close()
                continue
            self._lines.add(line)
            self._selector.register(
                line, selectors.EVENT_READ, functools.partial(self._meet, line, bytearray())
            )

    def _meet(self, line: socket.socket, said: bytearray) -> None:
        """The first line that is sent is a greeting; who sends something else is not listened to."""
        data = _received(line)
        said += data
        hello, ended, rest = bytes(said).partition(b"\n")
        if ended:
            run = self._greeted(hello)
            run.on_connect(line)
            if rest:
                run.on_message(rest)
            self._selector.modify(line, selectors.EVENT_READ, functools.partial(self._hear, line, run))
            self._note(run)
        elif not data or len(said) > _MAX_GREETING:
            self._close(line)

    def _greeted(self, hello: bytes) -> ServedRun:
        """The run that somebody greets for.

        Raises:
            msgspec.DecodeError: It is no greeting.
            JournalError: Its folder is not there, or not this user's own.
        """
        told = msgspec.json.decode(hello, type=Handshake)
        folder = RunFolder(Path(told.folder))
        if folder.exists() or find_delivered(folder) is None:
            folder.check()
        store = without_password(told.tracking_uri)  # from now on the password is known here
        return self._runs.setdefault(told.folder, ServedRun(folder, store))

    def _hear(self, line: socket.socket, run: ServedRun) -> None:
        if line.fileno() < 0:  # closed in this very round
            return
        if data := _received(line):
            run.on_message(data)
        else:
            run.on_disconnect(self._forget(line))
        self._note(run)

    def _close(self, line: socket.socket) -> None:
        self._forget(line).close()

    def _forget(self, line: socket.socket) -> socket.socket:
        self._selector.unregister(line)
        self._lines.discard(line)
        self._look_for_writers()
        return line

    def _look_for_writers(self) -> None:
        """Once nobody is left who could write, or wait, each run has one more try."""
        if self._server is None and not self._lines and self._give_up == math.inf:
            self._give_up = time.monotonic() + _LINGER_SECONDS
            for run in self._runs.values():
                run.final_attempt()
                self._note(run)

    def _note(self, run: ServedRun) -> None:
        if run not in self._working:  # else it is noted once it rests
            self._due[run.store].schedule(run)

    def _work(self, run: ServedRun) -> None:
        try:
            run.work(self._due[run.store].in_progress.note_progress)
        finally:
            self._report(run)

    def _rest(self, bell: socket.socket) -> None:
        """MLflow is imported, or runs have been delivered, as far as they go."""
        bell.recv(4096)
        while not self._worked.empty():
            run = self._worked.get()
            if run is None:
                for each in self._runs.values():
                    each.tell_ready()
            if run not in self._working:  # it was given up
                continue
            self._end(run)
            if run.reschedule() and run.due <= max(self._give_up, time.monotonic()):
                self._note(run)
                continue
            self._drop(run)

    def _abandon(self) -> None:
        """Nobody is left who could wait: give up what gets nowhere, which ``mlwrap sync`` may deliver."""
        for due in self._due.values():
            for run, seconds in due.in_progress.stuck().items():
                if seconds > patience_for(run.folder):
                    self.is_stuck = True
                    self._end(run)
                    self._drop(run)

    def _end(self, run: ServedRun) -> None:
        self._working.discard(run)
        self._due[run.store].in_progress.end(run)

    def _drop(self, run: ServedRun) -> None:
        del self._runs[str(run.folder.path)]
        if run.line is not None:
            run.on_disconnect(self._forget(run.line))


def _received(line: socket.socket) -> bytes:
    try:
        return line.recv(65536)
    except OSError:
        return b""


def finish_abandoned(spool: Path) -> None:
    """Deliver what dead processes left in the spool; what waits for ``mlwrap sync`` goes on waiting."""
    from mlwrap._delivery.deliver import deliver_once  # noqa: PLC0415 - loads MLflow

    remove_leftovers(spool)
    for _ in deliver_backlog(filter(_is_abandoned, run_folders(spool)), deliver_once):
        pass


def _is_abandoned(folder: RunFolder) -> bool:
    try:
        folder.check()
        return not header(folder.journal).offline
    except (JournalError, OSError):
        return False
