"""The packages and versions of Keras: which of them reads a model, and what MLflow calls it."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlwrap.errors import LoadError

PACKAGES = ("keras", "tf_keras")
DATA = "data"
_BACKENDS = ("tensorflow", "jax", "torch")


def is_keras_3(package: str, version: str) -> bool:
    return package == "keras" and _major(version) >= 3  # noqa: PLR2004  # the number is the name


def flavor_of(package: str, version: str) -> tuple[str, dict[str, Any]]:
    """The flavor whose loader opens a model of this Keras, and what that loader wants to know."""
    if is_keras_3(package, version):
        return "keras", {
            "data": "data",
            "keras_version": version,
            "keras_backend": backend(),
            "save_exported_model": False,
        }
    return "tensorflow", {
        "data": "data",
        "model_type": "keras",
        "keras_module": package,
        "keras_version": version,
        "save_format": "keras",
    }


def backend() -> str:
    """Of the Keras that is loaded; where none is, as of a file that is only copied, Keras's default."""
    keras: Any = sys.modules.get("keras")
    return str(keras.backend.backend()) if keras else os.environ.get("KERAS_BACKEND", "tensorflow")


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def keras_for(package: str, version: str, trained_on: str = "") -> Any:
    """The Keras that reads a model.

    Args:
        package: The Keras that wrote it.
        version: Its version.
        trained_on: The backend that it was trained on, where that is known.

    Raises:
        LoadError: It is not here, or its backend is not.
    """
    if package not in PACKAGES or not version.partition(".")[0].isdecimal():
        raise LoadError(f"Expected a model of {' or '.join(PACKAGES)}, got one of {package!r} {version!r}.")
    came = []
    # Keras 2 lives on as tf_keras, which reads its files, where `keras` has become Keras 3.
    heirs = (package, "tf_keras") if package == "keras" and not is_keras_3(package, version) else (package,)
    for name in heirs:
        try:
            keras: Any = import_module(name)
        except ImportError as error:
            if name == "keras" and error.name in _BACKENDS:
                raise LoadError(_without_backend(error.name, trained_on)) from error
            came.append(f"{name} can't be imported ({error})")
            continue
        if _major(keras.__version__) == _major(version):
            return keras
        came.append(f"{name} is {keras.__version__}")
    raise LoadError(
        f"This model was saved with {package} {version}, and here {' and '.join(came)}, which won't read it. "
        f"Load it where what wrote it is installed: {_install(package, version)}"
    )


def _without_backend(missing: str, trained_on: str) -> str:
    here = [name for name in _BACKENDS if name != missing and find_spec(name) is not None]
    said = f"Keras is here, but not its backend {missing}, which it is told to use or takes by default. "
    cure = f"pip install {trained_on or missing}"
    if here:
        cure = f"Set KERAS_BACKEND={here[0]}, which is installed, before Keras is imported; or {cure}"
    if trained_on:
        said += f"This model was trained on {trained_on}. "
    return f"{said}{cure}."


def _install(package: str, version: str) -> str:
    if package == "keras" and not is_keras_3(package, version):
        # Keras 2 came with the TensorFlow of the same minor version, and works with no other.
        return f"pip install 'tensorflow=={'.'.join(version.split('.')[:2])}.*'"
    return f"pip install {package.replace('_', '-')}=={version}"


def details_of(package: str, version: str) -> dict[str, Any]:
    """What is to be known of the Keras that wrote a model, to load it."""
    own = {"backend": backend()} if is_keras_3(package, version) else {}
    return {"keras": package, "version": version, **own}


def frameworks_of(flavor: str, package: str) -> tuple[str, ...]:
    return ("keras", backend()) if flavor == "keras" else ("tensorflow", package)


def pyfunc_of(flavor: str) -> dict[str, Any]:
    loader = {"loader_module": f"mlflow.{flavor}"}
    return loader if flavor == "keras" else {**loader, "data": DATA}


def tell_mlflow(data: Path, package: str, save_format: str) -> None:
    """Write the files that ``mlflow.tensorflow`` looks for beside a model."""
    (data / "keras_module.txt").write_text(package)
    (data / "save_format.txt").write_text(save_format)
