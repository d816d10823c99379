"""The sender: a process that delivers runs during training, and after a training process has died.

One thread reads all connections. A byte on a run's connection wakes it; the end of the connection means that
the run is over or that its writer is gone. Other threads deliver the runs that are due, first those with a
waiter; runs of one store never wait for another store. The sender ends when no run has come for a while.
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
from pathlib import Path

import msgspec

from mlwrap._delivery.backlog import is_stuck, patience_for
from mlwrap._delivery.threads import DaemonThreads
from mlwrap._journal.sender_protocol import STATUS, STOP, Handshake, SenderInfo
from mlwrap._journal.uri_passwords import without_password
from mlwrap._sender.abandoned import AbandonedRuns
from mlwrap._sender.delivery_queue import DeliveryQueue
from mlwrap._sender.served_run import ServedRun, ready, warm_up
from mlwrap._spool.delivered_runs import find_delivered
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.sender_sockets import SenderAddress, is_own_peer

_FIRST_SECONDS = 10.0  # until the first run connects
_LOOK_SECONDS = 1.0  # between checks of deliveries without progress
_MAX_GREETING = 1 << 16  # bytes


def run_sender(listener: int, spool: str, digest: str) -> None:
    """Serve the connections to a listening socket until no run has come for a while.

    Args:
        listener: The socket's file descriptor.
        spool: The spool, which holds the socket and the run folders.
        digest: What the sender's runs have in common; it names the socket.
    """
    _lower_scheduling_priority()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # one descriptor per connection
    abandoned = AbandonedRuns(Path(spool))
    sender = Sender(socket.socket(fileno=listener), SenderAddress(Path(spool), digest), abandoned)
    threading.Thread(target=sender.start_up, daemon=True).start()
    sender.serve()
    abandoned.wait()
    if sender.is_stuck or is_stuck():  # a hanging thread would keep the process alive
        os._exit(0)


def _lower_scheduling_priority() -> None:
    """On Linux, let the process that wakes this one run first instead of being preempted by it."""
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Sender:
    """Reads all connections and lets threads deliver the runs that are due.

    Args:
        listener: The listening socket.
        address: Its place in the spool.
        abandoned: The runs that dead processes left there.
    """

    def __init__(self, listener: socket.socket, address: SenderAddress, abandoned: AbandonedRuns) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._address = address
        self._is_listed = True  # whether others find it by its address
        self._is_stopping = False
        self._abandoned = abandoned
        self._began = time.time()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._connections: set[socket.socket] = set()
        self._runs: dict[str, ServedRun] = {}  # by folder
        self._queues: dict[str, DeliveryQueue] = {}  # by store
        self._threads = DaemonThreads()
        self._working: set[ServedRun] = set()
        self._finished: queue.SimpleQueue[ServedRun | None] = queue.SimpleQueue()
        bell, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(bell, selectors.EVENT_READ, functools.partial(self._on_bell, bell))
        self._linger = _FIRST_SECONDS  # after the last connection has ended
        self._linger_until = time.monotonic() + self._linger
        self.is_stuck = False

    def serve(self) -> None:
        """Serve until no run has come for a while, and none is left."""
        while self._connections or self._runs or not self._can_end():
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

    def _can_end(self) -> bool:
        """Return whether nobody needs the sender any more; nobody finds it then."""
        if time.monotonic() >= self._linger_until:
            self._retire()
        return not self._is_listed and not self._connections

    def _retire(self) -> None:
        """Remove the address, and accept those that have found it already."""
        if self._is_listed:
            self._is_listed = False
            self._address.unlist()
        self._accept()

    def start_up(self) -> None:
        """Import MLflow, and report that to the waiters; run it in a thread beside :meth:`serve`."""
        with contextlib.suppress(Exception):  # each run hits the same error and reports it
            warm_up()
        if self._is_listed:
            self._address.mark_ready()
        self._report(None)
        self._abandoned.look()

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

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # no other connection is pending
                return
            if not is_own_peer(connection):
                connection.close()
                continue
            self._connections.add(connection)
            if self._linger_until < math.inf:
                self._linger_until = math.inf
                if ready.is_set():
                    self._abandoned.look()
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
        if handshake in {STATUS, STOP} and ended:
            self._answer(connection, handshake)
        elif ended:
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

    def _answer(self, connection: socket.socket, question: bytes) -> None:
        """Answer ``mlwrap sender``; if asked to, stop: the runs that are open go on with another sender."""
        info = SenderInfo(pid=os.getpid(), seconds=time.time() - self._began, runs=len(self._runs))
        connection.sendall(msgspec.json.encode(info) + b"\n")
        self._close_connection(connection)
        if question == STOP:
            self._is_stopping = True
            self._retire()
            for run in set(self._runs.values()) - self._working:
                self._drop(run)

    def _run_of_handshake(self, handshake: bytes) -> ServedRun:
        """Return the run that a handshake names.

        Raises:
            msgspec.DecodeError: It is not a handshake.
            JournalError: The run's folder does not exist, or belongs to another user.
        """
        message = msgspec.json.decode(handshake, type=Handshake)
        self._linger = message.linger
        folder = RunFolder(Path(message.folder))
        if folder.exists() or find_delivered(folder) is None:
            folder.check()
        store = without_password(message.tracking_uri)  # this process remembers the password from now on
        self._queues.setdefault(store, DeliveryQueue(store))
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
        if not self._connections:
            self._linger_until = time.monotonic() + self._linger
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
            keeps = not self._is_stopping and run.reschedule()
            if keeps and run.due <= max(self._linger_until, time.monotonic()):
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
