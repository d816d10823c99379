"""Which id does an experiment have? MLflow is asked for it once a minute, and not for each run."""

from __future__ import annotations

import os
import time
from typing import TypeAlias

from mlwrap._mlflow.client import Client

_Key: TypeAlias = tuple[str, str | None, tuple[int, int] | None]
_KNOWN_SECONDS = 60.0  # somebody may rename it, and make another one of that name
_known: dict[_Key, tuple[float, str]] = {}


def experiment_id(client: Client, name: str | None) -> str:
    """The id of the experiment called ``name``, made if there is none; ``None``: the default one.

    Raises:
        Refused: It is deleted.
    """
    key = _cache_key(client, name)
    until, known = _known.get(key, (0.0, ""))
    now = time.monotonic()
    if now >= until:
        until, known = _known[key] = now + _KNOWN_SECONDS, client.experiment_id(name)
    return known


def forget(client: Client, name: str | None) -> None:
    """MLflow would not have a run there: it is asked again."""
    _known.pop(_cache_key(client, name), None)


def _cache_key(client: Client, name: str | None) -> _Key:
    """What an experiment is known by; to an sqlite store its file belongs, for it may be another by now."""
    uri = client.tracking_uri
    path = uri.removeprefix("sqlite:///")
    if path == uri:
        return uri, name, None
    try:
        file = os.stat(path)  # noqa: PTH116 - relative to where the training stood, as MLflow takes it
    except OSError:
        return uri, name, (0, 0)
    return uri, name, (file.st_dev, file.st_ino)
