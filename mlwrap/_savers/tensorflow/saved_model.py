"""Save SavedModels: ``tf.Module``, ``tf.function``, ``ExportArchive``, and loaded SavedModels.

MLflow's loader can call a SavedModel in two ways, and the ``MLmodel`` must name one that the model supports:
``tf2-module`` calls the object with one tensor, ``tf1-estimator`` feeds a named signature from a
dictionary or a DataFrame (``_load_pyfunc`` in ``mlflow/tensorflow/__init__.py``). The first returns several
outputs as tensors, which MLflow's server can't write, and the second drops the last axis of one column.
In these cases the generic flavor names a loader that is copied into the model
(:mod:`mlwrap._shipped.loader`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved, Signature
from mlwrap._savers.identify import class_name, has_class, imported
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap._savers.tensorflow.functions import holder, is_function, serving
from mlwrap._savers.tensorflow.saved_model_proto import Contents, check_saved_model, read_saved_model
from mlwrap._shipped.loader import ship_loader
from mlwrap.errors import LoadError, SaveError, describe_error, warn

_MODEL_FOLDER = "tf2model"  # MLflow's own name for it
_LOADED = ("AutoTrackable", "_UserObject")  # results of tf.saved_model.load, for TF 1 and TF 2
_KERAS = ("keras", "tf_keras")
_KERAS_PARTS = ("Layer", "Optimizer", "Metric", "KerasAutoTrackable")
_ARCHIVES = ("ExportArchive", "SavedModelExportArchive")


class SavedModelSaver:
    """Saves any object that ``tf.saved_model.save`` accepts, and checks whether it can be called."""

    name = "saved_model"
    format = 1
    default_name = "saved_model"
    collective = True
    frameworks = ("tensorflow",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is a user's module, function or trackable, or a loaded SavedModel.

        Keras layers and optimizers, and TensorFlow's own helpers (random generators), are trackable too,
        but are not returned as the model.
        """
        if _is_archive(value) or is_function(value):
            return True
        if has_class(value, *_KERAS_PARTS, packages=_KERAS):
            return False
        if has_class(value, "Module", packages=("tensorflow.python.module",)):
            return True
        is_supported = not type(value).__module__.startswith("tensorflow.") or type(value).__name__ in _LOADED
        return is_supported and has_class(value, "AutoTrackable", packages=("tensorflow.python",))

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Write ``value`` as a SavedModel; warn about what it won't be able to do.

        Raises:
            SaveError: It is a function without a graph, or uses an object that it does not hold.
        """
        target = folder / _MODEL_FOLDER
        try:
            _write_saved_model(value, target)
        except (AssertionError, KeyError) as error:  # TensorFlow's errors for an "untracked" object
            raise SaveError(
                f"A function of the {class_name(value)} uses a variable, table or model that does not hang "
                "on it (or is gone), and only what does is saved. Assign that to an attribute (self.table = "
                "table); instead of a function alone return a tf.Module. TensorFlow says: "
                f"{describe_error(error)}",
                value,
            ) from error
        contents = read_saved_model(target)
        warn_of_obstacles(contents, class_name(value))
        return saved_from_contents(contents, folder, _MODEL_FOLDER)

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """Return none: a SavedModel has no record of its training."""
        return ()

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Return the result of ``tf.saved_model.load``: the tf.functions and variables, not the class.

        Raises:
            LoadError: TensorFlow is not installed, or can't read it; or, without ``trust``, it would do more
                than compute.
        """
        try:
            import tensorflow as tf  # noqa: PLC0415  # heavy: only when something is loaded
        except ImportError as error:
            raise LoadError(
                "This is a SavedModel, and TensorFlow is not installed. Install it: pip install tensorflow"
            ) from error
        target = folder / _MODEL_FOLDER
        check_saved_model(target, trust=trust)
        try:
            return tf.saved_model.load(str(target))
        except Exception as error:
            raise LoadError(f"The SavedModel {target} can't be read. {describe_error(error)}") from error


def _is_archive(value: object) -> bool:
    return has_class(value, *_ARCHIVES, packages=_KERAS)


def _write_saved_model(value: Any, target: Path) -> None:
    tf: Any = imported("tensorflow")
    if _is_archive(value):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its endpoints
            value.write_out(str(target))
        return
    model = holder(value, tf) if is_function(value) else value
    # A loaded SavedModel must keep its signatures; TensorFlow saves them only on request.
    signatures = getattr(model, "signatures", None)
    signatures_to_save = dict(signatures) if isinstance(signatures, Mapping) else {}
    if not signatures_to_save and (function := serving(model, tf)) is not None:
        signatures_to_save = {"serving_default": function}
    tf.saved_model.save(model, str(target), signatures=signatures_to_save or None)


def warn_of_obstacles(contents: Contents, what: str) -> None:
    """Warn, when a SavedModel is saved, about what it won't be able to do.

    Args:
        contents: The contents of the SavedModel.
        what: The class that it was made from, for the message.
    """
    obstacles = []
    if contents.python:
        obstacles.append(
            f"{', '.join(contents.python)} in it runs Python code of this process (tf.py_function or "
            "tf.numpy_function), which no other process has, so that calling it fails there, and "
            "it is loaded only with trust=True. Write it in TensorFlow's own operations, or do it before the "
            "data goes in."
        )
    if unsafe := [operation for operation in contents.unsafe if not operation.endswith("runs Python code")]:
        obstacles.append(
            f"{'; '.join(unsafe)}. What does more than compute is loaded only with trust=True. Do that in "
            "Python, before or after the model."
        )
    if contents.untraced:
        obstacles.append(
            f"without {', '.join(contents.untraced)}, which was never called and so has no graph. Call it "
            "once before, or decorate with @tf.function(input_signature=[tf.TensorSpec(...)])."
        )
    if not contents.calls and contents.default_signature is None:
        hint = f" What it has is {', '.join(contents.functions)}." if contents.functions else ""
        obstacles.append(
            "nothing in the SavedModel can be called with data, so MLflow can load it and not predict. Put "
            "@tf.function(input_signature=[tf.TensorSpec(...)]) on its __call__, or on a method predict or "
            f"serve.{hint}"
        )
    if obstacles:
        warn(f"The {what} is saved, but {' And '.join(obstacles)}")


def saved_from_contents(contents: Contents, folder: Path, saved_model: str) -> Saved:
    """Return the description of a SavedModel for loaders; copy mlwrap's loader into the model if needed.

    Args:
        contents: The contents of the SavedModel.
        folder: The folder of the logged model.
        saved_model: The SavedModel's path in that folder.
    """
    flavor: dict[str, Any] = {"model_type": "tf2-module", "saved_model_dir": saved_model}
    pyfunc: dict[str, Any] | None = None
    signature: Signature | None = None
    key = contents.default_signature
    if contents.calls and (contents.gives_tensor or key is None):
        pyfunc, signature = {"loader_module": "mlflow.tensorflow"}, contents.call
    elif key is not None:
        pyfunc, signature = ship_loader(folder, saved_model, key), contents.signatures[key]
        if not contents.calls:
            serving_config = {
                "model_type": "tf1-estimator",
                "meta_graph_tags": ["serve"],
                "signature_def_key": key,
            }
            flavor |= serving_config
        elif signature is not None and contents.call is not None:  # a single input needs no name
            signature = Signature(inputs=contents.call.inputs, outputs=signature.outputs)
    return Saved(flavors={"tensorflow": flavor}, pyfunc=pyfunc, signature=signature, packages=("tensorflow",))
