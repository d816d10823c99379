"""What a saved Keras model is made of, by hash: for the tests of what is saved while the training goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import h5py

from mlwrap._savers.keras.snapshot import Snapshot


def hashes(folder: Path) -> dict[str, str]:
    """Of each array in a model's weights, and of its configuration."""
    found = {"config.json": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = hashlib.sha256(item[()].tobytes()).hexdigest()

    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(visit)
    return found


def saved(model: Any, folder: Path) -> dict[str, str]:
    """Save a model as Keras does it, or a snapshot of one, and give the hashes of what was written."""
    if isinstance(model, Snapshot):
        model.write_folder(folder)
    else:
        model.save(str(folder), zipped=False)
    return hashes(folder)
