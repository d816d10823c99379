"""SavedModels: ``tf.Module``, what ``tf.saved_model.load`` gave back, and trackables with tf.functions.

MLflow's loader has two ways into one, and the way in the ``MLmodel`` must fit what the model offers:
``tf2-module`` calls the object with one tensor, ``tf1-estimator`` feeds a named signature from a
dictionary or a DataFrame (``_load_pyfunc`` in ``mlflow/tensorflow/__init__.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal import Metrics, Saved
from mlwrap.errors import LoadError, warn
from mlwrap.savers._kind import class_name, has_class, imported
from mlwrap.savers._saved_model_file import Contents, read
from mlwrap.savers._saver import SaveOptions

_FOLDER = "tf2model"  # MLflow's own name for it
_LOADED = ("AutoTrackable", "_UserObject")  # what tf.saved_model.load returns, of TF 1 and of TF 2
_KERAS_PARTS = ("Layer", "Optimizer", "Metric", "KerasAutoTrackable")


class SavedModelSaver:
    """Saves what ``tf.saved_model.save`` takes, and finds out whether it can be called afterwards."""

    name = "saved_model"
    format = 1
    default_name = "saved_model"
    frameworks = ("tensorflow",)

    def matches(self, value: object) -> bool:
        """Tell whether ``value`` is a module or trackable of the user's, or a loaded SavedModel.

        A Keras layer or optimizer, or TensorFlow's own helpers (random generators), are trackable too,
        but nobody returns them as the model.
        """
        if has_class(value, *_KERAS_PARTS, packages=("keras", "tf_keras")):
            return False
        if has_class(value, "Module", packages=("tensorflow.python.module",)):
            return True
        own = not type(value).__module__.startswith("tensorflow.") or type(value).__name__ in _LOADED
        return own and has_class(value, "AutoTrackable", packages=("tensorflow.python",))

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Write ``value`` as a SavedModel; warns if nothing in it can be called."""
        tf: Any = imported("tensorflow")
        target = folder / _FOLDER
        # What a loaded SavedModel can do it must be able to do again; TensorFlow keeps that on request.
        signatures = getattr(value, "signatures", None)
        kept = dict(signatures) if isinstance(signatures, Mapping) and signatures else None
        tf.saved_model.save(value, str(target), signatures=kept)
        contents = read(target)
        if not contents.calls and contents.default_signature is None:
            warn(
                f"The {class_name(value)} is saved, but nothing in the SavedModel can be called with data, "
                "so MLflow can load it and not predict. Put "
                "@tf.function(input_signature=[tf.TensorSpec(...)]) on its __call__.",
            )
        return describe(contents, _FOLDER)

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """None: a SavedModel remembers nothing of its training."""
        return ()

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Give back what ``tf.saved_model.load`` makes of it: the tf.functions and variables, not the class.

        Raises:
            LoadError: TensorFlow is not installed, or can't read it.
        """
        try:
            import tensorflow as tf  # noqa: PLC0415  # heavy: only when something is loaded
        except ImportError as error:
            raise LoadError(
                "This is a SavedModel, and TensorFlow is not installed. Install it: pip install tensorflow"
            ) from error
        try:
            return tf.saved_model.load(str(folder / _FOLDER))
        except OSError as error:
            raise LoadError(f"This SavedModel can't be read: {error}") from error


def describe(contents: Contents, folder: str) -> Saved:
    """What stock loaders are told of a SavedModel that lies in ``folder``."""
    module: dict[str, Any] = {"model_type": "tf2-module", "saved_model_dir": folder}
    loader, packages = {"loader_module": "mlflow.tensorflow"}, ("tensorflow",)
    if contents.calls:
        return Saved(
            flavors={"tensorflow": module}, pyfunc=loader, signature=contents.call, packages=packages
        )
    if key := contents.default_signature:
        served = {
            "model_type": "tf1-estimator",
            "saved_model_dir": folder,
            "meta_graph_tags": ["serve"],
            "signature_def_key": key,
        }
        signature = contents.signatures[key]
        return Saved(flavors={"tensorflow": served}, pyfunc=loader, signature=signature, packages=packages)
    return Saved(flavors={"tensorflow": module}, packages=packages)
