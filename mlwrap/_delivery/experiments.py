"""Which id does an experiment have? A server is asked for it once a minute, and not for each run."""

from __future__ import annotations

import time

from mlwrap._delivery.client import Client

_KNOWN_SECONDS = 60.0  # somebody may rename it, and make another one of that name
_known: dict[tuple[str, str | None], tuple[float, str]] = {}


def experiment_id(client: Client, name: str | None) -> str:
    """The id of the experiment called ``name``, made if there is none; ``None``: the default one.

    Raises:
        Refused: It is deleted.
    """
    uri = client.tracking_uri
    if not uri.startswith(
        ("http:", "https:")
    ):  # a file, which is read in no time, and may be another one by now
        return client.experiment_id(name)
    until, known = _known.get((uri, name), (0.0, ""))
    now = time.monotonic()
    if now >= until:
        until, known = _known[uri, name] = now + _KNOWN_SECONDS, client.experiment_id(name)
    return known


def forget(client: Client, name: str | None) -> None:
    """The server would not have a run there: it is asked again."""
    _known.pop((client.tracking_uri, name), None)
