"""Keras models: Keras 3, Keras 2 and tf_keras, each saved and loaded by its own package.

All go into one ``.keras`` file, which holds no pickle. The files around it are those that MLflow's
own loaders look for (``mlflow/keras/load.py`` and ``mlflow/tensorflow/__init__.py`` of MLflow 3)::

    data/model.keras         the model
    data/keras_module.txt    for mlflow.tensorflow: the package that loads it
    data/save_format.txt     likewise: "keras"; without it MLflow would look for a .h5 file
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mlwrap._journal import Metrics, Saved
from mlwrap.errors import LoadError, SaveError, warn
from mlwrap.savers._kind import class_name, has_class, imported, owner
from mlwrap.savers._metrics import history_metrics, is_history
from mlwrap.savers._saver import SaveOptions
from mlwrap.savers._signature import of_keras

_PACKAGES = ("keras", "tf_keras")
_FILE = "data/model.keras"

# Packages whose classes Keras finds by their module, unregistered.
_KERAS_HOMES = (*_PACKAGES, "builtins", "keras_hub", "keras_cv", "keras_nlp")
# Where Keras looks for a function of its own that is written by its name alone.
_HOMES = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")


class KerasSaver:
    """Saves Keras models so that ``mlflow.keras``, ``mlflow.tensorflow`` and ``mlflow.pyfunc`` load them."""

    name = "keras"
    format = 1
    default_name = "keras_model"
    frameworks = _PACKAGES

    def matches(self, value: object) -> bool:
        """Tell whether ``value`` is a model of any Keras."""
        return has_class(value, "Model", packages=_PACKAGES)

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Write ``value`` with its own Keras.

        Raises:
            SaveError: It has no weights yet.
        """
        package = owner(value, "Model", packages=_PACKAGES) or "keras"
        version = str(imported(package).__version__)
        if not value.built:
            raise SaveError(
                f"The Keras model {value.name!r} ({class_name(value)}) has no weights yet, so there is "
                "nothing to save. Call it on data once, fit it, or give it an Input layer or build(shape).",
                value,
            )
        file = folder / _FILE
        file.parent.mkdir()
        value.save(str(file))
        flavor, config = _flavor(package, version)
        if flavor == "tensorflow":
            (file.parent / "keras_module.txt").write_text(package)
            (file.parent / "save_format.txt").write_text("keras")
        _warn_of_obstacles(file, package)
        loader = {"loader_module": f"mlflow.{flavor}"}
        return Saved(
            flavors={flavor: config},
            # mlflow.keras finds the folder through its flavor, mlflow.tensorflow is handed it.
            pyfunc=loader if flavor == "keras" else {**loader, "data": "data"},
            signature=of_keras(value),
            details={"keras": package, "version": version},
            packages=("keras", _backend()) if flavor == "keras" else ("tensorflow", package),
        )

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Each epoch of the last ``fit``, from ``value.history``."""
        history = getattr(value, "history", None)
        return history_metrics(history) if is_history(history) else ()

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Give back the model, compiled, by the Keras that wrote it.

        Raises:
            LoadError: That Keras is not installed, or the model needs classes or code that are not here.
        """
        package, version = str(details["keras"]), str(details["version"])
        keras = _the_keras(package, version)
        try:
            return keras.saving.load_model(str(folder / _FILE), safe_mode=not trust)
        except (TypeError, ValueError) as error:
            raise LoadError(
                f"This Keras model could not be rebuilt: {error}\n"
                "If it has layers or functions of your own, import the module that registers them with "
                "@keras.saving.register_keras_serializable() first. If it has Lambda layers, their code "
                "came with the model: pass trust=True only if you trust where it comes from."
            ) from error


def _is_keras_3(package: str, version: str) -> bool:
    return package == "keras" and _major(version) >= 3  # noqa: PLR2004  # the number is the name


def _flavor(package: str, version: str) -> tuple[str, dict[str, Any]]:
    """The flavor whose loader opens a model of this Keras, and what that loader wants to know."""
    if _is_keras_3(package, version):
        return "keras", {
            "data": "data",
            "keras_version": version,
            "keras_backend": _backend(),
            "save_exported_model": False,
        }
    return "tensorflow", {
        "data": "data",
        "model_type": "keras",
        "keras_module": package,
        "keras_version": version,
        "save_format": "keras",
    }


def _backend() -> str:
    return str(imported("keras").backend.backend())


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _the_keras(package: str, version: str) -> Any:
    """The Keras that reads a model of ``package`` and ``version``."""
    came = []
    # Keras 2 lives on as tf_keras, which reads its files, where `keras` has become Keras 3.
    heirs = (package, "tf_keras") if package == "keras" and not _is_keras_3(package, version) else (package,)
    for name in heirs:
        try:
            keras: Any = import_module(name)
        except ImportError as error:
            came.append(f"{name} can't be imported ({error})")
            continue
        if _major(keras.__version__) == _major(version):
            return keras
        came.append(f"{name} is {keras.__version__}")
    raise LoadError(
        f"This model was saved with {package} {version}, and here {' and '.join(came)}, which won't read it. "
        f"Load it where what wrote it is installed: {_install(package, version)}"
    )


def _install(package: str, version: str) -> str:
    if package == "keras" and not _is_keras_3(package, version):
        # Keras 2 came with the TensorFlow of the same minor version, and works with no other.
        return f"pip install 'tensorflow=={'.'.join(version.split('.')[:2])}.*'"
    return f"pip install {package.replace('_', '-')}=={version}"


def _warn_of_obstacles(file: Path, package: str) -> None:
    """Say now, and not at loading, what will keep the model from loading elsewhere."""
    with zipfile.ZipFile(file) as archive:
        text = archive.read("config.json").decode()
    if unknown := sorted(set(_unregistered(json.loads(text), imported(package)))):
        warn(
            f"The model is saved, but it will not load as it is: Keras can't find {', '.join(unknown)} by "
            f"name. Decorate with @{package}.saving.register_keras_serializable() and save again.",
        )
    if '"__lambda__"' in text or '"function_type": "lambda"' in text:
        warn(
            "The model is saved, but it has a lambda in it, whose code loaders refuse to run by default. "
            "Make it a registered layer or function, or load it with trust=True.",
        )


def _unregistered(config: Any, keras: Any) -> Iterator[str]:
    """Names of the classes and functions in a model's configuration that Keras will not find again.

    Keras writes what is registered as ``package>Name`` and its own things with their module; a bare
    name is neither (``saving/serialization_lib.py`` of Keras 2 and 3).
    """
    if isinstance(config, dict):
        registered, what = config.get("registered_name"), config.get("config")
        if config.get("class_name") == "function" and isinstance(what, str):
            if ">" not in what and not any(hasattr(getattr(keras, home, None), what) for home in _HOMES):
                yield what
        elif registered and ">" not in registered and not _importable(config, keras):
            yield str(registered)
    items = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for item in items:
        yield from _unregistered(item, keras)


def _importable(config: dict[str, Any], keras: Any) -> bool:
    """Tell whether Keras will find a class through its module, having no registered name for it."""
    module = str(config.get("module") or "")
    if module.partition(".")[0] in _KERAS_HOMES:
        return True
    # Keras 3 looks nowhere else, for safety; Keras 2 imports what the file names.
    by_module = _major(keras.__version__) < 3 or keras.__name__ == "tf_keras"  # noqa: PLR2004
    return by_module and hasattr(sys.modules.get(module), str(config.get("class_name")))
