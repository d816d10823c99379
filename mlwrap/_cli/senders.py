"""``mlwrap sender``: ask the senders of a spool for their state, or to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mlwrap._journal.sender_protocol import SenderInfo
from mlwrap._spool.sender_sockets import sender_connections

_SECONDS = 5.0


def ask_senders(spool: Path, question: bytes) -> Iterator[SenderInfo | None]:
    """Send a question to each sender of a spool.

    Args:
        spool: The spool.
        question: ``STATUS`` or ``STOP``.

    Yields:
        The answer of each; ``None`` for one that does not answer within five seconds.
    """
    for connection in sender_connections(spool):
        with connection:
            connection.settimeout(_SECONDS)
            answer = b""
            with contextlib.suppress(OSError):
                connection.sendall(question + b"\n")
                while not answer.endswith(b"\n") and (received := connection.recv(4096)):
                    answer += received
            yield msgspec.json.decode(answer, type=SenderInfo) if answer.endswith(b"\n") else None
