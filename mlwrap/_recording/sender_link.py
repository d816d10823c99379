"""A run's line to the sender: the training half's end of it.

The sender is a process of its own, one for a tree of training processes. It listens on a Unix socket in the
spool, and each run has a connection to it: that is how the sender is woken, how it is asked whether all is
delivered, and how it notices that a training process has died, for then the kernel closes the connection.
Nothing here imports MLflow, waits for the sender to have started, or starts a thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path

import msgspec

from mlwrap._journal.sender_protocol import ASK, WAKE, Handshake, SenderStatus
from mlwrap._journal.uri_passwords import with_password
from mlwrap._spool.descriptors import above_standard_descriptors
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.sender_sockets import connect_socket, listen_at
from mlwrap.errors import DeliveryError

ADDRESS = "MLWRAP_SENDER"  # tells the children of a training process where the sender listens
WAKE_SECONDS = 0.5  # a record need not wake the sender if one did so within this time: it looks again
_START_SECONDS = 60.0  # to import MLflow may take longer than the deadline, on a machine that is busy
_STARTS = 3
_BACKLOG = 4096


class SenderLink:
    """One run's connection to the sender, made anew, and the sender with it, if either is lost.

    Args:
        folder: The run's folder, in a spool that both can reach.
        tracking_uri: Where it is to be delivered.

    Raises:
        DeliveryError: No sender can be started.
    """

    def __init__(self, folder: RunFolder, tracking_uri: str) -> None:
        self._folder = folder
        self._hello = Handshake(folder=str(folder.path), tracking_uri=with_password(tracking_uri))
        self._starts = 0
        self._socket: socket.socket | None = None
        self._connect()
        _lines.add(self)

    def wake(self) -> None:
        """Tell the sender that there is more to deliver; it need not be told again for half a second."""
        with contextlib.suppress(DeliveryError):  # training goes on; the end of the run will tell
            self._send(WAKE)

    def wait(
        self, deadline: float, timeout: float = math.inf, *, patience: float = _START_SECONDS
    ) -> SenderStatus | None:
        """Wait until all is delivered, for as long as delivery makes progress; the line is open then.

        Args:
            deadline: Seconds without progress after which waiting ends.
            timeout: Seconds after which it ends in any case.
            patience: Seconds that the sender may take for its first word, which it says once MLflow is
                imported: the run's own store and delivery have no part in that.

        Returns:
            The last that the sender said; ``None`` if it said nothing.

        Raises:
            DeliveryError: The sender is lost, and no other can be started.
        """
        self._starts = 0
        connection = self._socket or self._connect()
        with contextlib.suppress(OSError):  # all may be delivered, and the line closed: the answer is in it
            connection.send(ASK, socket.MSG_DONTWAIT)
        last: SenderStatus | None = None
        began = time.monotonic()
        until = began + deadline
        unread = b""
        while True:
            limit = until if last is not None else max(until, began + patience)
            answer = self._receive(min(limit, began + timeout) - time.monotonic())
            if answer is None:
                return last
            *lines, unread = (unread + answer).split(b"\n")
            for line in lines:
                told = msgspec.json.decode(line, type=SenderStatus)
                if told.done:
                    return told
                if last is None or told.progress.delivered() != last.progress.delivered():
                    until = max(until, time.monotonic() + deadline) if told.error is None else until
                last = told
                if told.away >= deadline:  # it has been away for longer than anybody would wait
                    return told

    def close(self) -> None:
        """Hang up: what is not delivered yet the sender goes on delivering. :meth:`wait` calls it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes) -> None:
        for _ in range(2):
            connection = self._socket or self._connect()
            try:
                connection.send(message, socket.MSG_DONTWAIT)
            except BlockingIOError:  # it has not read what woke it before: it is awake
                return
            except OSError:
                self.close()
            else:
                return

    def _receive(self, seconds: float) -> bytes | None:
        if self._socket is None or seconds <= 0:
            return None
        self._socket.settimeout(seconds)
        try:
            answer = self._socket.recv(65536)
        except TimeoutError:
            return None
        except OSError:
            answer = b""
        if not answer:  # the sender died: another one goes on where it stopped
            self.close()
            self._send(ASK)
        return answer

    def _connect(self) -> socket.socket:
        if not self._folder.exists():
            raise DeliveryError(f"its run folder {self._folder.path} is gone.")
        self._starts += 1
        if self._starts > _STARTS:
            raise DeliveryError(f"the sender was lost {_STARTS} times")
        with above_standard_descriptors():
            self._socket = _connection(self._folder.path.parent)
        self._socket.sendall(msgspec.json.encode(self._hello) + b"\n")
        return self._socket


_lines: weakref.WeakSet[SenderLink] = weakref.WeakSet()
_started: list[subprocess.Popen[bytes]] = []  # their standard input is a tie that holds while we live


def _connection(spool: Path) -> socket.socket:
    """A connection to the sender that listens for this tree of processes, or to a new one."""
    address = os.environ.get(ADDRESS)
    if address:
        try:
            return connect_socket(Path(address))
        except OSError:
            del os.environ[ADDRESS]
    address = str(spool / f"sender-{os.getpid()}-{secrets.token_hex(4)}.sock")
    try:
        _start_sender(Path(address))
        connection = connect_socket(Path(address))
    except OSError as error:
        Path(address).unlink(missing_ok=True)
        raise DeliveryError(f"no sender could be started ({error})") from error
    os.environ[ADDRESS] = address
    return connection


def _start_sender(address: Path) -> None:
    with listen_at(address, _BACKLOG) as listener:
        # Standard input is the sender's tie to this process; it starts in a session of its own, so that what
        # ends a terminal's processes does not end it. Its modules are found where this process finds its own.
        source = (
            f"import sys; sys.path[:] = {sys.path!r}; from mlwrap._sender.server import run_sender; "
            f"run_sender({listener.fileno()}, {str(address)!r})"
        )
        sender = subprocess.Popen(  # noqa: S603 - this very interpreter
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    _started.append(sender)


def _let_go() -> None:
    """In a child made by ``fork``: the lines are the parent's, and its death must be noticed all the same."""
    for line in list(_lines):
        line.close()
    for sender in _started:
        if sender.stdin is not None:
            sender.stdin.close()
    _started.clear()


os.register_at_fork(after_in_child=_let_go)
