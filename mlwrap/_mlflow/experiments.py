"""Cache the ids of experiments for a minute, instead of requesting them for each run."""

from __future__ import annotations

import os
import time
from typing import TypeAlias

from mlwrap._mlflow.client import Client

_Key: TypeAlias = tuple[str, str | None, str | None, tuple[int, int] | None]
_CACHE_SECONDS = 60.0  # an experiment may be renamed, and another created under its name
_cache: dict[_Key, tuple[float, str]] = {}


def experiment_id(client: Client, name: str | None) -> str:
    """Return the id of the experiment called ``name``, creating it if missing; ``None``: the default one.

    Raises:
        Refused: The experiment is deleted.
    """
    key = _cache_key(client, name)
    until, cached_id = _cache.get(key, (0.0, ""))
    now = time.monotonic()
    if now >= until:
        until, cached_id = _cache[key] = now + _CACHE_SECONDS, client.experiment_id(name)
    return cached_id


def forget(client: Client, name: str | None) -> None:
    """Drop an experiment from the cache, because MLflow refused a run in it."""
    _cache.pop(_cache_key(client, name), None)


def _cache_key(client: Client, name: str | None) -> _Key:
    """Return an experiment's cache key.

    It includes MLflow's workspace, and the identity of an sqlite file, which may be replaced.
    """
    uri, workspace = client.tracking_uri, os.environ.get("MLFLOW_WORKSPACE")
    path = uri.removeprefix("sqlite:///")
    if path == uri:
        return uri, workspace, name, None
    try:
        file = os.stat(path)  # noqa: PTH116 - relative to the training's working directory, as in MLflow
    except OSError:
        return uri, workspace, name, (0, 0)
    return uri, workspace, name, (file.st_dev, file.st_ino)
