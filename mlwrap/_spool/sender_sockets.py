"""The sockets of senders, which lie in the spool beside the run folders."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

_STARTING_SECONDS = 60.0  # far longer than from the making of a socket to its listening


@contextlib.contextmanager
def short_path(address: Path) -> Iterator[str]:
    """A path to a socket that is short enough for the kernel, which takes about a hundred characters."""
    if len(os.fsencode(address)) < 100 or not Path("/proc/self/fd").is_dir():  # noqa: PLR2004 - see above
        yield str(address)
        return
    folder = os.open(address.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{address.name}"
    finally:
        os.close(folder)


def connect_socket(address: Path) -> socket.socket:
    """A connection to the process that listens at a socket; it never waits.

    Raises:
        OSError: No process listens there, or too many wait for it already.
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
    """Listen at a socket for this user alone. Whoever finds it there finds it listening."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Bound under another name at first: for a moment it can't be told from the socket of a dead process.
    first = address.with_name(f"starting-{address.name}")
    try:
        os.fchmod(listener.fileno(), 0o600)  # which bind() takes over, whatever the umask
        with short_path(first) as path:
            listener.bind(path)
        first.chmod(0o600)  # where bind() does not, as on macOS
        listener.listen(backlog)
        first.rename(address)
    except OSError:
        listener.close()
        first.unlink(missing_ok=True)
        raise
    return listener


def is_own_peer(connection: socket.socket) -> bool:
    """Whether the process at the other end is this user's; where that can't be told, the mode has to do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(uid == os.getuid())


def sweep_sockets(root: Path) -> None:
    """Remove the sockets at which no process listens any more."""
    for address in root.glob("*sender-*.sock"):
        with contextlib.suppress(OSError):
            found = address.lstat()
            if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
                continue
            if address.name.startswith("starting-"):
                if time.time() - found.st_mtime > _STARTING_SECONDS:
                    address.unlink()
                continue
            try:
                connect_socket(address).close()
            except ConnectionRefusedError:
                address.unlink()
