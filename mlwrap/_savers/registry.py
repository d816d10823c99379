"""Which saver fits this object, and which one wrote that folder.

Asked are, in this order: savers that were registered, the newest first; mlwrap's own; and those that
installed packages bring through the entry point group ``mlwrap.savers``. So a package that lies around
takes nothing over, and none is imported before there is something that no other saver knows.
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
from mlwrap._savers.keras.files import KerasFileSaver
from mlwrap._savers.keras.hdf5_files import KerasHdf5Saver, KerasWeightsSaver
from mlwrap._savers.keras.layers import KerasLayerSaver
from mlwrap._savers.keras.model import KerasSaver
from mlwrap._savers.mlflow_flavors import FLAVORS
from mlwrap._savers.modules import import_modules
from mlwrap._savers.saver import SaveOptions, Saver
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

# In the order in which they are asked. Keras comes first because Keras 2 models are tf.Modules too,
# and a tf.train.Checkpoint is an AutoTrackable, so that SavedModel, which takes those, comes last.
# Paths are no objects of any framework: their savers stand apart, and the order among them is of no concern.
# Other frameworks than Keras and TensorFlow come last.
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
    "default_name": (str, "the name of a model that nobody named"),
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
)  # every training returns one: no reason to look for plugins
_plugins: list[Saver] | None = None  # until somebody needs them
_origins: dict[int, str] = {}  # of savers that are not ours, by their id: they live as long as the process
_discovering = threading.RLock()


def find(value: object) -> Saver | None:
    """The saver for ``value``, or ``None``; never raises, and imports nothing but savers' own packages."""
    found = _first_match(_savers, value)
    if found is None and type(value) not in _BUILTIN_CONTAINERS:
        found = _first_match(_discovered(), value)
    return found


def by_name(name: str) -> Saver:
    """The saver that signs its work with ``name``.

    Raises:
        LoadError: There is none.
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
    """Add a saver; it is asked before all others, and takes the place of one with the same name.

    Raises:
        OptionError: It is not a saver: says what is missing or wrong.
    """
    _check_saver(saver)
    _origins[id(saver)] = type(saver).__module__
    _savers[:] = [saver, *(other for other in _savers if other.name != saver.name)]


def saver_names() -> list[str]:
    """Names of the savers, in the order in which they are asked."""
    return [saver.name for saver in (*_savers, *(_plugins or ()))]


def save(saver: Saver, value: Any, folder: Path, options: SaveOptions) -> Saved:
    """Let ``saver`` write ``value``, and see that what it says of it can be written down.

    Raises:
        Exception: What a saver of mlwrap's own raises.
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
    """What ``saver`` can write in another thread in place of ``value``, as it is now; or ``None``."""
    take = getattr(saver, "snapshot", None)
    if take is None or options.input_example is not None:  # the model itself predicts that
        return None
    try:
        return take(value)
    except Exception as error:  # noqa: BLE001 - it can still be saved as ever
        warn(
            f"{_describe_saver(saver)} could not take a snapshot of a {type(value).__qualname__}, and "
            f"the training waits while it is saved: {describe_error(error)}"
        )
        return None


def training_metrics(saver: Saver, value: Any) -> list[Metrics]:
    """The metrics that ``value`` remembers; without them, and with a warning, it still counts."""
    try:
        return list(saver.metrics(value))
    except Exception as error:  # noqa: BLE001 - event files on a disk that went away, a foreign saver
        warn(
            f"{_describe_saver(saver)} could not read the metrics of a {type(value).__qualname__}: "
            f"{describe_error(error)}"
        )
        return []


def import_needed(
    saver: Saver, folder: Path, names: Iterable[str], details: Mapping[str, Any], *, trust: bool
) -> None:
    """Import the modules that a model's description names, if the model itself needs them.

    What another saver than mlwrap's own needs is for its description to say.

    Raises:
        LoadError: As :func:`mlwrap.savers.import_modules`.
    """
    needs = getattr(saver, "needs_module", None)

    def is_needed(module: str) -> bool:
        return bool(needs(folder, module)) if needs is not None else id(saver) in _origins

    told = details.get("distributions")
    known = {str(top): str(pin) for top, pin in told.items()} if isinstance(told, Mapping) else {}
    import_modules(names, trust=trust, is_needed=is_needed, distributions=known)


def require_plain_graphs(folder: Path) -> None:
    """See that every SavedModel in a folder does no more than compute.

    Raises:
        LoadError: One does.
    """
    for file in sorted(folder.rglob("saved_model.pb")):
        check_saved_model(file.parent, trust=False)


def load(saver: Saver, folder: Path, details: Mapping[str, Any], *, into: Any, trust: bool) -> Any:
    """Let ``saver`` give back what it wrote.

    Raises:
        LoadError: It can't be given back; of another saver than mlwrap's own, says whose it is.
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
        except Exception as error:  # noqa: BLE001 - a foreign saver's bug must not end a training
            warn(
                f"{_describe_saver(saver)} failed to tell whether it fits a {type(value).__qualname__}, "
                f"and was passed over: {describe_error(error)}. Its matches() must never raise.",
            )
    return None


def _discovered() -> list[Saver]:
    """The savers that installed packages bring; looked for once."""
    global _plugins  # noqa: PLW0603 - a process has one set of installed packages
    with _discovering:
        if _plugins is None:
            _plugins = []  # also for what a plugin asks while it is being imported
            for point in importlib.metadata.entry_points(group=_GROUP):
                _add_plugin(_plugins, point)
        return _plugins


def _add_plugin(plugins: list[Saver], point: importlib.metadata.EntryPoint) -> None:
    by = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    try:
        loaded = point.load()
        saver: Saver = loaded() if isinstance(loaded, type) else loaded
        _check_saver(saver)
    except Exception as error:  # noqa: BLE001 - one package's fault is not another's
        warn(
            f"The saver {point.name!r} ({point.value}) that the package {by} brings can't be used: "
            f"{describe_error(error)} Upgrade or remove the package."
        )
        return
    _origins[id(saver)] = by
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
        found = getattr(saver, attribute, None)
        good = isinstance(found, expected) and not isinstance(found, bool) and bool(found)
        if isinstance(found, tuple):
            good = good and all(isinstance(item, str) for item in found)
        if not good:
            problems.append(f"{attribute!r} must be {meaning}, got {found!r}")
    missing = [name for name in _METHODS if not callable(getattr(saver, name, None))]
    return problems + [f"it has no method {name}()" for name in missing]


def _describe_saver(saver: object) -> str:
    name = getattr(saver, "name", None)
    cls = saver if isinstance(saver, type) else type(saver)
    if not isinstance(name, str):
        return f"A {cls.__qualname__}"
    by = _origins.get(id(saver))
    return f"The saver {name!r} of {by}" if by else f"{name!r} ({cls.__qualname__})"
