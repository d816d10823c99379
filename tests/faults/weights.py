"""A model that needs no framework: as much of a file as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlwrap
from mlwrap._journal import Saved
from mlwrap.savers import _registry


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


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know the model for one test."""
    monkeypatch.setattr(_registry, "_savers", list(_registry._savers))
    mlwrap.register_saver(WeightsSaver())
