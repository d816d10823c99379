"""Own names to names that MLflow takes, and back.

MLflow takes letters, digits (of any script), ``_ - . : /`` and space, at most 250 characters, and only
names that stay the same as file paths: no ``a//b``, no ``./a``, no ``../a``, no ``/`` at an end
(``mlflow.utils.validation``). What does not fit is written ``-x<code point in hexadecimal>-``; so that
nothing else can look like that, a ``-`` before an ``x`` is written so too (``-x2d-``). No two names
share a result, and :func:`from_mlflow_name` gives the own name back. Names that fit are left alone.

A name that would be too long ends in ``-xz`` and 24 digits of its SHA-256 instead. No escape begins
like that, so a cut name meets no other; its own name is kept beside the value.
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
    r"|-(?=x)"  # what could be taken for one of our own escapes
    r"|^/|/(?=/|\Z)"  # an empty part of a path
    r"|^\.\.|(?:^|(?<=/))\.{1,2}(?=/|\Z)"  # a part that leads elsewhere
)
_ESCAPE = re.compile(r"-x([0-9a-f]*)-")


@functools.lru_cache(4096)  # a training logs the same few names at every step
def to_mlflow_name(name: str) -> str:
    """The name under which MLflow gets this parameter: itself wherever it fits."""
    if len(name) <= _MAX_LENGTH and _FITS.fullmatch(name):
        return name
    fitting = _WRONG.sub(_escaped, name) or "-x-"
    if len(fitting) <= _MAX_LENGTH:
        return fitting
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return fitting[: _MAX_LENGTH - len(_CUT) - _DIGITS] + _CUT + digest


def from_mlflow_name(name: str) -> str:
    """The own name behind a name made by :func:`to_mlflow_name`.

    Raises:
        ValueError: The name was cut for length, so its own name is only in ``params.json``.
    """
    if re.search(rf"{_CUT}[0-9a-f]{{{_DIGITS}}}\Z", name):
        raise ValueError(f"{name!r} was cut for length; look its own name up in params.json.")
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else "", name)


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"-x{ord(character):x}-" for character in match[0])
