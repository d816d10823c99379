"""Make, connect to and remove the senders' sockets, which are in the spool beside the run folders.

A sender's socket is named after the digest of what its runs have in common. Its name begins with
``starting-sender-`` until the sender has imported MLflow, and with ``sender-`` afterwards. Processes take
turns in making, renaming and removing one by a lock on the spool itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

_STARTING, _BINDING = "starting-", "binding-"  # prefixes of sockets' names
_BINDING_SECONDS = 60.0  # far longer than a new socket takes until it listens


@contextlib.contextmanager
def _short_path(address: Path) -> Iterator[str]:
    """Yield a path to a socket that is short enough for the kernel, which accepts about 100 characters."""
    if len(os.fsencode(address)) < 100 or not Path("/proc/self/fd").is_dir():  # noqa: PLR2004 - see above
        yield str(address)
        return
    folder = os.open(address.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{address.name}"
    finally:
        os.close(folder)


class SenderAddress:
    """The place of one sender's socket in a spool.

    Args:
        spool: The spool.
        digest: What the runs of this sender have in common.
    """

    def __init__(self, spool: Path, digest: str) -> None:
        self._spool = spool
        self._ready = spool / f"sender-{digest}.sock"
        self._starting = spool / f"{_STARTING}{self._ready.name}"

    @property
    def is_ready(self) -> bool:
        """Whether the sender has imported MLflow."""
        return self._ready.exists()

    def connect(self) -> socket.socket | None:
        """Connect to the sender; return ``None`` if there is none.

        Raises:
            OSError: The spool can't be read, or too many connections wait for the sender already.
        """
        for path in (self._ready, self._starting, self._ready):  # it may be renamed in between
            try:
                return connect_socket(path)
            except (FileNotFoundError, ConnectionRefusedError):
                continue
        return None

    def listen(self, backlog: int) -> socket.socket:
        """Listen as a sender that is starting; call it with the spool locked, and if no sender listens."""
        self._ready.unlink(missing_ok=True)
        return _listen_at(self._starting, backlog)

    def mark_ready(self) -> None:
        """Note that the sender has imported MLflow."""
        with contextlib.suppress(OSError), locked(self._spool):  # the spool was removed
            self._starting.rename(self._ready)

    def unlist(self) -> None:
        """Remove the socket, so that nobody connects to it any more."""
        with contextlib.suppress(OSError), locked(self._spool):  # the spool was removed
            self.remove()

    def remove(self) -> None:
        """Remove the socket; call it with the spool locked."""
        for path in (self._ready, self._starting):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(spool: Path) -> Iterator[None]:
    """Lock a spool against others who start or end a sender there; the lock leaves no file behind."""
    descriptor = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # the filesystem has no locks: then two may start at once
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def connect_socket(address: Path) -> socket.socket:
    """Connect to the process that listens at a socket, without blocking.

    Raises:
        OSError: No process listens at the socket, or too many connections wait for it already.
        PermissionError: The process belongs to another user.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _short_path(address) as path:
            connection.connect(path)
        if not is_own_peer(connection):
            raise PermissionError(f"the process that listens at {address} belongs to another user")
    except OSError:
        connection.close()
        raise
    return connection


def _listen_at(address: Path, backlog: int) -> socket.socket:
    """Listen at a socket for this user alone; the socket already listens when it appears at ``address``."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Bound under another name first: until it listens, it looks like the socket of a dead process.
    temporary = address.with_name(f"{_BINDING}{os.getpid()}-{address.name}")
    try:
        os.fchmod(listener.fileno(), 0o600)  # bind() uses this mode, whatever the umask
        with _short_path(temporary) as path:
            listener.bind(path)
        temporary.chmod(0o600)  # on macOS bind() ignores the mode
        listener.listen(backlog)
        temporary.rename(address)
    except OSError:
        listener.close()
        temporary.unlink(missing_ok=True)
        raise
    return listener


def is_own_peer(connection: socket.socket) -> bool:
    """Return whether the peer process is this user's; true if unknown: the socket's mode protects it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.getuid())


def sender_connections(root: Path) -> Iterator[socket.socket]:
    """Yield a connection to each sender that listens in a spool."""
    for address in sorted(root.glob("*sender-*.sock")):
        with contextlib.suppress(OSError):  # a dead one's, or another user's
            yield connect_socket(address)


def sweep_sockets(root: Path) -> None:
    """Remove sockets at which no process listens any more."""
    for address in root.glob("*sender-*.sock"):
        with contextlib.suppress(OSError):
            status = address.lstat()
            if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.getuid():
                continue
            if address.name.startswith(_BINDING):
                if time.time() - status.st_mtime > _BINDING_SECONDS:
                    address.unlink()
                continue
            try:
                connect_socket(address).close()
            except ConnectionRefusedError:
                address.unlink()
