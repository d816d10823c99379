"""The messages between a run and the sender, on the socket that connects them.

The run starts with one line of JSON, a :class:`Handshake`. After that it sends single bytes: ``WAKE`` if the
journal has new records, ``ASK`` to request the status. The sender answers with :class:`SenderStatus` lines.
"""

from __future__ import annotations

import msgspec

from mlwrap._journal.progress import Progress

WAKE, ASK = b".", b"?"


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
    """

    folder: str
    tracking_uri: str
