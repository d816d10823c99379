"""Keras models: Keras 3, Keras 2 and tf_keras, each saved and loaded by its own package.

All go into one ``.keras`` file, which holds no pickle. The files around it are those that MLflow's
own loaders look for (``mlflow/keras/load.py`` and ``mlflow/tensorflow/__init__.py`` of MLflow 3)::

    data/model.keras         the model
    data/keras_module.txt    for mlflow.tensorflow: the package that loads it
    data/save_format.txt     likewise: "keras"; without it MLflow would look for a .h5 file
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mlwrap._journal import Metrics, Saved, Zip
from mlwrap.errors import LoadError, SaveError, told, warn
from mlwrap.savers._archive import check_archive, read_config, weights_size
from mlwrap.savers._fits import latest_fit
from mlwrap.savers._keras_folder import can_write_folders, write_folder
from mlwrap.savers._keras_names import Names, declared, names_of, needs_module, not_here
from mlwrap.savers._keras_snapshot import Snapshot, snapshot
from mlwrap.savers._kind import class_name, has_class, imported, owner
from mlwrap.savers._metrics import history_metrics
from mlwrap.savers._saver import SaveOptions
from mlwrap.savers._signature import of_keras

_PACKAGES = ("keras", "tf_keras")
_FILE = "data/model.keras"
_FEW_WEIGHTS = 16 << 20  # that need no values: 64 MiB
_MOST_FOR_A_BYTE = 8


class KerasSaver:
    """Saves Keras models so that ``mlflow.keras``, ``mlflow.tensorflow`` and ``mlflow.pyfunc`` load them."""

    name = "keras"
    format = 1
    default_name = "keras_model"
    collective = True
    frameworks: tuple[str, ...] = _PACKAGES

    def matches(self, value: object) -> bool:
        """Tell whether ``value`` is a model of any Keras."""
        return has_class(value, "Model", packages=_PACKAGES)

    def snapshot(self, value: Any) -> Snapshot | None:
        """``value`` as it is now, to be saved in another thread, where that is possible."""
        package = owner(value, "Model", packages=_PACKAGES)
        return snapshot(value) if package == "keras" and can_write_folders(imported("keras")) else None

    def save(self, value: Any, folder: Path, options: SaveOptions) -> Saved:  # noqa: ARG002
        """Write ``value``, a model or a snapshot of one, with its own Keras.

        Raises:
            SaveError: It has no weights yet, or one of its parts can't be written, or not without a pickle.
        """
        written, value = value, value.model if isinstance(value, Snapshot) else value
        package = owner(value, "Model", packages=_PACKAGES) or "keras"
        keras: Any = imported(package)
        version = str(keras.__version__)
        if not _has_weights(value, keras):
            raise SaveError(
                f"The Keras model {value.name!r} ({class_name(value)}) has no weights yet, so there is "
                "nothing to save. Call it on data once, fit it, or give it an Input layer or build(shape).",
                value,
            )
        file = folder / _FILE
        file.parent.mkdir()
        zips = _write(written, file, keras)
        names = names_of(read_config(folder / (zips[_FILE].folder if zips else _FILE)), keras)
        if names.pickled:
            raise SaveError(
                f"The Keras model {value.name!r} has PyTorch modules in it ({', '.join(names.pickled)}), "
                "which Keras can only pickle, and pickles are not written. Build them of Keras's layers.",
                value,
            )
        _warn_of_obstacles(names, package)
        flavor, config = _flavor(package, version)
        if flavor == "tensorflow":
            (file.parent / "keras_module.txt").write_text(package)
            (file.parent / "save_format.txt").write_text("keras")
        loader = {"loader_module": f"mlflow.{flavor}"}
        return Saved(
            flavors={flavor: config},
            # mlflow.keras finds the folder through its flavor, mlflow.tensorflow is handed it.
            pyfunc=loader if flavor == "keras" else {**loader, "data": "data"},
            signature=of_keras(value),
            details={"keras": package, "version": version},
            packages=(*_frameworks(flavor, package), *names.packages),
            modules=names.modules,
            zips=zips,
        )

    def metrics(self, value: Any) -> Iterable[Metrics]:
        """Each epoch of the last ``fit``."""
        return history_metrics(latest_fit(value))

    def needs_module(self, folder: Path, module: str) -> bool:
        """Whether the model in ``folder`` has objects of a module.

        Raises:
            LoadError: The file is not one that Keras writes.
        """
        check_archive(folder / _FILE)
        return needs_module(read_config(folder / _FILE), module)

    def load(self, folder: Path, details: Mapping[str, Any], *, into: Any = None, trust: bool = False) -> Any:  # noqa: ARG002
        """Give back the model, compiled, by the Keras that wrote it.

        Raises:
            LoadError: That Keras is not installed, the file is not one that Keras writes, or the model
                needs classes or code that are not here.
        """
        package, version = str(details.get("keras")), str(details.get("version"))
        keras = _the_keras(package, version)
        file = folder / _FILE
        check_archive(file)
        config = read_config(file)
        _refuse_what_is_not_in_the_file(config, weights_size(file))
        if not trust:
            _refuse_what_is_not_here(config, keras)
        try:
            return keras.saving.load_model(str(file), safe_mode=not trust)
        except Exception as error:
            raise LoadError(
                f"This Keras model could not be rebuilt: {told(error)}\n"
                f"It was saved with {package} {version}, and this is {keras.__version__}. Layers and "
                "functions of your own must be registered, and be as they were then."
            ) from error


def _has_weights(model: Any, keras: Any) -> bool:
    """Tell whether there is anything to save: one that Keras calls built may be none, having no weights."""
    if not model.built:
        return False
    # Layers that make weights when they are built, and were not: of a model whose build() built nothing.
    waiting = [
        layer
        for layer in model._flatten_layers(include_self=False)  # noqa: SLF001  # there is no public way
        if not layer.built and type(layer).build is not keras.layers.Layer.build
    ]
    return bool(model.weights) or not waiting


def _write(model: Any, file: Path, keras: Any) -> dict[str, Zip]:
    """Write a model; what delivery is to zip."""
    try:
        if can_write_folders(keras):
            return {_FILE: _write_folder(model, file.with_suffix(".unzipped"))}
        model.save(str(file))
    except (OSError, MemoryError, SaveError):  # a full disk is not the model's fault
        raise
    except Exception as error:
        raise SaveError(
            f"Keras can't write the model {model.name!r} ({class_name(model)}): {told(error)}\n"
            "Expected that each of its layers, losses and metrics has a get_config() that gives back "
            "numbers, text, lists, dictionaries and Keras objects, and that its weights can be read.",
            model,
        ) from error
    return {}


def _write_folder(model: Any, folder: Path) -> Zip:
    """Write a model, from a snapshot where that takes no memory: Keras copies a variable twice to read it."""
    if isinstance(model, Snapshot):
        return model.write_folder(folder)
    with contextlib.suppress(Exception):  # what is wrong is said below, in Keras's words
        if (shot := snapshot(model, free=True)) is not None:
            return shot.write_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return write_folder(model, folder)


def _refuse_what_is_not_here(config: Any, keras: Any) -> None:
    missing, unsafe = not_here(config, keras)
    if unsafe:
        raise LoadError(
            f"This Keras model has {'; '.join(unsafe)}. That runs or reads what came with the model, or what "
            "its file names: pass trust=True only if you trust where it comes from."
        )
    if missing:
        raise LoadError(
            f"This Keras model needs {', '.join(missing)}, which Keras does not know here. Import the module "
            f"that registers it with @{keras.__name__}.saving.register_keras_serializable() first."
        )


def _refuse_what_is_not_in_the_file(config: Any, size: int) -> None:
    """Refuse a configuration that would make far more weights than there are values for.

    Args:
        config: The model's configuration.
        size: Bytes of its weights; of a quantized one half a byte for each.
    """
    weights = declared(config)
    if weights > max(_FEW_WEIGHTS, _MOST_FOR_A_BYTE * size):
        raise LoadError(
            f"This Keras model is refused: its configuration declares {weights:,} weights, and its file "
            f"holds {size:,} bytes. Load only what a training wrote, and if this is, download it again."
        )


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
    """Of the Keras that is loaded; where none is, as of a file that is only copied, Keras's default."""
    keras: Any = sys.modules.get("keras")
    return str(keras.backend.backend()) if keras else os.environ.get("KERAS_BACKEND", "tensorflow")


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _the_keras(package: str, version: str) -> Any:
    """The Keras that reads a model of ``package`` and ``version``."""
    if package not in _PACKAGES or not version.partition(".")[0].isdecimal():
        raise LoadError(f"Expected a model of {' or '.join(_PACKAGES)}, got one of {package!r} {version!r}.")
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


def _frameworks(flavor: str, package: str) -> tuple[str, ...]:
    return ("keras", _backend()) if flavor == "keras" else ("tensorflow", package)


def _warn_of_obstacles(names: Names, package: str) -> None:
    """Say now, and not at loading, what will keep the model from loading elsewhere."""
    will_not = "The model is saved, but it will not load as it is"
    if names.unregistered:
        warn(
            f"{will_not}: Keras can't find {', '.join(names.unregistered)} by name. Decorate with "
            f"@{package}.saving.register_keras_serializable() and save again.",
        )
    for name, trouble in names.hidden.items():
        warn(f"{will_not} in another process: {name} is registered here, but {trouble}")
    if names.unsafe:
        warn(
            f"The model is saved, but it has {'; '.join(names.unsafe)}, which loaders refuse by default. "
            "Make it a registered layer or function, with what it needs in the model itself, or load "
            "it with trust=True.",
        )
