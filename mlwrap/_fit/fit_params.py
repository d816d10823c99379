"""What a ``fit`` is called with, named as MLflow's autologging of Keras names it."""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

_FRAMES = 40  # between fit() and a callback of its there are fewer than ten
_DEFAULT_BATCH = 32  # Keras's own for arrays; a dataset brings its batches along


def fit_params(model: Any, told: Mapping[str, Any], batch_size: int | None, prefix: str) -> dict[str, Any]:
    """The parameters of a ``fit``, seen from a callback of its.

    Args:
        model: The model that is fitted.
        told: What Keras tells its callbacks: ``epochs`` and ``steps``.
        batch_size: Samples of a batch, where the user says so.
        prefix: What stands before all names.

    Returns:
        ``epochs``, ``batch_size`` and ``steps_per_epoch``, as far as they are known, and ``optimizer_`` with
        the name of each setting of the optimizer's.
    """
    found = {
        "epochs": told.get("epochs"),
        "batch_size": batch_size or _batch_size(model),
        "steps_per_epoch": told.get("steps"),
    }
    found = {name: value for name, value in found.items() if value is not None}
    return {f"{prefix}{name}": value for name, value in {**found, **_optimizer(model)}.items()}


def _optimizer(model: Any) -> dict[str, Any]:
    try:
        settings = dict(model.optimizer.get_config())
    except Exception:  # noqa: BLE001 - there is none, or one of the user's own that tells nothing
        return {}
    return {f"optimizer_{name}": _shortest(value) for name, value in settings.items()}


def _shortest(value: Any) -> Any:
    """A number that was a float32 on the way, as it was written: 0.001 and not 0.0010000000474974513."""
    if type(value) is not float:
        return value
    try:
        single = struct.pack("f", value)
        if struct.unpack("f", single)[0] == value:
            shorter = (float(f"{value:.{digits}g}") for digits in range(1, 10))
            return next((each for each in shorter if struct.pack("f", each) == single), value)
    except OverflowError:  # too large for a float32
        pass
    return value


def _batch_size(model: Any) -> int | None:
    """Keras does not tell its callbacks: ``fit`` is asked, which called this one."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as inspect.currentframe(), which may be None
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
        except Exception:  # noqa: BLE001, S112 - a size of the data's own that is none; there may be another
            continue
    return _DEFAULT_BATCH if hasattr(data, "__array__") and fit.get("steps_per_epoch") is None else None
