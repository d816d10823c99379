"""Encode names so that MLflow accepts them, and decode them.

MLflow accepts letters, digits (of any script), ``_ - . : /`` and space, at most 250 characters, and only
names that stay the same as file paths: no ``a//b``, no ``./a``, no ``../a``, no ``/`` at an end
(``mlflow.utils.validation``). Other characters are encoded as ``-x<code point in hexadecimal>-``. To keep
that unambiguous, a ``-`` before an ``x`` is encoded, too (``-x2d-``). No two names have the same result, and
:func:`from_mlflow_name` returns the original name. Valid names stay unchanged.

A name that would be too long ends in ``-xz`` and 24 digits of its SHA-256 instead. No escape begins with
``-xz``, so a cut name equals no other name; its original name is stored with the value.
"""

from __future__ import annotations

import functools
import hashlib
import re

__all__ = ["from_mlflow_name", "to_mlflow_name"]

_MAX_LENGTH = 250
_CUT = "-xz"
_DIGITS = 24
_FITS = re.compile(r"\w+(?:[._ ]\w+)*")
_WRONG = re.compile(
    r"[^\w.\- :/]"  # a character that MLflow refuses
    r"|-(?=x)"  # the start of mlwrap's own escapes
    r"|^/|/(?=/|\Z)"  # an empty part of a path
    r"|^\.\.|(?:^|(?<=/))\.{1,2}(?=/|\Z)"  # a part that changes the path
)
_ESCAPE = re.compile(r"-x([0-9a-f]*)-")


@functools.lru_cache(4096)  # a training logs the same few names at every step
def to_mlflow_name(name: str) -> str:
    """Encode a name for MLflow; a valid name stays unchanged."""
    if len(name) <= _MAX_LENGTH and _FITS.fullmatch(name):
        return name
    encoded = _WRONG.sub(_escaped, name) or "-x-"
    if len(encoded) <= _MAX_LENGTH:
        return encoded
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return encoded[: _MAX_LENGTH - len(_CUT) - _DIGITS] + _CUT + digest


def from_mlflow_name(name: str) -> str:
    """Return the original name for a result of :func:`to_mlflow_name`.

    Raises:
        ValueError: The name was cut for length, so the original name is only in ``params.json``.
    """
    if re.search(rf"{_CUT}[0-9a-f]{{{_DIGITS}}}\Z", name):
        raise ValueError(f"{name!r} was cut for length; look its own name up in params.json.")
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "", name)


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"-x{ord(character):x}-" for character in match[0])
