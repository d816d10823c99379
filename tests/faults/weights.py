"""A model that needs no framework: as much of a file as one likes."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest

import mlwrap
from mlwrap._journal.records import Saved
from mlwrap._savers import saver_registry


class Weights:
    """A model: so many bytes."""

    def __init__(self, size: int = 1000) -> None:
        self.size = size


class WeightsSaver:
    """Writes a model in two files, so that a disk can fill between them."""

    name, format, default_name, frameworks = "weights", 1, "weights", ("sys",)

    def matches(self, value: object) -> bool:
        return isinstance(value, Weights)

    def metrics(self, value: Weights) -> tuple[()]:
        return ()

    def save(self, value: Weights, folder: Path, options: object) -> Saved:
        (folder / "config.json").write_text("{}")
        (folder / "data").mkdir()
        (folder / "data/weights").write_bytes(b"w" * value.size)
        return Saved(flavors={"weights": {"data": "data"}})

    def load(self, folder: Path, details: object, *, into: object = None, trust: bool = False) -> Weights:
        return Weights((folder / "data/weights").stat().st_size)


class Held(Weights):
    """A model that is saved in the background; one of less than no bytes can't be."""


class HeldSaver(WeightsSaver):
    """Saves in the background, each time when it is let.

    Attributes:
        began: The sizes of the models that it has begun to save.
        go: What lets it save one.
    """

    name = default_name = "held"

    def __init__(self) -> None:
        self.began: queue.Queue[int] = queue.Queue()
        self.go = threading.Semaphore(0)

    def matches(self, value: object) -> bool:
        return isinstance(value, Held)

    def snapshot(self, value: Held) -> Weights:
        return Weights(value.size)

    def save(self, value: Weights, folder: Path, options: object) -> Saved:
        self.began.put(value.size)
        assert self.go.acquire(timeout=60)
        if value.size < 0:
            raise OSError("no room for it")
        return super().save(value, folder, options)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know the model for one test."""
    monkeypatch.setattr(saver_registry, "_savers", list(saver_registry._savers))
    mlwrap.register_saver(WeightsSaver())
