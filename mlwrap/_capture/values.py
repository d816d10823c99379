"""Convert values to one leaf: plain values unchanged, data and models as type, shape and dtype.

Data and models are never iterated, never run and never moved off a device.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sized
from typing import Any

Leaf = None | bool | int | float | str | list[Any]

PLAIN = frozenset({type(None), bool, int, float, str})
"""Types whose instances are leaves without conversion."""

_MAX_INTEGER_BITS = 10_000  # Python refuses to convert integers of more than 4300 digits to text
_MAX_REPR_LENGTH = 10_000  # characters of a foreign repr that are processed
_FLOAT32 = struct.Struct("f")
_ADDRESS = re.compile(r" (?:object )?at 0x[0-9a-fA-F]+")


class Foreign(str):
    """Text made by code outside mlwrap: it is redacted, then cut short."""

    __slots__ = ()


def described(value: object) -> str:
    """Return type and size in a few words; call nothing of the value but its length, and never raise."""
    try:
        return f"{qualified(type(value))}{_size(value)}"
    except Exception:  # noqa: BLE001  a metaclass can do anything
        return "an object that can't be described"


def qualified(value: Any) -> str:
    """Return ``module.qualname`` of a class or function, without the module for builtins."""
    module, name = getattr(value, "__module__", None), value.__qualname__
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else str(name)


def _size(value: object) -> str:
    try:
        return f" of {len(value)}" if isinstance(value, Sized) else ""
    except Exception:  # noqa: BLE001  a foreign __len__ can raise anything
        return ""


# ── plain values ────────────────────────────────────────────────────────────────────────────────


def integer(value: int) -> Leaf:
    return (
        int.__index__(value)
        if value.bit_length() < _MAX_INTEGER_BITS
        else f"int of {value.bit_length()} bits"
    )


def numpy_scalar(value: Any) -> Leaf:
    scalar = value.item()
    if type(scalar) is float:
        return float(str(value))  # float32(0.1) is 0.1, not 0.10000000149011612
    return scalar if type(scalar) in PLAIN else str(value)


def shortest(value: float) -> float:
    """Return the number with the fewest digits that equals ``value`` after rounding both to float32.

    A float32 value that was converted to a Python float has the digits of a double:
    0.0003000000142492354 instead of 0.0003. A number that is not a float32 value stays unchanged.
    """
    try:
        rounded = _FLOAT32.pack(value)
    except OverflowError:  # larger than any float32
        return value
    if _FLOAT32.unpack(rounded) != (value,):
        return value
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))  # nine digits distinguish all float32 values
    return next((float(text) for text in texts if _FLOAT32.pack(float(text)) == rounded), value)


def numpy_array(value: Any) -> Leaf:
    return array(value) if value.ndim else numpy_scalar(value[()])


def binary(value: Any) -> Leaf:
    return f"{type(value).__name__} of {len(value)}"


def file(value: Any) -> Leaf:
    name = getattr(value, "name", None)
    return f"{type(value).__name__} {name}" if isinstance(name, str) else type(value).__name__


def function(value: Any) -> Leaf:
    return qualified(value)


def tensor_shape(value: Any) -> Leaf:
    return str(value)


# ── data and models ─────────────────────────────────────────────────────────────────────────────


def array(value: Any) -> Leaf:
    try:
        shape = str(tuple(value.shape))
    except (AttributeError, TypeError, ValueError):  # unknown rank
        shape = "(?)"
    dtype = getattr(value, "dtype", None)
    name = getattr(dtype, "name", None) or str(dtype or "").removeprefix("torch.")
    return f"{type(value).__name__}{shape} {name}".rstrip()


def frame(value: Any) -> Leaf:
    return f"{type(value).__name__}({' x '.join(map(str, value.shape))})"


def dataset(value: Any) -> Leaf:
    return Foreign(f"{type(value).__name__} {value.element_spec!r}")


def model(value: Any) -> Leaf:
    return qualified(type(value))


# ── other values ────────────────────────────────────────────────────────────────────────────────


def holds_data(value: object) -> bool:
    names = ("__len__", "__iter__", "__next__", "__array__", "__dlpack__")
    return any(hasattr(type(value), name) for name in names)


def anything(value: object) -> Leaf:
    """Return the type, and the repr if the class defines one; attributes could lead to a graph of objects."""
    name = qualified(type(value))
    if type(value).__repr__ is object.__repr__:
        return name
    text = _ADDRESS.sub("", repr(value)[:_MAX_REPR_LENGTH])
    return Foreign(text if type(value).__name__ in text[:200] else f"{name} {text}")
