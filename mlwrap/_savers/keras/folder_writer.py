"""Write a Keras 3 model as a folder that delivery turns into a ``.keras`` file with almost no copying.

Keras builds its own zip file in memory, in twice the size of the model; a folder takes a fifth of the time.
Nearly all of that is one file of weights. It is written with space before it, so that delivery can build
the zip file in place: its header before the weights, and the other members after them.

This needs private functions of Keras. If they differ from those of Keras 3.15, or a model overrides how it is
saved, ``model.save`` writes the folder, and its files are copied into the zip file.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Zip
from mlwrap._savers.keras_checks.archive import WEIGHTS

_HEADER_SIZE = 512  # bytes; a header needs 66, and its padding at least 6
_CHUNK_SIZE = 1 << 20  # bytes; writing 20 MB at once took ten times as long if the page cache had to grow
_LIBRARY = "keras.src.saving.saving_lib"
_KINDS = ("Operation", "Layer", "Functional", "Sequential", "Metric", "Optimizer", "Loss")
_PARTS = ("H5IOStore", "DiskIOStore", "_serialize_model_as_json", "_save_state")


def can_write_folders(keras: Any) -> bool:
    """Return whether this Keras can write models as folders."""
    return "zipped" in inspect.signature(keras.saving.save_model).parameters


def write_folder(model: Any, folder: Path) -> Zip:
    """Write a model as a folder; return how delivery zips it, if ``folder`` is in the model's ``data``.

    Raises:
        OSError: It can't be written.
        Exception: An error of Keras, if Keras can't write the model.
    """
    path = f"{folder.parent.name}/{folder.name}"
    library: Any = import_module(_LIBRARY)
    with _with_skipped_attributes():
        if _has_private_parts(library) and _uses_keras_save(model):
            length = _write_model(model, folder, library)
            return Zip(folder=path, around=WEIGHTS, start=_HEADER_SIZE, length=length)
        model.save(str(folder), zipped=False)
        return Zip(folder=path)


@functools.cache
def left_out() -> dict[str, Any]:
    """Return the attributes that Keras skips when it saves, by the name of Keras's cache for each kind.

    Keras 3.15 stores them under another name, so each save creates an object of each kind to find the
    attributes that all of that kind have. For a small model that takes a third of the time.
    """
    read_skipped: Any = getattr(import_module(_LIBRARY), "get_attr_skipset", None)
    skipped = {}
    for kind in _KINDS if read_skipped is not None else ():
        with contextlib.suppress(ValueError):  # an older Keras lacks some kinds
            skipped[f"saving_attr_skiplist_{kind}"] = read_skipped(kind)
    return skipped


@contextlib.contextmanager
def _with_skipped_attributes() -> Iterator[None]:
    state: Any = import_module("keras.src.backend.common.global_state")
    previous = {name: state.get_global_attribute(name) for name in left_out()}
    try:
        for name, attributes in left_out().items():
            state.set_global_attribute(name, attributes)
        yield
    finally:
        for name, attributes in previous.items():
            state.set_global_attribute(name, attributes)


def _has_private_parts(library: Any) -> bool:
    return all(hasattr(library, name) for name in _PARTS) and hasattr(library.H5IOStore, "_get_h5_file")


def _uses_keras_save(model: Any) -> bool:
    save = getattr(model, "save", None)  # a layer has none
    return save is None or str(getattr(save, "__module__", "")).partition(".")[0] == "keras"


def _write_model(model: Any, folder: Path, library: Any) -> int:
    """Write what ``save_model`` writes with ``zipped=False``; return the length of the weights in bytes."""
    folder.mkdir()
    config, metadata = library._serialize_model_as_json(model)  # noqa: SLF001
    (folder / "config.json").write_text(config)
    (folder / "metadata.json").write_text(metadata)
    with _WeightsFile(folder / WEIGHTS) as file:
        try:
            _write_state(model, file, folder, library)
        except Exception:  # if the disk failed, its own error is raised below: HDF5's does not say why
            if file.trouble is None:
                raise
    if file.trouble is not None:
        raise file.trouble
    return (folder / WEIGHTS).stat().st_size - _HEADER_SIZE


def _write_state(model: Any, file: _WeightsFile, folder: Path, library: Any) -> None:
    weights = _weights_store(library, file)
    try:
        assets = library.DiskIOStore(str(folder / "assets"), mode="w")
        try:
            library._save_state(model, weights, assets, "", set())  # noqa: SLF001
        finally:
            assets.close()
    finally:
        weights.close()


def _weights_store(library: Any, file: _WeightsFile) -> Any:
    """Return Keras's store of weights, writing to this file."""
    h5py: Any = import_module("h5py")  # a dependency of Keras

    class Store(library.H5IOStore):  # type: ignore[misc]  # Keras is imported if there is a model
        def _get_h5_file(self, path_or_io: Any, mode: str | None = None) -> Any:  # noqa: ARG002
            return h5py.File(file, "w")

    return Store(WEIGHTS, mode="w")


class _WeightsFile(io.FileIO):
    """A new file with space for a zip header, which HDF5 does not see.

    An error of the disk is stored and not raised, because HDF5 can't close a file that it can't write to, and
    would try again when the process ends.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+", opener=lambda path, flags: os.open(path, flags, 0o600))
        super().truncate(_HEADER_SIZE)
        self.trouble: OSError | None = None

    def tell(self) -> int:
        return super().tell() - _HEADER_SIZE

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(offset + _HEADER_SIZE if whence == io.SEEK_SET else offset, whence) - _HEADER_SIZE

    def truncate(self, size: int | None = None) -> int:
        return super().truncate((self.tell() if size is None else size) + _HEADER_SIZE) - _HEADER_SIZE

    def write(self, data: Any) -> int:
        remaining = memoryview(data)
        try:
            while remaining and self.trouble is None:
                remaining = remaining[super().write(remaining[:_CHUNK_SIZE]) :]
        except OSError as error:
            self.trouble = error
        return len(data)
