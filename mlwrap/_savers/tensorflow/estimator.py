"""Estimators: the latest checkpoint and the best, and SavedModels that can predict.

Layout::

    checkpoint/checkpoint        names the latest one, relative, so that the folder can move
    checkpoint/model.ckpt-N.*    all files of the latest checkpoint; and of the best, if it is another
    checkpoint/graph.pbtxt       the training graph, if the Estimator wrote it
    best/checkpoint              names the best one, in the folder beside it
    tfmodel/                     the exported SavedModel, if a serving function was given
    export/<exporter>/           the newest SavedModel of each exporter (``tf.estimator.BestExporter``, …)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlwrap._journal.records import Metrics, Saved
from mlwrap._savers.identify import class_name, has_class, imported
from mlwrap._savers.saver import SaveOptions
from mlwrap._savers.tensorflow.checkpoint_files import (
    copy_checkpoint,
    place_checkpoints,
    require_checkpoint,
    write_state,
)
from mlwrap._savers.tensorflow.event_files import BestExport, best_evaluation, event_metrics
from mlwrap._savers.tensorflow.saved_model import saved_from_contents, warn_of_obstacles
from mlwrap._savers.tensorflow.saved_model_proto import read_saved_model
from mlwrap.errors import SaveError, describe_error, warn

_FOLDER = "checkpoint"
_BEST = "best"
_EXPORT = "tfmodel"  # what MLflow called it when it still saved Estimators
_EXPORTERS = "export"  # what TensorFlow calls it in model_dir


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
        """Copy the latest checkpoint and the best; export a SavedModel if there is a serving function.

        Only the latest has to be there. What else can't be had is a warning: the training's result is kept.

        Raises:
            SaveError: It was not trained, or the latest checkpoint is not whole.
        """
        prefix = value.latest_checkpoint()
        if not prefix:
            raise SaveError(
                f"The Estimator in {value.model_dir} has no checkpoint, so there is nothing to save. "
                "Call train() before it is returned.",
                value,
            )
        name = copy_checkpoint(prefix, folder / _FOLDER, value)
        best = _copy_best(value, folder, name)
        _copy_graph(str(value.model_dir), folder / _FOLDER)
        exports = _copy_exports(str(value.model_dir), folder)
        saved = None
        if options.serving_input_receiver_fn is not None:
            saved = _export(value, folder, prefix, options)
        if saved is None and exports:
            saved = _saved_export(value, folder, exports[-1])
        details: dict[str, Any] = {"checkpoint": f"{_FOLDER}/{name}"}
        if best:
            details["best"] = best
        if exports:
            details["exports"] = exports
        return msgspec.structs.replace(saved or Saved(packages=("tensorflow",)), details=details)

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Scalars that training and evaluations wrote into the event files of ``model_dir``."""
        return event_metrics(str(value.model_dir))

    def params(self, value: Any) -> Mapping[str, Any]:
        """The ``params`` that its model function was given."""
        return value.params if isinstance(value.params, Mapping) else {}

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Give back a folder that holds the checkpoint.

        The folder and not the prefix of the file names, because everything takes it:
        ``tf.train.latest_checkpoint(path)``, ``tf.train.load_variable(path, name)``, an Estimator's
        ``model_dir=path``, and ``warm_start_from=str(path)``, which wants text. The Estimator itself can't
        come back: its model function is code.

        Args:
            folder: The model's folder.
            details: Of the time of writing.
            into: The path of a new folder that the latest checkpoint is copied into, for training to go
                on there as ``model_dir``; or an Estimator, for its own. Without it what comes back is the
                logged model's own folder, which is to be read and not trained in.
            trust: Of no concern here.

        Returns:
            The path of a folder; the Estimator, if ``into`` is one.

        Raises:
            LoadError: Files of the checkpoint are missing, or ``into`` holds checkpoints already.
        """
        prefix = require_checkpoint(folder, str(details["checkpoint"]))
        if into is None:
            return folder / _FOLDER
        estimator = self.matches(into)
        placed = place_checkpoints(
            folder / _FOLDER, [Path(prefix).name], into.model_dir if estimator else into
        )
        return into if estimator else placed


def _copy_best(value: Any, folder: Path, latest: str) -> dict[str, Any]:
    """Keep the checkpoint of the best evaluation, if it still is there; say which evaluation that was."""
    best = _best(str(value.model_dir))
    if best is None:
        return {}
    said = {"metric": best.metric, "value": best.value, "step": best.step}
    name = f"model.ckpt-{best.step}"
    if name != latest:
        prefix = f"{value.model_dir}/{name}"
        if not imported("tensorflow").io.gfile.exists(f"{prefix}.index"):
            return said  # Estimators keep the last five, and the best may be older
        try:
            copy_checkpoint(prefix, folder / _FOLDER, value)
        except SaveError as error:
            warn(f"The checkpoint of the best evaluation is not saved: {error}")
            return said
        write_state(folder / _FOLDER, latest)
    folder.joinpath(_BEST).mkdir()
    write_state(folder / _BEST, f"../{_FOLDER}/{name}")
    return {**said, "checkpoint": f"{_FOLDER}/{name}"}


def _best(model_dir: str) -> BestExport | None:
    try:
        return best_evaluation(model_dir)
    except Exception as error:  # noqa: BLE001  # event files are anybody's to write
        warn(
            f"The evaluations in {model_dir} can't be read, so no checkpoint is the best: "
            f"{describe_error(error)}"
        )
        return None


def _copy_graph(model_dir: str, target: Path) -> None:
    files: Any = imported("tensorflow").io.gfile
    graph = f"{model_dir}/graph.pbtxt"
    if files.exists(graph):
        files.copy(graph, str(target / "graph.pbtxt"))


def _copy_exports(model_dir: str, folder: Path) -> list[str]:
    """Copy the newest SavedModel of each exporter; give their folders, the newest last."""
    files: Any = imported("tensorflow").io.gfile
    root = f"{model_dir}/{_EXPORTERS}"
    if not files.isdir(root):
        return []
    newest = {}
    for exporter in map(_tensor_name, files.listdir(root)):
        # TensorFlow names an export by its time in seconds; what it is still writing is "temp-…".
        times = [
            int(name) for name in map(_tensor_name, files.listdir(f"{root}/{exporter}")) if name.isdigit()
        ]
        if times:
            newest[exporter] = max(times)
    for exporter, time in newest.items():
        _copy_tree(f"{root}/{exporter}/{time}", folder / _EXPORTERS / exporter)
    return [f"{_EXPORTERS}/{name}" for name in sorted(newest, key=lambda name: (newest[name], name))]


def _copy_tree(source: str, target: Path) -> None:
    files: Any = imported("tensorflow").io.gfile
    for where, _, names in files.walk(source):
        here = target / where[len(source) :].strip("/")
        here.mkdir(parents=True)
        for name in names:
            files.copy(f"{where.rstrip('/')}/{name}", str(here / name))


def _tensor_name(name: str) -> str:
    return name.rstrip("/")  # a remote file system lists folders with a slash at their end


def _export(value: Any, folder: Path, prefix: str, options: SaveOptions) -> Saved | None:
    """Export into a fixed place what TensorFlow writes into a folder named by the time of day."""
    exports = folder / f"{_EXPORT}.export"
    try:
        made = value.export_saved_model(
            str(exports), options.serving_input_receiver_fn, checkpoint_path=prefix
        )
        Path(made.decode() if isinstance(made, bytes) else made).rename(folder / _EXPORT)
    except Exception as error:  # noqa: BLE001  # the serving function is the user's: anything may come out of it
        warn(
            f"The checkpoint of the {class_name(value)} is saved, but its SavedModel could not be exported "
            f"with the serving_input_receiver_fn given: {type(error).__name__}: {error}. Expected "
            "a function of no arguments that returns a ServingInputReceiver.",
        )
        return None
    finally:
        shutil.rmtree(exports, ignore_errors=True)
    return _saved_export(value, folder, _EXPORT)


def _saved_export(value: Any, folder: Path, export: str) -> Saved | None:
    try:
        contents = read_saved_model(folder / export)
    except Exception as error:  # noqa: BLE001  # an exporter of the user's own may write anything
        warn(
            f"The checkpoint of the {class_name(value)} is saved, but its export {export} can't be read, "
            f"so MLflow is told of none: {describe_error(error)}"
        )
        return None
    warn_of_obstacles(contents, class_name(value))
    return saved_from_contents(contents, folder, export)
