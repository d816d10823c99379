"""Find out what a ``fit`` was fed: types and shapes of the data as the user passed them.

Keras casts arrays to its own float type before anything is traced, so neither a model nor its graph knows the
original types. The arguments of ``fit`` do, while it runs.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any

from mlwrap._savers.identify import has_class, imported

_FRAMES = 40  # fewer than ten are between fit() and its History
_WRAPPER = "error_handler"  # Keras's wrapper of fit(), which has the data before the validation split


@dataclass(frozen=True)
class FedArray:
    """The type and shape of an array: of one batch, or of all examples.

    Attributes:
        dtype: numpy's name for its type; text is ``str``.
        shape: Its sizes, the batch size first; ``None`` for a size that a dataset does not declare.
        columns: The column names, if the data are a frame of numbers.
    """

    dtype: str
    shape: tuple[int | None, ...]
    columns: tuple[str, ...] = ()


def fed_to_fit(model: Any) -> dict[str, FedArray] | None:
    """Return what a model's ``fit``, running further up the call stack, was fed.

    Returns:
        The same as :func:`fed_by`; ``None`` if it is not known.
    """
    for frame, _ in islice(traceback.walk_stack(inspect.currentframe()), _FRAMES):
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return fed_by(_data_argument(frame, model))
    return None


def _data_argument(fit: FrameType, model: Any) -> Any:
    """Return the data that a ``fit`` was called with."""
    outer = fit.f_back
    if outer is not None and outer.f_code.co_name == _WRAPPER:
        args, kwargs = outer.f_locals.get("args", ()), outer.f_locals.get("kwargs", {})
        if args and args[0] is model:
            return args[1] if len(args) > 1 else kwargs.get("x")
    return fit.f_locals.get("x")


def fed_by(data: Any) -> dict[str, FedArray] | None:
    """Return types and shapes of data.

    Args:
        data: An array, a mapping of names to arrays, a sequence of arrays, a frame, or a dataset of batches.

    Returns:
        Each array by its name, by its position in a sequence (``"0"``), or by ``""`` if it is the only one;
        ``None`` for any other kind of data.
    """
    try:
        if (batches := getattr(data, "element_spec", None)) is not None:  # a tf.data.Dataset
            data = batches[0] if isinstance(batches, tuple) else batches
        if isinstance(data, Mapping):
            return {str(name): _describe_data(part) for name, part in data.items()}
        if isinstance(data, list | tuple):
            return {str(position): _describe_data(part) for position, part in enumerate(data)}
        return {"": _describe_data(data)}
    except Exception:  # noqa: BLE001 - an object of another package may raise anything
        return None


def _describe_data(data: Any) -> FedArray:
    if has_class(data, "DataFrame", packages=("pandas",)):
        # The type that to_numpy() gives, which is what stock MLflow passes on.
        dtype = imported("numpy").result_type(*data.dtypes)
        is_plain = dtype.kind in "iuf" and all(isinstance(name, str) for name in data.columns)
        return FedArray(dtype.name, tuple(data.shape), tuple(data.columns) if is_plain else ())
    name = str(getattr(data.dtype, "name", data.dtype)).removeprefix("torch.")
    kind = getattr(data.dtype, "kind", "")
    return FedArray("str" if kind in ("U", "S") or name == "string" else name, tuple(data.shape))
