"""``tf.train.Checkpoint`` and ``CheckpointManager``: the values of variables, to restore into objects.

A checkpoint holds no code and no graph: it comes back only into objects of the same shape, or as files
into a folder, which is why ``load`` asks for one of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Metrics, Saved
from mlwrap._savers.identify import class_name, has_class, imported
from mlwrap._savers.saver import SaveOptions
from mlwrap._savers.tensorflow.checkpoint_files import (
    copy_checkpoint,
    place_checkpoints,
    require_checkpoint,
    write_state,
)
from mlwrap._savers.tensorflow.checkpoint_unbuilt import unbuilt_layers
from mlwrap.errors import LoadError, SaveError, describe_error, warn

_FOLDER = "checkpoint"
_NAME = "ckpt"  # tf.train.CheckpointManager's own name for one
_HOME = ("tensorflow.python.checkpoint", "tensorflow.python.training")


class CheckpointSaver:
    """Saves one checkpoint: what the object holds now; or of a manager all that it kept."""

    name = "checkpoint"
    format = 1
    default_name = "checkpoint"
    collective = True
    frameworks = ("tensorflow",)

    def matches(self, value: object) -> bool:
        """Tell whether ``value`` is a ``tf.train.Checkpoint`` or a ``tf.train.CheckpointManager``."""
        return has_class(value, "Checkpoint", "CheckpointV1", "CheckpointManager", packages=_HOME)

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Write a checkpoint, or copy those of the manager; the user's own files are left as they are.

        Raises:
            SaveError: The manager's latest checkpoint is not whole. An older one costs a warning.
        """
        target = folder / _FOLDER
        if _is_manager(value) and value.latest_checkpoint:
            names = _copy_kept(value, target)
        else:
            checkpoint = value.checkpoint if _is_manager(value) else value
            # Reading it makes TensorFlow create it, as its first save() does: with the counter in the file,
            # restore() matches everything, whether or not the object at the other end was ever saved.
            _ = checkpoint.save_counter
            target.mkdir()
            # write() and not save(): it does not count, so the user's next checkpoint keeps its number.
            checkpoint.write(str(target / _NAME))
            names = [_NAME]
        write_state(target, *names)
        details = {"checkpoint": f"{_FOLDER}/{names[-1]}", "kept": names}
        return Saved(details=details, packages=("tensorflow",))

    def metrics(self, value: Any) -> Iterable[Metrics]:  # noqa: ARG002
        """None: a checkpoint remembers nothing of its training."""
        return ()

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Restore into ``into`` and give it back.

        Args:
            folder: The model's folder. Variables that ``into`` has yet to create are read when they
                are created, so it has to live as long.
            details: Of the time of writing.
            into: A ``tf.train.Checkpoint``, a ``CheckpointManager``, or a mapping of names to
                trackables as one would give to ``tf.train.Checkpoint(**mapping)``: the latest is restored.
                Or the path of a new folder: it gets the files of all that were kept, and a
                ``CheckpointManager`` made for it goes on from there.
            trust: Of no concern here.

        Raises:
            LoadError: ``into`` is missing, is something else, or holds objects that the checkpoint does not,
                or Keras 3 layers that are not built; or files of the checkpoint are missing.
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
            return place_checkpoints(folder / _FOLDER, names, into)
        try:
            target = _target(into)
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
    return has_class(value, "CheckpointManager", packages=_HOME)


def _copy_kept(manager: Any, target: Path) -> list[str]:
    """Copy what a manager kept; give their names, the latest last."""
    names = []
    for prefix in manager.checkpoints:
        if prefix == manager.latest_checkpoint:
            continue
        try:
            names.append(copy_checkpoint(prefix, target, manager))
        except SaveError as error:
            warn(f"The manager's latest checkpoint is saved, and one that it kept before is not: {error}")
    return [*names, copy_checkpoint(manager.latest_checkpoint, target, manager)]


def _target(into: Any) -> Any:
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
