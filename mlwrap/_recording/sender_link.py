"""``SenderLink``: the connection from a run to the sender.

The sender is a separate process: one for all processes that share a spool and deliver in the same
environment, with the same interpreter, credentials and proxies. The first run that needs it starts it. It
listens on a Unix socket in the spool. Each run has a connection to it, with which the run wakes the sender
and asks whether all is delivered. If a training process dies, the kernel closes its connection, and the
sender notices. If the environment of the process changes, as when a token is renewed, the run goes on with
another sender.
This module imports no MLflow, starts no thread, and does not wait until the sender has started.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path

import msgspec

from mlwrap._journal.sender_protocol import ASK, WAKE, Handshake, SenderStatus
from mlwrap._journal.uri_passwords import with_password
from mlwrap._process.delivery_environment import delivery_digest, sender_search_path
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.sender_sockets import SenderAddress, locked
from mlwrap._spool.standard_descriptors import above_standard_descriptors
from mlwrap.errors import DeliveryError

WAKE_SECONDS = 0.5  # minimum time between two wake-ups; the sender checks again after this time anyway
_START_SECONDS = 60.0  # importing MLflow may take longer than the deadline on a busy machine
_STARTS = 3
_BACKLOG = 4096


class SenderLink:
    """One run's connection to the sender; if it or the sender is lost, both are started again.

    Args:
        folder: The run folder, in a spool that both processes can access.
        tracking_uri: The MLflow that the run is delivered to.
        linger: Seconds for which the sender waits for the next run after this one.

    Raises:
        DeliveryError: No sender can be started.
    """

    def __init__(self, folder: RunFolder, tracking_uri: str, linger: float) -> None:
        self._folder = folder
        self._hello = Handshake(
            folder=str(folder.path), tracking_uri=with_password(tracking_uri), linger=linger
        )
        self._starts = 0
        self._socket: socket.socket | None = None
        self._digest = ""  # of the environment of the sender that it is connected to
        self._connect()
        _links.add(self)

    def wake(self) -> None:
        """Tell the sender that more is to be delivered; once in ``WAKE_SECONDS`` is enough."""
        with contextlib.suppress(DeliveryError):  # the training continues; the end of the run reports it
            self._follow_environment()
            self._send(WAKE)

    def wait(
        self, deadline: float, timeout: float = math.inf, *, patience: float = _START_SECONDS
    ) -> SenderStatus | None:
        """Wait until all is delivered, while delivery makes progress; the connection stays open.

        Args:
            deadline: Seconds without progress after which waiting ends.
            timeout: Seconds after which waiting ends in any case; by default unlimited.
            patience: Seconds that a sender that is starting may take for its first message; by default 60. It
                sends that after it has imported MLflow, before it contacts the run's store.

        Returns:
            The last status that the sender sent; ``None`` if it sent none.

        Raises:
            DeliveryError: The sender is lost, and no other can be started.
        """
        self._starts = 0
        self._follow_environment()
        connection = self._socket or self._connect()
        if SenderAddress(self._folder.path.parent, self._digest).is_ready:
            patience = 0.0
        with contextlib.suppress(OSError):  # the sender may have answered and closed the connection already
            connection.send(ASK, socket.MSG_DONTWAIT)
        last_status: SenderStatus | None = None
        began = time.monotonic()
        until = began + deadline
        unread = b""
        while True:
            limit = until if last_status is not None else max(until, began + patience)
            answer = self._receive(min(limit, began + timeout) - time.monotonic())
            if answer is None:
                return last_status
            *lines, unread = (unread + answer).split(b"\n")
            for line in lines:
                status = msgspec.json.decode(line, type=SenderStatus)
                if status.done:
                    return status
                if last_status is None or status.progress.delivered() != last_status.progress.delivered():
                    until = max(until, time.monotonic() + deadline) if status.error is None else until
                last_status = status
                if status.away >= deadline:  # the server has not answered for that long
                    return status

    def close(self) -> None:
        """Close the connection; the sender continues to deliver the rest. :meth:`wait` connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes) -> None:
        for _ in range(2):
            connection = self._socket or self._connect()
            try:
                connection.send(message, socket.MSG_DONTWAIT)
            except BlockingIOError:  # earlier messages are still unread, so the sender is awake
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
        if not answer:  # the sender died: another one continues where it stopped
            self.close()
            self._send(ASK)
        return answer

    def _follow_environment(self) -> None:
        """Drop the connection to a sender whose environment is not this process's any more."""
        if self._socket is not None and self._digest != delivery_digest():
            self.close()

    def _connect(self) -> socket.socket:
        if not self._folder.exists():
            raise DeliveryError(f"its run folder {self._folder.path} is gone.")
        self._starts += 1
        if self._starts > _STARTS:
            raise DeliveryError(f"the sender was lost {_STARTS} times")
        self._digest = delivery_digest()
        try:
            with above_standard_descriptors():
                self._socket = _connection(self._folder.path.parent, self._digest)
            self._socket.sendall(msgspec.json.encode(self._hello) + b"\n")
        except OSError as error:
            raise DeliveryError(f"no sender could be started ({error})") from error
        return self._socket


_links: weakref.WeakSet[SenderLink] = weakref.WeakSet()
_started: list[subprocess.Popen[bytes]] = []  # their exit status is never read


def _connection(spool: Path, digest: str) -> socket.socket:
    """Return a connection to the sender of an environment; start it if none listens.

    Raises:
        OSError: It can't be started.
    """
    address = SenderAddress(spool, digest)
    connection = address.connect()
    if connection is None:
        with locked(spool):
            connection = address.connect()  # another thread or process has started it meanwhile
            if connection is None:
                _start_sender(address, spool, digest)
                connection = address.connect()
    if connection is None:
        raise ConnectionRefusedError("it ended at once")
    return connection


def _start_sender(address: SenderAddress, spool: Path, digest: str) -> None:
    with address.listen(_BACKLOG) as listener:
        # It has its own session, so that signals to a terminal's processes do not end it.
        source = (
            f"import sys; sys.path[:] = {sender_search_path()!r}; "
            "from mlwrap._sender.server import run_sender; "
            f"run_sender({listener.fileno()}, {str(spool)!r}, {digest!r})"
        )
        try:
            sender = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-c", source],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=spool,  # not the training's, which may be removed
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        except OSError:
            address.remove()
            raise
    _started.append(sender)


def _close_in_child() -> None:
    """Close all links in a child made by ``fork``, so that the sender still notices when the parent dies."""
    for link in list(_links):
        link.close()


os.register_at_fork(after_in_child=_close_in_child)
