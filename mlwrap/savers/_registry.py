"""Which saver fits this object, and which one wrote that folder."""

from __future__ import annotations

import sys

from mlwrap.errors import LoadError, OptionError, warn
from mlwrap.savers._checkpoint import CheckpointSaver
from mlwrap.savers._estimator import EstimatorSaver
from mlwrap.savers._files import CheckpointFilesSaver, EstimatorFolderSaver, SavedModelFolderSaver
from mlwrap.savers._keras import KerasSaver
from mlwrap.savers._keras_files import KerasFileSaver, KerasHdf5Saver, KerasWeightsSaver
from mlwrap.savers._saved_model import SavedModelSaver
from mlwrap.savers._saver import Saver

# In the order in which they are asked. Keras comes first because Keras 2 models are tf.Modules too,
# and a tf.train.Checkpoint is an AutoTrackable, so that SavedModel, which takes those, comes last.
# Paths are no objects of any framework: their savers stand apart, and the order among them is of no concern.
_savers: list[Saver] = [
    KerasSaver(),
    CheckpointSaver(),
    EstimatorSaver(),
    SavedModelSaver(),
    SavedModelFolderSaver(),
    CheckpointFilesSaver(),
    EstimatorFolderSaver(),
    KerasFileSaver(),
    KerasHdf5Saver(),
    KerasWeightsSaver(),
]

_ATTRIBUTES: dict[str, tuple[type, str]] = {
    "name": (str, "a name that signs what it wrote"),
    "format": (int, "the number of its layout, from 1"),
    "default_name": (str, "the name of a model that nobody named"),
    "frameworks": (tuple, "top-level module names, such as ('tensorflow',)"),
}
_METHODS = ("matches", "save", "metrics", "load")


def find(value: object) -> Saver | None:
    """The saver for ``value``, or ``None``; imports nothing, and never raises."""
    for saver in tuple(_savers):
        if not any(framework in sys.modules for framework in saver.frameworks):
            continue
        try:
            if saver.matches(value):
                return saver
        except Exception as error:  # noqa: BLE001  # a foreign saver's bug must not end a training
            warn(
                f"The saver {saver.name!r} failed to tell whether it fits a {type(value).__qualname__}, "
                f"and was passed over: {type(error).__name__}: {error}. Its matches() must never raise.",
            )
    return None


def by_name(name: str) -> Saver:
    """The saver that signs its work with ``name``.

    Raises:
        LoadError: There is none.
    """
    for saver in _savers:
        if saver.name == name:
            return saver
    raise LoadError(
        f"This model was written by a saver named {name!r}; known here are {', '.join(kinds())}. "
        "Install or import the package that brings it, or register it with mlwrap.register_saver()."
    )


def register(saver: Saver) -> None:
    """Add a saver; it is asked before all others, and takes the place of one with the same name.

    Raises:
        OptionError: It is not a saver: says what is missing or wrong.
    """
    problems = _problems(saver)
    if problems:
        raise OptionError(f"{_called(saver)} is no saver: {'; '.join(problems)}. See mlwrap.savers.Saver.")
    _savers[:] = [saver, *(other for other in _savers if other.name != saver.name)]


def kinds() -> list[str]:
    """Names of the savers, in the order in which they are asked."""
    return [saver.name for saver in _savers]


def _problems(saver: object) -> list[str]:
    if isinstance(saver, type):
        return ["it is a class, expected an instance of it"]
    problems = []
    for attribute, (expected, meaning) in _ATTRIBUTES.items():
        found = getattr(saver, attribute, None)
        good = isinstance(found, expected) and not isinstance(found, bool) and bool(found)
        if isinstance(found, tuple):
            good = good and all(isinstance(item, str) for item in found)
        if not good:
            problems.append(f"{attribute!r} must be {meaning}, got {found!r}")
    missing = [name for name in _METHODS if not callable(getattr(saver, name, None))]
    return problems + [f"it has no method {name}()" for name in missing]


def _called(saver: object) -> str:
    name = getattr(saver, "name", None)
    cls = saver if isinstance(saver, type) else type(saver)
    return f"{name!r} ({cls.__qualname__})" if isinstance(name, str) else f"A {cls.__qualname__}"
