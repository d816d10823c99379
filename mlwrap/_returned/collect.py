"""What lies in a returned value: containers are opened, what is in them is sorted by kind."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from mlwrap._returned.results import ResultKind, kind_of
from mlwrap._savers.figures import stands_for
from mlwrap._savers.history.fits import is_history
from mlwrap._savers.history.metrics import to_plain_number
from mlwrap._savers.identify import class_name
from mlwrap._savers.paths import named_path, result_path
from mlwrap._savers.registry import find
from mlwrap._savers.saver import Saver

_SILENT = (bool, type(None))  # answers: neither metrics nor worth a warning
_NUMPY_BOOLEANS = ("numpy.bool", "numpy.bool_")
KeyPath = tuple[str | int, ...]
"""The keys, fields and positions on the way to something."""


class Leaves(NamedTuple):
    """What was found, in the order of finding, each with its place."""

    models: list[tuple[KeyPath, Any, Saver]]
    histories: list[tuple[KeyPath, Any]]
    numbers: list[tuple[KeyPath, list[float]]]
    texts: list[tuple[KeyPath, str]]
    results: list[tuple[KeyPath, Any, ResultKind]]
    unknown: list[tuple[KeyPath, Any]]


def leaves_of(value: object, since: float) -> Leaves:
    """What lies in ``value``, as deep as it may be nested.

    Depth first, with a stack of our own: nesting may have no end that Python's own would live to see, or go
    in circles.

    Args:
        value: What the training body returned.
        since: When the run began, in seconds since the epoch: a text is a path only to what is newer.
    """
    found = Leaves([], [], [], [], [], [])
    seen: dict[object, object] = {}  # holds what it has seen: an id is only good as long as its object lives
    stack: list[tuple[KeyPath, Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, _SILENT) or class_name(item) in _NUMPY_BOOLEANS:
            continue
        if (single := to_plain_number(item)) is not None:
            found.numbers.append((path, [single]))
            continue
        item = _meant(item, since)
        if isinstance(item, str):
            found.texts.append((path, item))
            continue
        identity = _identity(item)
        if identity in seen:
            continue
        seen[identity] = item
        if saver := find(item):
            found.models.append((path, item, saver))
        elif is_history(item):
            found.histories.append((path, item))
        elif series := _series(item):
            found.numbers.append((path, series))
        elif (text := _text_of_lines(item, since)) is not None:
            found.texts.append((path, text))
        elif kind := kind_of(item):
            found.results.append((path, item, kind))
        elif (children := _children(item)) is not None:
            stack.extend(((*path, key), child) for key, child in reversed(children))
        else:
            found.unknown.append((path, item))
    return found


def _meant(item: Any, since: float) -> Any:
    """What ``item`` is to be taken for: a text that is a path for the path, axes for their figure."""
    try:
        if isinstance(item, str | bytes):
            text = str.__str__(item) if isinstance(item, str) else item  # of an Enum: what it stands for
            return result_path(text, since) or text
        return stands_for(item)
    except Exception:  # noqa: BLE001  # whatever a foreign thing does when it is looked at
        return item


def _identity(item: object) -> object:
    """Paths are the same if they lead to the same place, all else if it is the same object."""
    path = named_path(item) if isinstance(item, os.PathLike) else None
    return id(item) if path is None else os.path.abspath(path)  # noqa: PTH100  # links are not followed


def _series(item: object) -> list[float]:
    """The numbers of a list that holds nothing else."""
    series: list[float] = []
    for value in item if isinstance(item, list) else ():
        if (found := to_plain_number(value)) is None:
            return []
        series.append(found)
    return series


def _text_of_lines(item: object, since: float) -> str | None:
    """The text of a list that holds nothing else, an item on each line; ``None`` if one is a path."""
    if not isinstance(item, list) or not item or not all(isinstance(text, str) for text in item):
        return None
    texts = [_meant(text, since) for text in item]
    return "\n".join(texts) if all(isinstance(text, str) for text in texts) else None


def _children(item: Any) -> list[tuple[str | int, Any]] | None:
    # isinstance and not type(): TensorFlow wraps the containers that it tracks.
    try:
        if isinstance(item, Mapping):
            return [(str(key), item[key]) for key in item]
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return list(zip(item._fields, item, strict=True))
        if isinstance(item, Sequence | AbstractSet) and not isinstance(item, range):
            return list(enumerate(item))
        if isinstance(item, type):
            return None
        if dataclasses.is_dataclass(item):
            return [(field.name, getattr(item, field.name)) for field in dataclasses.fields(item)]
        if fields := getattr(type(item), "__attrs_attrs__", None):
            return [(field.name, getattr(item, field.name)) for field in fields]
    except Exception:  # noqa: BLE001  # a container of the user's own that can't be opened is an unknown thing
        return None
    return None
