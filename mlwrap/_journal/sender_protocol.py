"""What a run and the sender say to each other, on the line between them.

The run begins with one line of JSON, a :class:`Handshake`. After that it sends single bytes: ``WAKE`` for
"there is more", ``ASK`` for "tell me how far you are". The sender answers with a :class:`SenderStatus` in each
line.
"""

from __future__ import annotations

import msgspec

from mlwrap._journal.progress import Progress

WAKE, ASK = b".", b"?"


class SenderStatus(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the sender says of a run.

    Attributes:
        progress: How far delivery got.
        done: No more is coming: all is delivered, or the sender gave up.
        error: What stands in the way.
        away: For how many seconds MLflow has not answered anybody.
    """

    progress: Progress
    done: bool = False
    error: str | None = None
    away: float = 0.0


class Handshake(msgspec.Struct, kw_only=True):
    """The first that a run says to the sender.

    Attributes:
        folder: The run's folder.
        tracking_uri: Where it is to be delivered, with a password if it has one.
    """

    folder: str
    tracking_uri: str
