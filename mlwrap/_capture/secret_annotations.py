"""Find the parameters and fields that are annotated with ``Annotated[..., Secret]``."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import typing
from functools import lru_cache
from typing import Any

from mlwrap._capture.redact import Secret

__all__ = ["annotated_fields", "annotated_params"]

_SECRET_WORD = re.compile(r"\bSecret\b")


@lru_cache(maxsize=256)
def annotated_fields(cls: type) -> frozenset[str]:
    """Return the names of the fields of a class, including its bases, that are marked as secret."""
    names: frozenset[str] = frozenset()
    for base in cls.__mro__:
        module = sys.modules.get(base.__module__)
        with contextlib.suppress(Exception):  # annotations can be computed by any code
            names |= annotated_params(inspect.get_annotations(base), vars(module) if module else {})
    return names


def annotated_params(annotations: Any, namespace: dict[str, Any]) -> frozenset[str]:
    """Return the names whose annotation contains :class:`~mlwrap.Secret`.

    Each annotation is resolved separately, so that one that can't be resolved, because its names are imported
    for type checkers only, does not affect the others. For that one the word ``Secret`` in it decides.
    """
    if not isinstance(annotations, dict):
        return frozenset()
    return frozenset(name for name, hint in annotations.items() if _is_marked(name, hint, namespace))


def _is_marked(name: str, hint: Any, namespace: dict[str, Any]) -> bool:
    try:
        probe = type("Probe", (), {"__annotations__": {name: hint}})
        return _contains_secret(typing.get_type_hints(probe, namespace, include_extras=True)[name])
    except Exception:  # noqa: BLE001  evaluating an annotation runs any code
        return isinstance(hint, str) and _SECRET_WORD.search(hint) is not None


def _contains_secret(hint: Any) -> bool:
    if hint is Secret or isinstance(hint, Secret):
        return True
    marks = getattr(hint, "__metadata__", ())
    return any(map(_contains_secret, (*marks, *typing.get_args(hint))))
