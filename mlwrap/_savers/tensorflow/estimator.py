"""Save Estimators: the latest checkpoint and the best, and SavedModels that can predict.

Layout::

    checkpoint/checkpoint        names the latest checkpoint, relative, so that the folder can move
    checkpoint/model.ckpt-N.*    all files of the latest checkpoint, and of the best if it is another
    checkpoint/graph.pbtxt       the training graph, if the Estimator wrote it
    best/checkpoint              names the best checkpoint, in the folder beside it
    tfmodel/                     the exported SavedModel, if there was a serving function
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
from mlwrap._savers.saver_interface import SaveOptions
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

_ESTIMATOR_FOLDER = "checkpoint"
_BEST = "best"
_EXPORT = "tfmodel"  # MLflow's name for it when MLflow still saved Estimators
_EXPORTERS = "export"  # TensorFlow's name for it in model_dir


class EstimatorSaver:
    """Saves a ``tf.estimator.Estimator``: canned, with a model function, or from ``model_to_estimator``."""

    name = "estimator"
    format = 1
    default_name = "estimator_checkpoint"
    frameworks = ("tensorflow_estimator",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is an Estimator."""
        return has_class(value, "Estimator", packages=("tensorflow_estimator",))

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:
        """Copy the latest checkpoint and the best; export a SavedModel if there is a serving function.

        Only the latest checkpoint is required. Anything else that is missing causes a warning.

        Raises:
            SaveError: The Estimator was not trained, or the latest checkpoint is incomplete.
        """
        prefix = value.latest_checkpoint()
        if not prefix:
            raise SaveError(
                f"The Estimator in {value.model_dir} has no checkpoint, so there is nothing to save. "
                "Call train() before it is returned.",
                value,
            )
        name = copy_checkpoint(prefix, folder / _ESTIMATOR_FOLDER, value)
        best = _copy_best(value, folder, name)
        _copy_graph(str(value.model_dir), folder / _ESTIMATOR_FOLDER)
        exports = _copy_exports(str(value.model_dir), folder)
        saved = None
        if options.serving_input_receiver_fn is not None:
            saved = _export(value, folder, prefix, options)
        if saved is None and exports:
            saved = _saved_from_export(value, folder, exports[-1])
        details: dict[str, Any] = {"checkpoint": f"{_ESTIMATOR_FOLDER}/{name}"}
        if best:
            details["best"] = best
        if exports:
            details["exports"] = exports
        return msgspec.structs.replace(saved or Saved(packages=("tensorflow",)), details=details)

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Return the scalars that training and evaluations wrote into ``model_dir``'s event files."""
        return event_metrics(str(value.model_dir))

    def params(self, value: Any) -> Mapping[str, Any]:
        """Return the ``params`` of its model function."""
        return value.params if isinstance(value.params, Mapping) else {}

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Return a folder that contains the checkpoint.

        It is the folder and not the prefix of the file names, because every function accepts it:
        ``tf.train.latest_checkpoint(path)``, ``tf.train.load_variable(path, name)``, an Estimator's
        ``model_dir=path``, and ``warm_start_from=str(path)``, which needs text. The Estimator itself can't
        be restored, because its model function is code.

        Args:
            folder: The model's folder.
            details: ``Saved.details``, as ``save`` returned it.
            into: The path of a new folder to copy the latest checkpoint into, so that training can continue
                there as ``model_dir``; or an Estimator, to use its own. Without it, the result is the logged
                model's own folder: read it, but do not train in it.
            trust: Not used.

        Returns:
            The path of a folder; the Estimator, if ``into`` is one.

        Raises:
            LoadError: Files of the checkpoint are missing, or ``into`` already contains checkpoints.
        """
        prefix = require_checkpoint(folder, str(details["checkpoint"]))
        if into is None:
            return folder / _ESTIMATOR_FOLDER
        estimator = self.matches(into)
        target = place_checkpoints(
            folder / _ESTIMATOR_FOLDER, [Path(prefix).name], into.model_dir if estimator else into
        )
        return into if estimator else target


def _copy_best(value: Any, folder: Path, latest: str) -> dict[str, Any]:
    """Copy the checkpoint of the best evaluation, if it still exists; return which evaluation that was."""
    best = _best_evaluation(str(value.model_dir))
    if best is None:
        return {}
    details = {"metric": best.metric, "value": best.value, "step": best.step}
    name = f"model.ckpt-{best.step}"
    if name != latest:
        prefix = f"{value.model_dir}/{name}"
        if not imported("tensorflow").io.gfile.exists(f"{prefix}.index"):
            return details  # Estimators keep the last five checkpoints; the best may be older
        try:
            copy_checkpoint(prefix, folder / _ESTIMATOR_FOLDER, value)
        except SaveError as error:
            warn(f"The checkpoint of the best evaluation is not saved: {error}")
            return details
        write_state(folder / _ESTIMATOR_FOLDER, latest)
    folder.joinpath(_BEST).mkdir()
    write_state(folder / _BEST, f"../{_ESTIMATOR_FOLDER}/{name}")
    return {**details, "checkpoint": f"{_ESTIMATOR_FOLDER}/{name}"}


def _best_evaluation(model_dir: str) -> BestExport | None:
    try:
        return best_evaluation(model_dir)
    except Exception as error:  # noqa: BLE001  # any program may have written the event files
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
    """Copy the newest SavedModel of each exporter; return their folders, the newest last."""
    files: Any = imported("tensorflow").io.gfile
    root = f"{model_dir}/{_EXPORTERS}"
    if not files.isdir(root):
        return []
    newest = {}
    for exporter in map(_without_slash, files.listdir(root)):
        # TensorFlow names an export by its time in seconds, and one that is being written "temp-…".
        times = [
            int(name) for name in map(_without_slash, files.listdir(f"{root}/{exporter}")) if name.isdigit()
        ]
        if times:
            newest[exporter] = max(times)
    for exporter, time in newest.items():
        _copy_tree(f"{root}/{exporter}/{time}", folder / _EXPORTERS / exporter)
    return [f"{_EXPORTERS}/{name}" for name in sorted(newest, key=lambda name: (newest[name], name))]


def _copy_tree(source: str, target: Path) -> None:
    files: Any = imported("tensorflow").io.gfile
    for source_folder, _, names in files.walk(source):
        target_folder = target / source_folder[len(source) :].strip("/")
        target_folder.mkdir(parents=True)
        for name in names:
            files.copy(f"{source_folder.rstrip('/')}/{name}", str(target_folder / name))


def _without_slash(name: str) -> str:
    return name.rstrip("/")  # a remote file system appends a slash to the names of folders


def _export(value: Any, folder: Path, prefix: str, options: SaveOptions) -> Saved | None:
    """Export a SavedModel into a fixed folder; TensorFlow names it by the time."""
    exports = folder / f"{_EXPORT}.export"
    try:
        exported_path = value.export_saved_model(
            str(exports), options.serving_input_receiver_fn, checkpoint_path=prefix
        )
        Path(exported_path.decode() if isinstance(exported_path, bytes) else exported_path).rename(
            folder / _EXPORT
        )
    except Exception as error:  # noqa: BLE001  # the serving function is the user's and may raise any error
        warn(
            f"The checkpoint of the {class_name(value)} is saved, but its SavedModel could not be exported "
            f"with the serving_input_receiver_fn given: {type(error).__name__}: {error}. Expected "
            "a function of no arguments that returns a ServingInputReceiver.",
        )
        return None
    finally:
        shutil.rmtree(exports, ignore_errors=True)
    return _saved_from_export(value, folder, _EXPORT)


def _saved_from_export(value: Any, folder: Path, export: str) -> Saved | None:
    try:
        contents = read_saved_model(folder / export)
    except Exception as error:  # noqa: BLE001  # a user's exporter may write any file
        warn(
            f"The checkpoint of the {class_name(value)} is saved, but its export {export} can't be read, "
            f"so none is logged: {describe_error(error)}"
        )
        return None
    warn_of_obstacles(contents, class_name(value))
    return saved_from_contents(contents, folder, export)
