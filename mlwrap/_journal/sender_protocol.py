"""The messages between a run and the sender, on the socket that connects them.

The run starts with one line of JSON, a :class:`Handshake`. After that it sends single bytes: ``WAKE`` if the
journal has new records, ``ASK`` to request the status. The sender answers with :class:`SenderStatus` lines.

The command ``mlwrap sender`` sends the line ``STATUS`` or ``STOP`` instead, and gets one :class:`SenderInfo`.
"""

from __future__ import annotations

import msgspec

from mlwrap._journal.progress import Progress

WAKE, ASK = b".", b"?"
STATUS, STOP = b"status", b"stop"


class SenderStatus(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The sender's report on a run.

    Attributes:
        progress: How far delivery got.
        done: Whether this is the last report: everything is delivered, or the sender gave up.
        error: What blocks the delivery.
        away: Seconds for which MLflow has answered no request.
    """

    progress: Progress
    done: bool = False
    error: str | None = None
    away: float = 0.0


class Handshake(msgspec.Struct, kw_only=True):
    """A run's first message to the sender.

    Attributes:
        folder: The run's folder.
        tracking_uri: The destination, including the password if it has one.
        linger: Seconds for which the sender waits for another run after this one.
    """

    folder: str
    tracking_uri: str
    linger: float = 0.0


class SenderInfo(msgspec.Struct, kw_only=True):
    """The state of a sender.

    Attributes:
        pid: Its process id.
        seconds: Seconds since it was started.
        runs: Count of the runs that are connected to it, or that it still delivers.
    """

    pid: int
    seconds: float
    runs: int
