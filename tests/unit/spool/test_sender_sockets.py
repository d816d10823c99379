"""The sockets of senders: for their owner alone, and swept when nobody listens any more."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

import pytest

from mlwrap._spool.sender_sockets import _listen_at, connect_socket, is_own_peer
from mlwrap._spool.spool import remove_leftovers
from tests.users import as_nobody, let_through, needs_root


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A folder for sockets."""
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def test_a_socket_is_its_owners_alone(spool: Path):
    """Whatever the umask."""
    address = spool / "sender-1-a.sock"
    before = os.umask(0)
    try:
        with _listen_at(address, 1):
            assert stat.S_IMODE(address.stat().st_mode) == 0o600
            connect_socket(address).close()
    finally:
        os.umask(before)
    assert list(spool.iterdir()) == [address]


def test_dead_sockets_are_swept_and_never_a_live_one(spool: Path):
    """Also one that so many wait for that no more can, and one that does not listen yet."""
    dead, live, full = (spool / f"sender-{name}.sock" for name in ("dead", "live", "full"))
    binding = spool / "binding-sender-1.sock"
    _listen_at(dead, 1).close()
    with _listen_at(live, 1), _listen_at(full, 0), socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(binding))
        waiting = []
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.append(connect_socket(full))
        remove_leftovers(spool)
        assert sorted(spool.iterdir()) == [binding, full, live]
        for connection in waiting:
            connection.close()
    os.utime(binding, (1, 1))
    remove_leftovers(spool)
    assert list(spool.iterdir()) == []


def test_a_file_that_is_no_socket_stays(spool: Path):
    """Whatever its name."""
    (spool / "sender-notes.sock").touch()
    remove_leftovers(spool)
    assert len(list(spool.iterdir())) == 1


@needs_root
def test_another_users_process_is_known(spool: Path):
    """At both ends, also where the socket's mode lets it through."""
    spool.chmod(0o777)
    let_through(spool)
    ours, theirs = spool / "ours", spool / "theirs"
    with _listen_at(ours, 1) as listener:
        assert not as_nobody(lambda: socket.socket(socket.AF_UNIX).connect(str(ours)))
        ours.chmod(0o666)
        listener.settimeout(60)
        told, tell = os.pipe()

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(ours))
                os.write(tell, b".")
                connection.recv(1)

        child = os.fork()
        if child == 0:
            os.setuid(65534)
            connect()
            os._exit(0)
        connection, _ = listener.accept()
        os.read(told, 1)
        assert not is_own_peer(connection)
        connection.close()
        os.waitpid(child, 0)
        mine = connect_socket(ours)
        connection, _ = listener.accept()
        assert is_own_peer(connection)
        connection.close()
        mine.close()

    child = os.fork()
    if child == 0:
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(theirs))
            listener.listen(1)
            theirs.chmod(0o666)
            os.write(tell, b".")
            listener.accept()
        os._exit(0)
    os.read(told, 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        connect_socket(theirs)
    os.waitpid(child, 0)
