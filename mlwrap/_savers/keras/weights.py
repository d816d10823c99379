"""Save and restore a Keras model's weights, for models that can't be written completely.

A model without a working ``get_config()`` can't be written as ``.keras``. Its weights can, and are restored
into a model that the same code builds (``load_model(uri, into=model)``)::

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

WEIGHTS_FILE = "data/model.weights.h5"
ADAPTER = ".lora.h5"  # the suffix that KerasHub's save_lora_weights() uses
_PACKAGES = ("keras", "tf_keras")


def has_weights(model: Any, keras: Any) -> bool:
    """Return whether there is anything to save.

    A model that Keras calls built may have no weights. A model that was fitted by its own ``train_step`` and
    never called is not built, though its parts are: a VAE, a GAN, a distiller.
    """
    weights: list[Any] = []
    with contextlib.suppress(ValueError):  # Keras 2 raises it for an unbuilt model
        weights = list(model.weights)
    # Unbuilt layers that create weights when built: the model's own build() built nothing.
    unbuilt = [
        layer
        for layer in model._flatten_layers(include_self=False)  # noqa: SLF001  # no public function exists
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
        Exception: Any error of Keras or the disk.
    """
    file = folder / WEIGHTS_FILE
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

    Keras refuses an unbuilt model before it looks at the parts; it refuses a part without weights later.
    """
    built, model.built = model.built, True
    try:
        yield
    finally:
        model.built = built


def _close(file: Path) -> None:
    """Close an HDF5 file that Keras left open, because Keras's error keeps it alive."""
    h5f: Any = import_module("h5py").h5f  # a dependency of Keras
    for file_id in h5f.get_obj_ids(h5f.OBJ_ALL, h5f.OBJ_FILE):
        if os.fsdecode(file_id.name) == str(file):
            import_module("h5py").File(file_id).close()


def restore_weights(into: Any, file: Path, needed: str) -> Any:
    """Load weights into ``into``, a model of the same layers, and return it.

    Args:
        into: The model that the caller passed.
        file: A ``.weights.h5`` or ``.keras`` file, or an older file of weights.
        needed: Why ``into`` is needed, for the error's first sentence.

    Raises:
        LoadError: ``into`` is missing or not a Keras model, the file was not written by Keras, or its
            weights do not fit.
    """
    if not has_class(into, "Model", packages=_PACKAGES):
        passed = "nothing" if into is None else f"a {class_name(into)}"
        raise LoadError(
            f"{needed}: expected into= with a Keras model built as at the time of saving, got {passed}."
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
