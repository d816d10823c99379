"""Save what TensorFlow wrote, given its path: a SavedModel, a checkpoint, an Estimator's folder.

Each saver extends the one for the same kind of object in memory: it copies the files into that saver's
layout, and that saver loads them. TensorFlow need not be installed for copying.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved
from mlwrap._savers.paths import named_path
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap._savers.tensorflow.checkpoint import CheckpointSaver
from mlwrap._savers.tensorflow.checkpoint_files import write_state
from mlwrap._savers.tensorflow.estimator import EstimatorSaver
from mlwrap._savers.tensorflow.event_files import event_metrics
from mlwrap._savers.tensorflow.saved_model import SavedModelSaver, saved_from_contents
from mlwrap._savers.tensorflow.saved_model_proto import Contents, read_saved_model
from mlwrap._spool.copy_files import copy_regular
from mlwrap.errors import SaveError, describe_error, warn

_SAVED_MODEL = "tf2model"
_CHECKPOINT = "checkpoint"
_SHARD = re.compile(r"\.data-\d{5}-of-(\d{5})")
_LATEST = re.compile(r'^model_checkpoint_path: "(?P<path>(?:[^"\\]|\\.)*)"', re.MULTILINE)


class SavedModelFolderSaver(SavedModelSaver):
    """Saves a folder that ``tf.saved_model.save``, ``model.export`` or an Estimator's export wrote."""

    name = "saved_model_folder"
    frameworks = ("os",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is the path of a SavedModel, or of an incomplete one."""
        path = named_path(value)
        return path is not None and any(
            os.path.isfile(path / part)  # noqa: PTH113  # Path.is_file() raises where this returns False
            for part in ("saved_model.pb", "variables/variables.index")
        )

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Copy the folder, and read from it what the SavedModel can do.

        Raises:
            SaveError: It is damaged.
            SpoolError: It contains something that is not a regular file.
        """
        source, target = _path(value), folder / _SAVED_MODEL
        copy_regular(source, target)
        if not (target / "saved_model.pb").is_file():
            raise SaveError(
                f"{source} looks like a SavedModel, and its saved_model.pb is missing. Save it again.", value
            )
        if (target / "variables").is_dir():
            require_whole(target / "variables" / "variables", value)
        contents = _contents_of_folder(target, source, value)
        if contents is None:  # TensorFlow is not installed
            return saved_from_contents(Contents({}, calls=False, call=None), folder, _SAVED_MODEL)
        if not contents.calls and contents.default_signature is None:
            warn(
                f"The SavedModel in {source} is logged, but nothing in it can be called with data, so MLflow "
                "can load it and not predict. Save it with a signature."
            )
        return saved_from_contents(contents, folder, _SAVED_MODEL)


def _contents_of_folder(folder: Path, source: Path, value: object) -> Contents | None:
    if "tensorflow" not in sys.modules and find_spec("tensorflow") is None:
        return None
    try:
        return read_saved_model(folder)
    except Exception as error:
        raise SaveError(
            f"{source} is no SavedModel that can be read: {describe_error(error)}. Save it again.",
            value,
        ) from error


class CheckpointFilesSaver(CheckpointSaver):
    """Saves a checkpoint by its prefix (``ckpts/ckpt-3``), its ``.index`` file, or its folder: the latest."""

    name = "checkpoint_files"
    frameworks = ("os",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is the path of a TensorFlow 2 checkpoint of objects."""
        path = named_path(value)
        return path is not None and (prefix := _prefix(path)) is not None and not _has_graph(prefix)

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Copy all files of the checkpoint.

        Raises:
            SaveError: One of them is missing.
        """
        name = _copy_checkpoint(value, folder)
        return Saved(details={"checkpoint": name}, packages=("tensorflow",))

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """Return none: a checkpoint has no record of its training."""
        return ()


class EstimatorFolderSaver(EstimatorSaver):
    """Saves the latest checkpoint of an Estimator's ``model_dir``, or one by its prefix."""

    name = "estimator_folder"
    frameworks = ("os",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is the path of a checkpoint that was saved with a graph."""
        path = named_path(value)
        return path is not None and (prefix := _prefix(path)) is not None and _has_graph(prefix)

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Copy all files of the checkpoint, and the training graph if there is one.

        Raises:
            SaveError: One of them is missing.
        """
        name = _copy_checkpoint(value, folder)
        graph = (_prefix(_path(value)) or _path(value)).parent / "graph.pbtxt"
        if graph.is_file():
            copy_regular(graph, folder / _CHECKPOINT / graph.name)
        return Saved(details={"checkpoint": name}, packages=("tensorflow",))

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Return the scalars of the folder's event files, if TensorFlow is imported to read them."""
        folder = _path(value)
        return event_metrics(str(folder)) if "tensorflow" in sys.modules and folder.is_dir() else ()


def _path(value: Any) -> Path:
    return named_path(value) or Path()


def _prefix(path: Path) -> Path | None:
    """Return the prefix of the checkpoint that ``path`` names; for a folder, the latest in its state file."""
    if path.suffix == ".index" and os.path.isfile(path):  # noqa: PTH113
        return path.with_suffix("")
    if os.path.isfile(f"{path}.index"):  # noqa: PTH113
        return path
    try:
        state = (path / "checkpoint").read_text(encoding="utf-8") if path.is_dir() else ""
    except (OSError, ValueError):
        return None
    match = _LATEST.search(state[: 1 << 20])
    if match is None:
        return None
    stored_path = Path(re.sub(r"\\(.)", r"\1", match["path"]))
    # The state file has the path of the time of writing. The folder may have moved, so a file beside counts.
    beside = path / stored_path.name
    return beside if os.path.isfile(f"{beside}.index") or not stored_path.is_absolute() else stored_path  # noqa: PTH113


def _has_graph(prefix: Path) -> bool:
    return os.path.isfile(f"{prefix}.meta")  # noqa: PTH113


def _copy_checkpoint(value: Any, folder: Path) -> str:
    """Copy the checkpoint that ``value`` names into ``folder``; return its new prefix, relative."""
    prefix = _prefix(_path(value)) or _path(value)
    require_whole(prefix, value)
    target = folder / _CHECKPOINT
    target.mkdir()
    for file in sorted(prefix.parent.iterdir()):
        ending = file.name.removeprefix(prefix.name)
        if file.name != ending and (ending in {".index", ".meta"} or _SHARD.fullmatch(ending)):
            copy_regular(file, target / file.name)
    write_state(target, prefix.name)
    return f"{_CHECKPOINT}/{prefix.name}"


def require_whole(prefix: Path, value: object) -> None:
    """Raise ``SaveError``, with ``value``, if a file of the checkpoint at ``prefix`` is missing."""
    try:
        endings = {file.name.removeprefix(prefix.name) for file in prefix.parent.iterdir()}
    except OSError as error:
        raise SaveError(
            f"the folder of the checkpoint {prefix} can't be read ({error.strerror}).", value
        ) from error
    total = max((int(match[1]) for ending in endings if (match := _SHARD.fullmatch(ending))), default=1)
    needed = [".index", *(f".data-{number:05d}-of-{total:05d}" for number in range(total))]
    if missing := [prefix.name + ending for ending in needed if ending not in endings]:
        raise SaveError(
            f"the checkpoint {prefix} is not whole: {', '.join(missing)} is missing.",
            value,
        )
