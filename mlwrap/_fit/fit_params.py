"""Collect the parameters of a ``fit``, named as in MLflow's autologging of Keras."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

_FRAMES = 40  # fewer than ten separate fit() from a callback
_DEFAULT_BATCH = 32  # Keras's default for arrays; a dataset is batched already


def fit_params(model: Any, told: Mapping[str, Any], batch_size: int | None, prefix: str) -> dict[str, Any]:
    """Return the parameters of a ``fit``, from within one of its callbacks.

    Args:
        model: The model that is trained.
        told: What Keras passes to callbacks as ``params``: ``epochs`` and ``steps``.
        batch_size: Samples per batch, if the user sets it.
        prefix: Prefix of all names.

    Returns:
        ``epochs``, ``batch_size`` and ``steps_per_epoch``, as far as known, and the optimizer's settings,
        each named ``optimizer_<setting>``.
    """
    params = {
        "epochs": told.get("epochs"),
        "batch_size": batch_size or _batch_size(model),
        "steps_per_epoch": told.get("steps"),
    }
    params = {name: value for name, value in params.items() if value is not None}
    return {f"{prefix}{name}": value for name, value in {**params, **_optimizer(model)}.items()}


def _optimizer(model: Any) -> dict[str, Any]:
    try:
        settings = dict(model.optimizer.get_config())
    except Exception:  # noqa: BLE001 - no optimizer, or a custom one without get_config()
        return {}
    return {f"optimizer_{name}": _shortest(value) for name, value in settings.items()}


def _shortest(value: Any) -> Any:
    """Return a value that was a float32 in its shortest form: 0.001, not 0.0010000000474974513."""
    if type(value) is not float:
        return value
    try:
        single = struct.pack("f", value)
        if struct.unpack("f", single)[0] == value:
            shorter = (float(f"{value:.{digits}g}") for digits in range(1, 10))
            return next((candidate for candidate in shorter if struct.pack("f", candidate) == single), value)
    except OverflowError:  # too large for a float32
        pass
    return value


def _batch_size(model: Any) -> int | None:
    """Read the batch size from the frame of the calling ``fit``; Keras does not pass it to callbacks."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect.currentframe() may return None
    for _ in range(_FRAMES):
        if frame is None:
            return None
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return _batch_size_argument(frame.f_locals)
        frame = frame.f_back
    return None


def _batch_size_argument(fit: Mapping[str, Any]) -> int | None:
    data = fit.get("x")
    for size in (
        fit.get("batch_size"),
        getattr(data, "batch_size", None),
        getattr(data, "_batch_size", None),
    ):
        try:
            if size is not None:
                return int(size)
        except Exception:  # noqa: BLE001, S112 - the data's attribute is not a size; try the next one
            continue
    return _DEFAULT_BATCH if hasattr(data, "__array__") and fit.get("steps_per_epoch") is None else None
