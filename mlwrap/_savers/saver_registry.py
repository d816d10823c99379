"""Find the saver for an object, and the saver that wrote a folder.

The order is: registered savers (the newest first), mlwrap's own, and those that installed packages provide
through the entry point group ``mlwrap.savers``. So a plugin never replaces a built-in saver, and no plugin is
imported unless no other saver matches an object.
"""

from __future__ import annotations

import importlib.metadata
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlwrap._journal.records import Metrics, Saved
from mlwrap._savers.class_modules import import_modules
from mlwrap._savers.keras.files import KerasFileSaver
from mlwrap._savers.keras.hdf5_files import KerasHdf5Saver, KerasWeightsSaver
from mlwrap._savers.keras.layers import KerasLayerSaver
from mlwrap._savers.keras.model import KerasSaver
from mlwrap._savers.mlflow_flavors import FLAVORS
from mlwrap._savers.saver_interface import SaveOptions, Saver
from mlwrap._savers.tensorflow.checkpoint import CheckpointSaver
from mlwrap._savers.tensorflow.estimator import EstimatorSaver
from mlwrap._savers.tensorflow.model_paths import (
    CheckpointFilesSaver,
    EstimatorFolderSaver,
    SavedModelFolderSaver,
)
from mlwrap._savers.tensorflow.saved_model import SavedModelSaver
from mlwrap._savers.tensorflow.saved_model_proto import check_saved_model
from mlwrap.errors import LoadError, OptionError, SaveError, describe_error, warn

# In order of precedence. Keras comes first because Keras 2 models are tf.Modules too. A tf.train.Checkpoint
# is an AutoTrackable, so SavedModel, which accepts those, comes after it. Paths belong to no framework; the
# order among their savers does not matter. Frameworks other than Keras and TensorFlow come last.
_savers: list[Saver] = [
    KerasSaver(),
    KerasLayerSaver(),
    CheckpointSaver(),
    EstimatorSaver(),
    SavedModelSaver(),
    SavedModelFolderSaver(),
    CheckpointFilesSaver(),
    EstimatorFolderSaver(),
    KerasFileSaver(),
    KerasHdf5Saver(),
    KerasWeightsSaver(),
    *FLAVORS,
]

_ATTRIBUTES: dict[str, tuple[type, str]] = {
    "name": (str, "a name that signs what it wrote"),
    "format": (int, "the number of its layout, from 1"),
    "default_name": (str, "the name of a model without a given name"),
    "frameworks": (tuple, "top-level module names, such as ('tensorflow',)"),
}
_METHODS = ("matches", "save", "metrics", "load")

_GROUP = "mlwrap.savers"
_BUILTIN_CONTAINERS = (
    dict,
    list,
    tuple,
    set,
    frozenset,
)  # common return values that need no search for plugins
_plugins: list[Saver] | None = None  # until the first search
_origins: dict[
    int, str
] = {}  # of savers that are not mlwrap's, by their id: they live as long as the process
_discovering = threading.RLock()


def find(value: object) -> Saver | None:
    """Return the saver for ``value``, or ``None``; never raises, and imports only savers' own packages."""
    saver = _first_match(_savers, value)
    if saver is None and type(value) not in _BUILTIN_CONTAINERS:
        saver = _first_match(_discovered(), value)
    return saver


def by_name(name: str) -> Saver:
    """Return the saver called ``name``.

    Raises:
        LoadError: No such saver exists.
    """
    for saver in _savers:
        if saver.name == name:
            return saver
    for saver in _discovered():
        if saver.name == name:
            return saver
    raise LoadError(
        f"This model was written by a saver named {name!r}; known here are {', '.join(saver_names())}. "
        "Install or import the package that brings it, or register it with mlwrap.register_saver()."
    )


def register(saver: Saver) -> None:
    """Add a saver; it precedes all others, and replaces one with the same name.

    Raises:
        OptionError: It is not a saver: says what is missing or wrong.
    """
    _check_saver(saver)
    _origins[id(saver)] = type(saver).__module__
    _savers[:] = [saver, *(other for other in _savers if other.name != saver.name)]


def saver_names() -> list[str]:
    """Return the names of the savers, in order of precedence."""
    return [saver.name for saver in (*_savers, *(_plugins or ()))]


def save(saver: Saver, value: Any, folder: Path, options: SaveOptions) -> Saved:
    """Write ``value`` with ``saver``, and check that its description can be written to the journal.

    Raises:
        Exception: An error of one of mlwrap's own savers.
        SaveError: Another saver failed: says whose it is.
    """
    if id(saver) not in _origins:
        return saver.save(value, folder, options)
    try:
        saved: object = saver.save(value, folder, options)
        if not isinstance(saved, Saved):
            raise TypeError(f"expected save() to return a mlwrap.savers.Saved, got {type(saved).__name__}")  # noqa: TRY301
        msgspec.json.encode(saved)
    except Exception as error:
        raise SaveError(f"{_describe_saver(saver)} failed: {describe_error(error)}", value) from error
    return saved


def snapshot(saver: Saver, value: Any, options: SaveOptions) -> Any:
    """Return an object that ``saver`` can write in another thread: ``value`` as it is now; or ``None``."""
    take_snapshot = getattr(saver, "snapshot", None)
    # Only the model itself can predict the example.
    if take_snapshot is None or options.input_example is not None:
        return None
    try:
        return take_snapshot(value)
    except Exception as error:  # noqa: BLE001 - it can still be saved without a snapshot
        warn(
            f"{_describe_saver(saver)} could not take a snapshot of a {type(value).__qualname__}, and "
            f"the training waits while it is saved: {describe_error(error)}"
        )
        return None


def training_metrics(saver: Saver, value: Any) -> list[Metrics]:
    """Return the metrics that ``value`` recorded; warn and return none if they can't be read."""
    try:
        return list(saver.metrics(value))
    except Exception as error:  # noqa: BLE001 - event files on a disk that went away, a user's saver
        warn(
            f"{_describe_saver(saver)} could not read the metrics of a {type(value).__qualname__}: "
            f"{describe_error(error)}"
        )
        return []


def import_needed(
    saver: Saver, folder: Path, names: Iterable[str], details: Mapping[str, Any], *, trust: bool
) -> None:
    """Import the modules that a model's description names, if the model itself needs them.

    For a saver that is not mlwrap's own, the description alone decides.

    Raises:
        LoadError: See :func:`mlwrap._savers.class_modules.import_modules`.
    """
    needs = getattr(saver, "needs_module", None)

    def is_needed(module: str) -> bool:
        return bool(needs(folder, module)) if needs is not None else id(saver) in _origins

    distributions = details.get("distributions")
    pins = (
        {str(module_name): str(pin) for module_name, pin in distributions.items()}
        if isinstance(distributions, Mapping)
        else {}
    )
    import_modules(names, trust=trust, is_needed=is_needed, distributions=pins)


def require_plain_graphs(folder: Path) -> None:
    """Check that every SavedModel in a folder does nothing but compute.

    Raises:
        LoadError: One does more.
    """
    for file in sorted(folder.rglob("saved_model.pb")):
        check_saved_model(file.parent, trust=False)


def load(saver: Saver, folder: Path, details: Mapping[str, Any], *, into: Any, trust: bool) -> Any:
    """Load a model with the saver that wrote it.

    Raises:
        LoadError: It can't be loaded; if the saver is not mlwrap's own, says whose it is.
    """
    try:
        return saver.load(folder, details, into=into, trust=trust)
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"{_describe_saver(saver)} failed: {describe_error(error)}") from error


def _first_match(savers: list[Saver], value: object) -> Saver | None:
    for saver in tuple(savers):
        try:
            if any(framework in sys.modules for framework in saver.frameworks) and saver.matches(value):
                return saver
        except Exception as error:  # noqa: BLE001 - a bug in a user's saver must not end a training
            warn(
                f"{_describe_saver(saver)} failed to tell whether it fits a {type(value).__qualname__}, "
                f"and was passed over: {describe_error(error)}. Its matches() must never raise.",
            )
    return None


def _discovered() -> list[Saver]:
    """Return the savers that installed packages provide; searches once."""
    global _plugins  # noqa: PLW0603 - a process has one set of installed packages
    with _discovering:
        if _plugins is None:
            _plugins = []  # a plugin may call this while it is being imported
            for point in importlib.metadata.entry_points(group=_GROUP):
                _add_plugin(_plugins, point)
        return _plugins


def _add_plugin(plugins: list[Saver], point: importlib.metadata.EntryPoint) -> None:
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    try:
        loaded = point.load()
        saver: Saver = loaded() if isinstance(loaded, type) else loaded
        _check_saver(saver)
    except Exception as error:  # noqa: BLE001 - a broken package must not affect others
        warn(
            f"The saver {point.name!r} ({point.value}) that the package {package} brings can't be used: "
            f"{describe_error(error)} Upgrade or remove the package."
        )
        return
    _origins[id(saver)] = package
    plugins.append(saver)


def _check_saver(saver: object) -> None:
    if problems := _problems(saver):
        raise OptionError(
            f"{_describe_saver(saver)} is no saver: {'; '.join(problems)}. See mlwrap.savers.Saver."
        )


def _problems(saver: object) -> list[str]:
    if isinstance(saver, type):
        return ["it is a class, expected an instance of it"]
    problems = []
    for attribute, (expected, meaning) in _ATTRIBUTES.items():
        value = getattr(saver, attribute, None)
        is_valid = isinstance(value, expected) and not isinstance(value, bool) and bool(value)
        if isinstance(value, tuple):
            is_valid = is_valid and all(isinstance(item, str) for item in value)
        if not is_valid:
            problems.append(f"{attribute!r} must be {meaning}, got {value!r}")
    missing = [name for name in _METHODS if not callable(getattr(saver, name, None))]
    return problems + [f"it has no method {name}()" for name in missing]


def _describe_saver(saver: object) -> str:
    name = getattr(saver, "name", None)
    cls = saver if isinstance(saver, type) else type(saver)
    if not isinstance(name, str):
        return f"A {cls.__qualname__}"
    origin = _origins.get(id(saver))
    return f"The saver {name!r} of {origin}" if origin else f"{name!r} ({cls.__qualname__})"
