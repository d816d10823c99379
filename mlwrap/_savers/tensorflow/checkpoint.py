"""Save ``tf.train.Checkpoint`` and ``CheckpointManager``: the values of variables.

A checkpoint contains no code and no graph. It can only be restored into objects of the same structure, or
copied as files into a folder, so ``load`` needs one of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved
from mlwrap._savers.identify import class_name, has_class, imported
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap._savers.tensorflow.checkpoint_files import (
    copy_checkpoint,
    place_checkpoints,
    require_checkpoint,
    write_state,
)
from mlwrap._savers.tensorflow.checkpoint_unbuilt import unbuilt_layers
from mlwrap.errors import LoadError, SaveError, describe_error, warn

_CHECKPOINT_FOLDER = "checkpoint"
_NAME = "ckpt"  # the name that tf.train.CheckpointManager uses
_PACKAGES = ("tensorflow.python.checkpoint", "tensorflow.python.training")


class CheckpointSaver:
    """Saves one checkpoint of an object's current values, or all checkpoints that a manager kept."""

    name = "checkpoint"
    format = 1
    default_name = "checkpoint"
    collective = True
    frameworks = ("tensorflow",)

    def matches(self, value: object) -> bool:
        """Return whether ``value`` is a ``tf.train.Checkpoint`` or a ``tf.train.CheckpointManager``."""
        return has_class(value, "Checkpoint", "CheckpointV1", "CheckpointManager", packages=_PACKAGES)

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Write a checkpoint, or copy those of the manager; leave the user's own files unchanged.

        Raises:
            SaveError: The manager's latest checkpoint is incomplete. An older one only causes a warning.
        """
        target = folder / _CHECKPOINT_FOLDER
        if _is_manager(value) and value.latest_checkpoint:
            names = _copy_kept(value, target)
        else:
            checkpoint = value.checkpoint if _is_manager(value) else value
            # Reading save_counter creates it, as the first save() does. With the counter in the file,
            # restore() matches everything, whether or not the target object was ever saved.
            _ = checkpoint.save_counter
            target.mkdir()
            # write() instead of save(): it does not count, so the user's next checkpoint keeps its number.
            checkpoint.write(str(target / _NAME))
            names = [_NAME]
        write_state(target, *names)
        details = {"checkpoint": f"{_CHECKPOINT_FOLDER}/{names[-1]}", "kept": names}
        return Saved(details=details, packages=("tensorflow",))

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """Return none: a checkpoint has no record of its training."""
        return ()

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Restore into ``into`` and return it.

        Args:
            folder: The model's folder. Variables that ``into`` has not created yet are read from it when they
                are created, so it must exist until then.
            details: ``Saved.details``, as ``save`` returned it.
            into: A ``tf.train.Checkpoint``, a ``CheckpointManager``, or a mapping of names to trackables,
                as for ``tf.train.Checkpoint(**mapping)``: the latest checkpoint is restored. Or the path of
                a new folder: it gets the files of all kept checkpoints, and a ``CheckpointManager`` for it
                continues from there.
            trust: Not used.

        Raises:
            LoadError: ``into`` is missing, has another type, contains objects that the checkpoint lacks, or
                Keras 3 layers that are not built; or files of the checkpoint are missing.
        """
        if into is None:
            raise LoadError(
                "A checkpoint holds values and no objects: expected into= with a tf.train.Checkpoint built "
                "as at the time of saving, got nothing. For example into=tf.train.Checkpoint(model=model). "
                "The path of a new folder gets the files."
            )
        prefix = require_checkpoint(folder, str(details["checkpoint"]))
        if isinstance(into, str | os.PathLike):
            names = details.get("kept") or [Path(prefix).name]
            return place_checkpoints(folder / _CHECKPOINT_FOLDER, names, into)
        try:
            target = _restore_target(into)
            unbuilt = unbuilt_layers(target, prefix)
            if not unbuilt:
                target.restore(prefix).assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            raise LoadError(
                "The checkpoint does not fit into the objects given as into=. Build them as at the time of "
                f"saving, with the same names and shapes. TensorFlow says: {error}"
            ) from error
        except Exception as error:
            raise LoadError(
                "The checkpoint can't be read. Download the whole model folder again. "
                f"{describe_error(error)}"
            ) from error
        if unbuilt:
            raise LoadError(
                "The checkpoint is not restored. It has values for layers that are not built, and Keras 3 "
                f"would give them new weights later: {', '.join(unbuilt)}. Call the model given as into= on "
                "data once, or build(shape) it, and then load the checkpoint."
            )
        return into


def _is_manager(value: object) -> bool:
    return has_class(value, "CheckpointManager", packages=_PACKAGES)


def _copy_kept(manager: Any, target: Path) -> list[str]:
    """Copy the checkpoints that a manager kept; return their names, the latest last."""
    names = []
    for prefix in manager.checkpoints:
        if prefix == manager.latest_checkpoint:
            continue
        try:
            names.append(copy_checkpoint(prefix, target, manager))
        except SaveError as error:
            warn(f"The manager's latest checkpoint is saved, and one that it kept before is not: {error}")
    return [*names, copy_checkpoint(manager.latest_checkpoint, target, manager)]


def _restore_target(into: Any) -> Any:
    if _is_manager(into):
        return into.checkpoint
    if CheckpointSaver().matches(into):
        return into
    if isinstance(into, Mapping) and into and "tensorflow" in sys.modules:
        return imported("tensorflow").train.Checkpoint(**into)
    raise LoadError(
        "Expected into= to be a tf.train.Checkpoint, a CheckpointManager, a mapping of names to "
        f"trackables or the path of a new folder, got a {class_name(into)}. "
        "Wrap it: into=tf.train.Checkpoint(model=model)."
    )
