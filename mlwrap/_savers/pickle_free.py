"""Save models with MLflow without pickle, and keep MLflow from reading pickles.

Each ``SaveFormat`` prepares an object for ``mlflow.<flavor>.save_model`` and yields the arguments for it. A
framework's own file format, skops and ``.pt2`` contain no code.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mlwrap._savers.identify import has_class
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap.errors import SaveError, warn

# MLflow 3.18 deprecates the first for the second, which forbids code that comes with a model, too.
_MAY_PICKLE = ("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "MLFLOW_ALLOW_MODEL_CODE_EXECUTION")
_environment_lock = threading.Lock()


def mlflow_module(name: str) -> Any:
    """Import and return the module ``mlflow.<name>``."""
    import mlwrap._mlflow  # noqa: F401, PLC0415 - records who imports MLflow first

    return import_module(f"mlflow.{name}")


SaveFormat = Callable[[Any, Path, SaveOptions], contextlib.AbstractContextManager[dict[str, Any]]]
"""Prepares an object for ``save_model``, and yields the arguments that avoid pickle."""


@contextlib.contextmanager
def own_format(value: Any, folder: Path, options: SaveOptions) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Save in the framework's only file format, which contains no code."""
    yield {}


@contextlib.contextmanager
def skops(value: Any, folder: Path, options: SaveOptions) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Save with skops: a file of named types, which reads only the types that the caller trusts."""
    types: list[str] = []
    if has_class(value, "BaseEstimator", packages=("sklearn",)):  # a LightGBM Booster writes its own text
        io: Any = import_module("skops.io")
        trial = folder / "model.skops"
        io.dump(value, trial)
        types = io.get_untrusted_types(file=trial)
        trial.unlink()
    if nameless := [name for name in types if name.endswith(">")]:  # a lambda, or what a function defined
        raise SaveError(f"skops writes no {', '.join(nameless)}. Define it in a module, with a name.", value)
    if homeless := [name for name in types if name.startswith("__main__.")]:
        warn(
            f"The model will load only in a program that defines {', '.join(homeless)} itself. Move the "
            "definition into a module, and import it from there.",
        )
    yield {"serialization_format": "skops", "skops_trusted_types": types}


def load_skops(folder: Path, config: Mapping[str, Any]) -> Any:
    """Return the object in a model's skops file, as ``mlflow.sklearn`` reads it.

    MLflow 3.18 refuses to where it may run no code, because a model names its trusted types itself.

    Args:
        folder: The model's files.
        config: Its flavor in ``MLmodel``, whose trusted types the caller has compared with those it knows.
    """
    io: Any = import_module("skops.io")
    file = folder / Path(_skops_file(config)).name
    return io.load(file, trusted=list(config.get("skops_trusted_types") or ()))


def is_skops(config: Mapping[str, Any]) -> bool:
    """Return whether a flavor names a skops file; a LightGBM Booster is a text."""
    return _skops_file(config).endswith(".skops")


def _skops_file(config: Mapping[str, Any]) -> str:
    return str(config.get("pickled_model") or config.get("data"))


@contextlib.contextmanager
def pt2(value: Any, folder: Path, options: SaveOptions) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """Save the graph that ``torch.export`` traces on an example, in evaluation mode (without dropout)."""
    if options.input_example is None:
        raise SaveError(
            "torch.export follows a model on an example. Pass input_example=, the model's input or a list "
            "of its inputs, as arrays or tensors with a batch of two or more.",
            value,
        )
    example = options.input_example
    arrays = [_numpy_array(item) for item in (example if isinstance(example, list | tuple) else [example])]
    modes = [(module, module.training) for module in value.modules()]
    value.eval()
    try:
        yield {
            "serialization_format": "pt2",
            "input_example": arrays[0] if len(arrays) == 1 else arrays,
            "signature": _mlflow_signature(arrays),
        }
    finally:
        for module, training in modes:
            module.training = training


def _numpy_array(item: Any) -> Any:
    return item.detach().cpu().numpy() if hasattr(item, "detach") else import_module("numpy").asarray(item)


def _mlflow_signature(arrays: list[Any]) -> Any:
    types = mlflow_module("types.schema")
    names = [None] if len(arrays) == 1 else [f"input_{number}" for number in range(len(arrays))]
    specs = [
        types.TensorSpec(array.dtype, (-1, *array.shape[1:]), name)
        for array, name in zip(arrays, names, strict=True)
    ]
    return mlflow_module("models").ModelSignature(inputs=types.Schema(specs))


@contextlib.contextmanager
def no_pickle() -> Iterator[None]:
    """Turn off MLflow's process-wide permission to read pickles while one model is loaded."""
    settings = vars(mlflow_module("environment_variables"))
    variable = next((name for name in reversed(_MAY_PICKLE) if name in settings), _MAY_PICKLE[0])
    with _environment_lock:
        previous = os.environ.get(variable)
        os.environ[variable] = "false"
        try:
            yield
        finally:
            if previous is None:
                del os.environ[variable]
            else:
                os.environ[variable] = previous
