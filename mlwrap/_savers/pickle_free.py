"""How MLflow is asked to write a model without pickle, and kept from reading one.

Each way makes an object ready for ``mlflow.<flavor>.save_model`` and gives the arguments for it. A
framework's own file format, skops and ``.pt2`` hold no code.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mlwrap._savers.identify import has_class
from mlwrap._savers.saver import SaveOptions
from mlwrap.errors import SaveError, warn

_MAY_PICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
_one_at_a_time = threading.Lock()


def mlflow_module(name: str) -> Any:
    """The module ``mlflow.<name>``, imported when it is needed."""
    import mlwrap._mlflow  # noqa: F401, PLC0415 - notes who imports MLflow first

    return import_module(f"mlflow.{name}")


SaveFormat = Callable[[Any, Path, SaveOptions], contextlib.AbstractContextManager[dict[str, Any]]]
"""Makes ready for ``save_model``, and gives the arguments that keep pickle out."""


@contextlib.contextmanager
def own_format(value: Any, folder: Path, options: SaveOptions) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """The framework has one file format, and it holds no code."""
    yield {}


@contextlib.contextmanager
def skops(value: Any, folder: Path, options: SaveOptions) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """A file of skops: it a file of named types, and reads only the types that it is told to trust."""
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


@contextlib.contextmanager
def pt2(value: Any, folder: Path, options: SaveOptions) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    """The graph that ``torch.export`` sees on an example; as it is for predictions, without dropout."""
    if options.input_example is None:
        raise SaveError(
            "torch.export follows a model on an example. Pass input_example=, the model's input or a list "
            "of its inputs, as arrays or tensors with a batch of two or more.",
            value,
        )
    given = options.input_example
    arrays = [_column_array(item) for item in (given if isinstance(given, list | tuple) else [given])]
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


def _column_array(item: Any) -> Any:
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
    """MLflow's own switch, which is the process's: off while one model is loaded."""
    with _one_at_a_time:
        before = os.environ.get(_MAY_PICKLE)
        os.environ[_MAY_PICKLE] = "false"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_MAY_PICKLE]
            else:
                os.environ[_MAY_PICKLE] = before
