"""``tf.train.Checkpoint`` and ``CheckpointManager``: the values of variables, to restore into objects.

A checkpoint holds no code and no graph: it comes back only into objects of the same shape, which is
why ``load`` asks for them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlwrap._journal import Metrics, Saved
from mlwrap.errors import LoadError
from mlwrap.savers._checkpoint_files import copy_checkpoint, require_checkpoint, write_state
from mlwrap.savers._kind import class_name, has_class, imported
from mlwrap.savers._saver import SaveOptions

_FOLDER = "checkpoint"
_NAME = "ckpt"  # tf.train.CheckpointManager's own name for one
_HOME = ("tensorflow.python.checkpoint", "tensorflow.python.training")


class CheckpointSaver:
    """Saves one checkpoint: what the object holds now, or the latest that a manager kept."""

    name = "checkpoint"
    format = 1
    default_name = "checkpoint"
    frameworks = ("tensorflow",)

    def matches(self, value: object) -> bool:
        """Tell whether ``value`` is a ``tf.train.Checkpoint`` or a ``tf.train.CheckpointManager``."""
        return has_class(value, "Checkpoint", "CheckpointV1", "CheckpointManager", packages=_HOME)

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Write a checkpoint, or copy the manager's latest; the user's own files are left as they are."""
        target = folder / _FOLDER
        latest = value.latest_checkpoint if _is_manager(value) else None
        if latest:
            name = copy_checkpoint(latest, target, value)
        else:
            checkpoint = value.checkpoint if _is_manager(value) else value
            # Reading it makes TensorFlow create it, as its first save() does: with the counter in the file,
            # restore() matches everything, whether or not the object at the other end was ever saved.
            _ = checkpoint.save_counter
            target.mkdir()
            # write() and not save(): it does not count, so the user's next checkpoint keeps its number.
            checkpoint.write(str(target / _NAME))
            name = _NAME
            write_state(target, name)
        return Saved(details={"checkpoint": f"{_FOLDER}/{name}"}, packages=("tensorflow",))

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
                trackables as one would give to ``tf.train.Checkpoint(**mapping)``.
            trust: Of no concern here.

        Raises:
            LoadError: ``into`` is missing, is something else, or holds objects that the checkpoint does not.
        """
        if into is None:
            raise LoadError(
                "A checkpoint holds values and no objects: expected into= with a tf.train.Checkpoint built "
                "as at the time of saving, got nothing. For example into=tf.train.Checkpoint(model=model)."
            )
        prefix = require_checkpoint(folder, str(details["checkpoint"]))
        try:
            _target(into).restore(prefix).assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            raise LoadError(
                "The checkpoint does not fit into the objects given as into=. Build them as at the time of "
                f"saving, with the same names and shapes. TensorFlow says: {error}"
            ) from error
        return into


def _is_manager(value: object) -> bool:
    return has_class(value, "CheckpointManager", packages=_HOME)


def _target(into: Any) -> Any:
    if _is_manager(into):
        return into.checkpoint
    if CheckpointSaver().matches(into):
        return into
    if isinstance(into, Mapping) and into and "tensorflow" in sys.modules:
        return imported("tensorflow").train.Checkpoint(**into)
    raise LoadError(
        "Expected into= to be a tf.train.Checkpoint, a CheckpointManager or a mapping of names to "
        f"trackables, got a {class_name(into)}. Wrap it: into=tf.train.Checkpoint(model=model)."
    )
