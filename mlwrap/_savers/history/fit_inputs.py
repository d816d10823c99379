"""What a ``fit`` was fed: types and shapes of the data as the user gave it.

Keras casts arrays to its own type of float before anything is traced, so neither a model nor its graph tells
what they were. The call of ``fit`` does, while it runs.
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

_FRAMES = 40  # between fit() and its History there are fewer than ten
_ENTRANCE = "error_handler"  # Keras's wrapper of fit(), which holds the data before a part is split off


@dataclass(frozen=True)
class FedArray:
    """An array of a batch, or of all examples.

    Attributes:
        dtype: numpy's name for its type; text is ``str``.
        shape: Its sizes, that of the batch first; ``None`` where a dataset does not tell one.
        columns: Of a frame of numbers the names of its columns.
    """

    dtype: str
    shape: tuple[int | None, ...]
    columns: tuple[str, ...] = ()


def fed_to_fit(model: Any) -> dict[str, FedArray] | None:
    """What the ``fit`` of a model that runs right now, further up the stack, was given.

    Returns:
        As :func:`fed_by`; ``None`` where that is not known.
    """
    for frame, _ in islice(traceback.walk_stack(inspect.currentframe()), _FRAMES):
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return fed_by(_data_argument(frame, model))
    return None


def _data_argument(fit: FrameType, model: Any) -> Any:
    """The data that a ``fit`` was called with."""
    outer = fit.f_back
    if outer is not None and outer.f_code.co_name == _ENTRANCE:
        args, kwargs = outer.f_locals.get("args", ()), outer.f_locals.get("kwargs", {})
        if args and args[0] is model:
            return args[1] if len(args) > 1 else kwargs.get("x")
    return fit.f_locals.get("x")


def fed_by(data: Any) -> dict[str, FedArray] | None:
    """Types and shapes of data.

    Args:
        data: An array, a mapping of names to arrays, a sequence of arrays, a frame, or a dataset of batches.

    Returns:
        Each array by its name, by its place in a sequence (``"0"``), or ``""`` where it is alone; ``None``
        for what is none of these.
    """
    try:
        if (batches := getattr(data, "element_spec", None)) is not None:  # a tf.data.Dataset
            data = batches[0] if isinstance(batches, tuple) else batches
        if isinstance(data, Mapping):
            return {str(name): _describe_data(part) for name, part in data.items()}
        if isinstance(data, list | tuple):
            return {str(place): _describe_data(part) for place, part in enumerate(data)}
        return {"": _describe_data(data)}
    except Exception:  # noqa: BLE001 - whatever a foreign thing does when it is looked at
        return None


def _describe_data(data: Any) -> FedArray:
    if has_class(data, "DataFrame", packages=("pandas",)):
        # What to_numpy() makes of it, which is what stock MLflow hands on.
        dtype = imported("numpy").result_type(*data.dtypes)
        is_plain = dtype.kind in "iuf" and all(isinstance(name, str) for name in data.columns)
        return FedArray(dtype.name, tuple(data.shape), tuple(data.columns) if is_plain else ())
    name = str(getattr(data.dtype, "name", data.dtype)).removeprefix("torch.")
    kind = getattr(data.dtype, "kind", "")
    return FedArray("str" if kind in ("U", "S") or name == "string" else name, tuple(data.shape))
