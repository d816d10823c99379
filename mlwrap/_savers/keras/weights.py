"""The weights of a Keras model: whether there are any, and a file of them where the model can't be written.

A model without a working ``get_config()`` can't be written as ``.keras``. Its weights can, and come back into
a model that the same code builds (``load_model(uri, into=model)``)::

    data/model.weights.h5
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mlwrap._savers.history.fits import is_history
from mlwrap._savers.identify import class_name, has_class
from mlwrap._savers.keras_checks.archive import check_archive, check_hdf5
from mlwrap.errors import LoadError

FILE = "data/model.weights.h5"
ADAPTER = ".lora.h5"  # what save_lora_weights() of KerasHub writes
_PACKAGES = ("keras", "tf_keras")


def has_weights(model: Any, keras: Any) -> bool:
    """Tell whether there is anything to save.

    A model that Keras calls built may have no weights. And one that was fitted by a ``train_step`` of its own
    and never called is not built, though its parts are: a VAE, a GAN, a distiller.
    """
    weights: list[Any] = []
    with contextlib.suppress(ValueError):  # Keras 2 raises it for a model that was not built
        weights = list(model.weights)
    # Layers that make weights when they are built, and were not: of a model whose build() built nothing.
    unbuilt = [
        layer
        for layer in model._flatten_layers(include_self=False)  # noqa: SLF001  # there is no public way
        if not layer.built and type(layer).build is not keras.layers.Layer.build
    ]
    if model.built:
        return bool(weights) or not unbuilt
    return bool(weights) and (not unbuilt or is_history(getattr(model, "history", None)))


def write_weights(model: Any, folder: Path) -> None:
    """Write the weights of a model.

    Args:
        model: A Keras model.
        folder: The folder of the logged model.

    Raises:
        Exception: Whatever Keras or the disk raises.
    """
    file = folder / FILE
    file.parent.mkdir(exist_ok=True)
    try:
        with _as_built(model):
            model.save_weights(str(file))
    except BaseException:
        _close(file)
        raise


@contextlib.contextmanager
def _as_built(model: Any) -> Iterator[None]:
    """Let Keras 3 read and write weights of a model that was never called itself, though its parts were.

    It refuses one that is not built before it looks; a part that really has no weights yet it refuses later.
    """
    built, model.built = model.built, True
    try:
        yield
    finally:
        model.built = built


def _close(file: Path) -> None:
    """Close an HDF5 file that Keras has left open, for its error keeps it alive."""
    h5f: Any = import_module("h5py").h5f  # which Keras brings
    for opened in h5f.get_obj_ids(h5f.OBJ_ALL, h5f.OBJ_FILE):
        if os.fsdecode(opened.name) == str(file):
            import_module("h5py").File(opened).close()


def restore_weights(into: Any, file: Path, needed: str) -> Any:
    """Load weights into ``into``, a model of the same layers, and give it back.

    Args:
        into: What the caller gave.
        file: A ``.weights.h5`` or ``.keras`` file, or an older file of weights.
        needed: Why ``into`` is needed, for the error's first sentence.

    Raises:
        LoadError: ``into`` is missing or no Keras model, the file is not one that Keras writes, or its
            weights do not fit.
    """
    if not has_class(into, "Model", packages=_PACKAGES):
        came = "nothing" if into is None else f"a {class_name(into)}"
        raise LoadError(
            f"{needed}: expected into= with a Keras model built as at the time of saving, got {came}."
        )
    if file.suffix == ".keras":
        check_archive(file)
    else:
        check_hdf5(file, "The file of weights")
    load = into.load_weights
    if file.name.endswith(ADAPTER):
        load = getattr(into, "load_lora_weights", None)
        if load is None:
            raise LoadError(
                f"{needed}: of an adapter, and {class_name(into)} has no load_lora_weights(). Give into= the "
                "backbone of KerasHub that it was saved of, with enable_lora() called as then."
            )
    try:
        with _as_built(into):
            load(str(file))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise LoadError(
            "The weights do not fit into the model given as into=. Build it as at the time of saving: "
            "a subclassed model also has to be called on data, or fitted, before. "
            f"Keras says: {error}"
        ) from error
    return into
