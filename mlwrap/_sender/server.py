"""The sender: a process that delivers runs during training, and after a training process has died.

One thread reads all connections. A byte on a run's connection wakes it; the end of the connection means that
the run is over or that its writer is gone. Other threads deliver the runs that are due, first those with a
waiter; runs of one store never wait for another store. The sender ends when the process that started it is
gone and no run is left.
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

_LINGER_SECONDS = 10.0  # after the last writer is gone, while MLflow does not answer; then `mlwrap sync`
_ABANDONED_SECONDS = 60.0  # how long a sender stays for runs that dead processes left
_LOOK_SECONDS = 1.0  # between checks of deliveries without progress
_MAX_GREETING = 1 << 16  # bytes


def run_sender(listener: int, address: str) -> None:
    """Serve the connections to a listening socket until no process can open another.

    Args:
        listener: The socket's file descriptor.
        address: The socket's path, removed at the end.
    """
    _lower_scheduling_priority()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # one descriptor per connection
    sender = Sender(socket.socket(fileno=listener))
    abandoned = threading.Thread(target=_start_up, args=(sender, Path(address).parent), daemon=True)
    abandoned.start()
    try:
        sender.serve()
    finally:
        abandoned.join(_ABANDONED_SECONDS)
        with short_path(Path(address)) as path, contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - a path through a descriptor
    if sender.is_stuck or is_stuck():  # a hanging thread would keep the process alive
        os._exit(0)


def _start_up(sender: Sender, spool: Path) -> None:
    """Import MLflow and report it to the waiters; then deliver what dead processes left."""
    with contextlib.suppress(Exception):  # each run hits the same error and reports it
        warm_up()
    sender.note_ready()
    finish_abandoned(spool)


def _lower_scheduling_priority() -> None:
    """On Linux, let the process that wakes this one run first instead of being preempted by it."""
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Sender:
    """Reads all connections and lets threads deliver the runs that are due.

    Args:
        server: The listening socket.
    """

    def __init__(self, server: socket.socket) -> None:
        server.setblocking(False)
        self._server: socket.socket | None = server
        self._selector = selectors.DefaultSelector()
        self._selector.register(server, selectors.EVENT_READ, self._accept)
        self._selector.register(0, selectors.EVENT_READ, self._check_starter)
        self._connections: set[socket.socket] = set()
        self._runs: dict[str, ServedRun] = {}  # by folder
        self._queues: dict[str, DeliveryQueue] = defaultdict(DeliveryQueue)  # by store
        self._threads = DaemonThreads()
        self._working: set[ServedRun] = set()
        self._finished: queue.SimpleQueue[ServedRun | None] = queue.SimpleQueue()
        bell, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(bell, selectors.EVENT_READ, functools.partial(self._on_bell, bell))
        self._linger_until = math.inf
        self.is_stuck = False

    def serve(self) -> None:
        """Serve until the process that started this one is gone and no run is left."""
        while self._server is not None or self._connections or self._runs:
            pause = min((deliveries.pause() for deliveries in self._queues.values()), default=math.inf)
            if self._linger_until < math.inf:
                self._abandon_stuck()
                pause = min(pause, _LOOK_SECONDS)
            for key, _ in self._selector.select(None if pause == math.inf else pause):
                self._handle_event(key)
            for deliveries in self._queues.values():
                while (run := deliveries.take()) is not None:
                    self._working.add(run)
                    deliveries.in_progress.start(run)
                    run.begin()
                    self._threads.submit(functools.partial(self._work, run))

    def note_ready(self) -> None:
        """Wake the serving thread, because another thread has imported MLflow."""
        self._report(None)

    def _report(self, worked: ServedRun | None) -> None:
        """Queue a finished run and wake the serving thread; ``None`` says that MLflow is imported."""
        self._finished.put(worked)
        with contextlib.suppress(BlockingIOError):  # the bell's buffer is full, which wakes the thread too
            self._bell.send(b".")

    def _handle_event(self, key: selectors.SelectorKey) -> None:
        """Handle an event of a socket; an error closes that connection alone."""
        try:
            key.data()
        except Exception:  # noqa: BLE001 - see above
            if key.fileobj in self._connections:
                self._close_connection(key.fileobj)

    def _check_starter(self) -> None:
        """Stop accepting connections once standard input ends, as it does with the starting process."""
        if os.read(0, 4096) or self._server is None:
            return
        self._accept()  # connections that are already pending
        self._selector.unregister(0)
        self._selector.unregister(self._server)
        self._server.close()
        self._server = None
        self._check_writers()

    def _accept(self) -> None:
        while self._server is not None:
            try:
                connection, _ = self._server.accept()
            except OSError:  # no other connection is pending
                return
            if not is_own_peer(connection):
                connection.close()
                continue
            self._connections.add(connection)
            self._selector.register(
                connection,
                selectors.EVENT_READ,
                functools.partial(self._read_handshake, connection, bytearray()),
            )

    def _read_handshake(self, connection: socket.socket, received: bytearray) -> None:
        """Read the first line, which is a handshake; close the connection on anything else."""
        data = _received(connection)
        received += data
        handshake, ended, rest = bytes(received).partition(b"\n")
        if ended:
            run = self._run_of_handshake(handshake)
            run.on_connect(connection)
            if rest:
                run.on_message(rest)
            self._selector.modify(
                connection, selectors.EVENT_READ, functools.partial(self._read_message, connection, run)
            )
            self._schedule(run)
        elif not data or len(received) > _MAX_GREETING:
            self._close_connection(connection)

    def _run_of_handshake(self, handshake: bytes) -> ServedRun:
        """Return the run that a handshake names.

        Raises:
            msgspec.DecodeError: It is not a handshake.
            JournalError: The run's folder does not exist, or belongs to another user.
        """
        message = msgspec.json.decode(handshake, type=Handshake)
        folder = RunFolder(Path(message.folder))
        if folder.exists() or find_delivered(folder) is None:
            folder.check()
        store = without_password(message.tracking_uri)  # this process remembers the password from now on
        return self._runs.setdefault(message.folder, ServedRun(folder, store))

    def _read_message(self, connection: socket.socket, run: ServedRun) -> None:
        if connection.fileno() < 0:  # closed in this round of events
            return
        if data := _received(connection):
            run.on_message(data)
        else:
            run.on_disconnect(self._unregister(connection))
        self._schedule(run)

    def _close_connection(self, connection: socket.socket) -> None:
        self._unregister(connection).close()

    def _unregister(self, connection: socket.socket) -> socket.socket:
        self._selector.unregister(connection)
        self._connections.discard(connection)
        self._check_writers()
        return connection

    def _check_writers(self) -> None:
        """Give each run a last delivery once no process is left that could write or wait."""
        if self._server is None and not self._connections and self._linger_until == math.inf:
            self._linger_until = time.monotonic() + _LINGER_SECONDS
            for run in self._runs.values():
                run.final_attempt()
                self._schedule(run)

    def _schedule(self, run: ServedRun) -> None:
        if run not in self._working:  # else it is scheduled when its work ends
            self._queues[run.store].schedule(run)

    def _work(self, run: ServedRun) -> None:
        try:
            run.work(self._queues[run.store].in_progress.note_progress)
        finally:
            self._report(run)

    def _on_bell(self, bell: socket.socket) -> None:
        """Handle MLflow's import, or the end of deliveries."""
        bell.recv(4096)
        while not self._finished.empty():
            run = self._finished.get()
            if run is None:
                for served in self._runs.values():
                    served.tell_ready()
            if run not in self._working:  # it was given up
                continue
            self._end(run)
            if run.reschedule() and run.due <= max(self._linger_until, time.monotonic()):
                self._schedule(run)
                continue
            self._drop(run)

    def _abandon_stuck(self) -> None:
        """Give up deliveries without progress when no process waits; ``mlwrap sync`` may deliver them."""
        for deliveries in self._queues.values():
            for run, seconds in deliveries.in_progress.stuck().items():
                if seconds > patience_for(run.folder):
                    self.is_stuck = True
                    self._end(run)
                    self._drop(run)

    def _end(self, run: ServedRun) -> None:
        self._working.discard(run)
        self._queues[run.store].in_progress.end(run)

    def _drop(self, run: ServedRun) -> None:
        del self._runs[str(run.folder.path)]
        if run.connection is not None:
            run.on_disconnect(self._unregister(run.connection))


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def finish_abandoned(spool: Path) -> None:
    """Deliver what dead processes left in the spool, except runs that wait for ``mlwrap sync``."""
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
