"""Make, connect to and remove the senders' sockets, which are in the spool beside the run folders."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

_STARTING_SECONDS = 60.0  # far longer than a new socket takes until it listens


@contextlib.contextmanager
def short_path(address: Path) -> Iterator[str]:
    """Yield a path to a socket that is short enough for the kernel, which accepts about 100 characters."""
    if len(os.fsencode(address)) < 100 or not Path("/proc/self/fd").is_dir():  # noqa: PLR2004 - see above
        yield str(address)
        return
    folder = os.open(address.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{address.name}"
    finally:
        os.close(folder)


def connect_socket(address: Path) -> socket.socket:
    """Connect to the process that listens at a socket, without blocking.

    Raises:
        OSError: No process listens at the socket, or too many connections wait for it already.
        PermissionError: The process belongs to another user.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with short_path(address) as path:
            connection.connect(path)
        if not is_own_peer(connection):
            raise PermissionError(f"the process that listens at {address} belongs to another user")
    except OSError:
        connection.close()
        raise
    return connection


def listen_at(address: Path, backlog: int) -> socket.socket:
    """Listen at a socket for this user alone; the socket already listens when it appears at ``address``."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Bound under another name first: until it listens, it looks like the socket of a dead process.
    temporary = address.with_name(f"starting-{address.name}")
    try:
        os.fchmod(listener.fileno(), 0o600)  # bind() uses this mode, whatever the umask
        with short_path(temporary) as path:
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


def sweep_sockets(root: Path) -> None:
    """Remove sockets at which no process listens any more."""
    for address in root.glob("*sender-*.sock"):
        with contextlib.suppress(OSError):
            status = address.lstat()
            if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.getuid():
                continue
            if address.name.startswith("starting-"):
                if time.time() - status.st_mtime > _STARTING_SECONDS:
                    address.unlink()
                continue
            try:
                connect_socket(address).close()
            except ConnectionRefusedError:
                address.unlink()
