"""Convert a value to a number, and check whether that is possible without waiting for a device."""

from __future__ import annotations

import math
from typing import Any


def is_ready(value: Any) -> bool:
    """Return whether a value's number can be read without waiting for a device."""
    ready = getattr(value, "is_ready", None)  # JAX has this method
    if ready is not None:
        return bool(ready())
    device = getattr(value, "device", None)  # TensorFlow and PyTorch tell only the device
    return device is None or "cpu" in str(device).lower()


def to_number(value: Any) -> float:
    """Return the number that a value is, or contains as its only element.

    Raises:
        Exception: The value is not a number.
    """
    if isinstance(value, str | bytes | bytearray):
        raise TypeError("it is text. Log a number, or set_tags().")
    shape = tuple(getattr(value, "shape", ()))
    if shape and math.prod(shape) != 1:
        raise TypeError(f"its shape is {shape}, and one number was expected. Log its mean, or an item.")
    if shape:
        value = value[(0,) * len(shape)]
    if isinstance(value, complex) or "complex" in str(getattr(value, "dtype", "")):
        raise TypeError("it is complex. Log its absolute value, or its parts.")
    return float(value)
