"""A Keras 3 model is written as a folder that delivery makes a ``.keras`` file of, writing next to nothing.

Keras's own zip file is built in memory, twice the size of the model, while a folder is written in a fifth of
the time. Nearly all of that is one file, of weights. They are written with room before them: so the zip file
can be made around them where they are, its header before and the other members behind.

What that takes is not Keras's public interface. Where it is not as it is in Keras 3.15, or a model has a way
of its own to be saved, the folder is written by ``model.save``, and its files are copied into the zip file.
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

_HEADER_SIZE = 512  # bytes; a header takes 66, and its padding 6 at least
_CHUNK_SIZE = 1 << 20  # bytes; a write of 20 MB took ten times as long where the page cache had to grow
_LIBRARY = "keras.src.saving.saving_lib"
_KINDS = ("Operation", "Layer", "Functional", "Sequential", "Metric", "Optimizer", "Loss")
_PARTS = ("H5IOStore", "DiskIOStore", "_serialize_model_as_json", "_save_state")


def can_write_folders(keras: Any) -> bool:
    """Whether this Keras writes models as folders at all."""
    return "zipped" in inspect.signature(keras.saving.save_model).parameters


def write_folder(model: Any, folder: Path) -> Zip:
    """Write a model; what delivery is to make of it, where ``folder`` is in the model's ``data``.

    Raises:
        OSError: It can't be written.
        Exception: Keras's, where it can't write the model.
    """
    path = f"{folder.parent.name}/{folder.name}"
    library: Any = import_module(_LIBRARY)
    with _telling_what_is_left_out():
        if _is_known(library) and _saves_as_keras_does(model):
            length = _write_model(model, folder, library)
            return Zip(folder=path, around=WEIGHTS, start=_HEADER_SIZE, length=length)
        model.save(str(folder), zipped=False)
        return Zip(folder=path)


@functools.cache
def left_out() -> dict[str, Any]:
    """Which attributes Keras leaves out when it saves, by the name under which it looks for each kind's.

    It keeps them under another name (3.15), so in each save it makes an object of each kind anew, to see what
    attributes all of that kind have: for a small model that takes a third of the time.
    """
    asked: Any = getattr(import_module(_LIBRARY), "get_attr_skipset", None)
    found = {}
    for kind in _KINDS if asked is not None else ():
        with contextlib.suppress(ValueError):  # an older Keras does not know all kinds
            found[f"saving_attr_skiplist_{kind}"] = asked(kind)
    return found


@contextlib.contextmanager
def _telling_what_is_left_out() -> Iterator[None]:
    state: Any = import_module("keras.src.backend.common.global_state")
    before = {name: state.get_global_attribute(name) for name in left_out()}
    try:
        for name, attributes in left_out().items():
            state.set_global_attribute(name, attributes)
        yield
    finally:
        for name, attributes in before.items():
            state.set_global_attribute(name, attributes)


def _is_known(library: Any) -> bool:
    return all(hasattr(library, name) for name in _PARTS) and hasattr(library.H5IOStore, "_get_h5_file")


def _saves_as_keras_does(model: Any) -> bool:
    save = getattr(model, "save", None)  # of a layer there is none
    return save is None or str(getattr(save, "__module__", "")).partition(".")[0] == "keras"


def _write_model(model: Any, folder: Path, library: Any) -> int:
    """What ``save_model`` does with ``zipped=False``; how long the weights are."""
    folder.mkdir()
    config, metadata = library._serialize_model_as_json(model)  # noqa: SLF001
    (folder / "config.json").write_text(config)
    (folder / "metadata.json").write_text(metadata)
    with _Behind(folder / WEIGHTS) as file:
        try:
            _write_state(model, file, folder, library)
        except Exception:  # HDF5's words for what the disk did are of no use: the disk's own are raised below
            if file.trouble is None:
                raise
    if file.trouble is not None:
        raise file.trouble
    return (folder / WEIGHTS).stat().st_size - _HEADER_SIZE


def _write_state(model: Any, file: _Behind, folder: Path, library: Any) -> None:
    weights = _weights_store(library, file)
    try:
        assets = library.DiskIOStore(str(folder / "assets"), mode="w")
        try:
            library._save_state(model, weights, assets, "", set())  # noqa: SLF001
        finally:
            assets.close()
    finally:
        weights.close()


def _weights_store(library: Any, file: _Behind) -> Any:
    """Keras's store of weights, in this file."""
    h5py: Any = import_module("h5py")  # which Keras brings

    class Store(library.H5IOStore):  # type: ignore[misc]  # Keras is imported by whoever has a model
        def _get_h5_file(self, path_or_io: Any, mode: str | None = None) -> Any:  # noqa: ARG002
            return h5py.File(file, "w")

    return Store(WEIGHTS, mode="w")


class _Behind(io.FileIO):
    """A new file that HDF5 sees from behind the room on.

    What goes wrong with the disk is remembered and not raised: HDF5 can't close a file that it can't write
    to, and would try again when the process ends.
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
        left = memoryview(data)
        try:
            while left and self.trouble is None:
                left = left[super().write(left[:_CHUNK_SIZE]) :]
        except OSError as error:
            self.trouble = error
        return len(data)
