"""Packages and versions of Keras: which one reads a model, and what MLflow calls it."""

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
    return package == "keras" and major_version(version) >= 3  # noqa: PLR2004  # "Keras 3"


def flavor_of(package: str, version: str) -> tuple[str, dict[str, Any]]:
    """Return the flavor whose loader opens a model of this Keras, and that loader's settings."""
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
    """Return the backend of the imported Keras; Keras's default if none is imported (a copied file)."""
    keras: Any = sys.modules.get("keras")
    return str(keras.backend.backend()) if keras else os.environ.get("KERAS_BACKEND", "tensorflow")


def major_version(version: str) -> int:
    """Return the major version of a version."""
    return int(version.partition(".")[0])


def keras_for(package: str, version: str, trained_on: str = "") -> Any:
    """Import and return the Keras that reads a model.

    Args:
        package: The Keras package that wrote it.
        version: Its version.
        trained_on: The backend that it was trained on, if known.

    Raises:
        LoadError: This Keras or its backend is not installed.
    """
    if package not in PACKAGES or not version.partition(".")[0].isdecimal():
        raise LoadError(f"Expected a model of {' or '.join(PACKAGES)}, got one of {package!r} {version!r}.")
    tried = []
    # tf_keras is Keras 2 and reads its files where `keras` is Keras 3.
    candidates = (
        (package, "tf_keras") if package == "keras" and not is_keras_3(package, version) else (package,)
    )
    for name in candidates:
        try:
            keras: Any = import_module(name)
        except ImportError as error:
            if name == "keras" and error.name in _BACKENDS:
                raise LoadError(_without_backend(error.name, trained_on)) from error
            tried.append(f"{name} can't be imported ({error})")
            continue
        if major_version(keras.__version__) == major_version(version):
            return keras
        tried.append(f"{name} is {keras.__version__}")
    raise LoadError(
        f"This model was saved with {package} {version}, and here {' and '.join(tried)}, which won't "
        f"read it. Load it where what wrote it is installed: {_install(package, version)}"
    )


def _without_backend(backend_name: str, trained_on: str) -> str:
    installed = [name for name in _BACKENDS if name != backend_name and find_spec(name) is not None]
    message = f"Keras is here, but not its backend {backend_name}, which is configured or the default. "
    remedy = f"pip install {trained_on or backend_name}"
    if installed:
        remedy = (
            f"Set KERAS_BACKEND={installed[0]}, which is installed, before Keras is imported; or {remedy}"
        )
    if trained_on:
        message += f"This model was trained on {trained_on}. "
    return f"{message}{remedy}."


def _install(package: str, version: str) -> str:
    if package == "keras" and not is_keras_3(package, version):
        # Each minor version of Keras 2 works only with the TensorFlow of the same minor version.
        return f"pip install 'tensorflow=={'.'.join(version.split('.')[:2])}.*'"
    return f"pip install {package.replace('_', '-')}=={version}"


def details_of(package: str, version: str) -> dict[str, Any]:
    """Return the details of the Keras that wrote a model, which loading it needs."""
    details = {"backend": backend()} if is_keras_3(package, version) else {}
    return {"keras": package, "version": version, **details}


def frameworks_of(flavor: str, package: str) -> tuple[str, ...]:
    return ("keras", backend()) if flavor == "keras" else ("tensorflow", package)


def pyfunc_of(flavor: str) -> dict[str, Any]:
    loader = {"loader_module": f"mlflow.{flavor}"}
    return loader if flavor == "keras" else {**loader, "data": DATA}


def tell_mlflow(data: Path, package: str, save_format: str) -> None:
    """Write the files that ``mlflow.tensorflow`` looks for beside a model."""
    (data / "keras_module.txt").write_text(package)
    (data / "save_format.txt").write_text(save_format)
