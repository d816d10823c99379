"""Estimators: the latest checkpoint, and with a serving function a SavedModel that can predict.

Layout::

    checkpoint/checkpoint        names the one below, relative, so that the folder can move
    checkpoint/model.ckpt-N.*    all files of the latest checkpoint
    checkpoint/graph.pbtxt       the training graph, if the Estimator wrote it
    tfmodel/                     the exported SavedModel, if a serving function was given
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlwrap._journal import Metrics, Saved
from mlwrap.errors import SaveError, warn
from mlwrap.savers._checkpoint_files import copy_checkpoint, require_checkpoint
from mlwrap.savers._events import event_metrics
from mlwrap.savers._kind import class_name, has_class, imported
from mlwrap.savers._saved_model import describe
from mlwrap.savers._saved_model_file import read
from mlwrap.savers._saver import SaveOptions

_FOLDER = "checkpoint"
_EXPORT = "tfmodel"  # what MLflow called it when it still saved Estimators


class EstimatorSaver:
    """Saves ``tf.estimator.Estimator``: canned, with a model function, or from ``model_to_estimator``."""

    name = "estimator"
    format = 1
    default_name = "estimator_checkpoint"
    frameworks = ("tensorflow_estimator",)

    def matches(self, value: object) -> bool:
        """Tell whether ``value`` is an Estimator."""
        return has_class(value, "Estimator", packages=("tensorflow_estimator",))

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:
        """Copy the latest checkpoint, and export a SavedModel of it if there is a serving function.

        An export that fails is a warning: the checkpoint, which is the training's result, is kept.

        Raises:
            SaveError: It was not trained, or the checkpoint is not whole.
        """
        prefix = value.latest_checkpoint()
        if not prefix:
            raise SaveError(
                f"The Estimator in {value.model_dir} has no checkpoint, so there is nothing to save. "
                "Call train() before it is returned.",
                value,
            )
        name = copy_checkpoint(prefix, folder / _FOLDER, value)
        _copy_graph(str(value.model_dir), folder / _FOLDER)
        saved = Saved(packages=("tensorflow",))
        if options.serving_input_receiver_fn is not None:
            saved = _export(value, folder, prefix, options) or saved
        return msgspec.structs.replace(saved, details={"checkpoint": f"{_FOLDER}/{name}"})

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Scalars that training and evaluations wrote into the event files of ``model_dir``."""
        return event_metrics(str(value.model_dir))

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Give back the folder that holds the checkpoint.

        The folder and not the prefix of the file names, because everything takes it:
        ``tf.train.latest_checkpoint(path)``, ``tf.train.load_variable(path, name)``, an Estimator's
        ``model_dir=path``, and ``warm_start_from=str(path)``, which wants text. The Estimator itself can't
        come back: its model function is code.

        Raises:
            LoadError: The checkpoint is not in it.
        """
        require_checkpoint(folder, str(details["checkpoint"]))
        return folder / _FOLDER


def _copy_graph(model_dir: str, target: Path) -> None:
    files: Any = imported("tensorflow").io.gfile
    graph = f"{model_dir}/graph.pbtxt"
    if files.exists(graph):
        files.copy(graph, str(target / "graph.pbtxt"))


def _export(value: Any, folder: Path, prefix: str, options: SaveOptions) -> Saved | None:
    """Export into a fixed place what TensorFlow writes into a folder named by the time of day."""
    exports = folder / f"{_EXPORT}.export"
    try:
        made = value.export_saved_model(
            str(exports), options.serving_input_receiver_fn, checkpoint_path=prefix
        )
        Path(made.decode() if isinstance(made, bytes) else made).rename(folder / _EXPORT)
        return describe(read(folder / _EXPORT), _EXPORT)
    except Exception as error:  # noqa: BLE001  # the serving function is the user's: anything may come out of it
        shutil.rmtree(folder / _EXPORT, ignore_errors=True)
        warn(
            f"The checkpoint of the {class_name(value)} is saved, but its SavedModel could not be exported "
            f"with the serving_input_receiver_fn given: {type(error).__name__}: {error}. Expected "
            "a function of no arguments that returns a ServingInputReceiver.",
        )
        return None
    finally:
        shutil.rmtree(exports, ignore_errors=True)
