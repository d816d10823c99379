"""Collect the contents of a returned value: open its containers and sort the items by kind."""

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
from mlwrap._savers.saver_interface import Saver
from mlwrap._savers.saver_registry import find

_SILENT = (bool, type(None))  # neither metrics nor worth a warning
_NUMPY_BOOLEANS = ("numpy.bool", "numpy.bool_")
KeyPath = tuple[str | int, ...]
"""The keys, fields and positions that lead to an item in a returned value."""


class Leaves(NamedTuple):
    """The items of a returned value, in the order in which they were found, each with its key path."""

    models: list[tuple[KeyPath, Any, Saver]]
    histories: list[tuple[KeyPath, Any]]
    numbers: list[tuple[KeyPath, list[float]]]
    texts: list[tuple[KeyPath, str]]
    results: list[tuple[KeyPath, Any, ResultKind]]
    unknown: list[tuple[KeyPath, Any]]


def leaves_of(value: object, since: float) -> Leaves:
    """Return all items in ``value``, at any depth.

    The search is depth-first with its own stack, because a value may be nested deeper than Python's recursion
    limit, or contain itself.

    Args:
        value: What the training function returned.
        since: Start of the run, in seconds since the epoch. A text counts as a path only if it leads to
            something newer.
    """
    leaves = Leaves([], [], [], [], [], [])
    seen: dict[object, object] = {}  # holds the objects too: an id is unique only while its object lives
    stack: list[tuple[KeyPath, Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, _SILENT) or class_name(item) in _NUMPY_BOOLEANS:
            continue
        if (single := to_plain_number(item)) is not None:
            leaves.numbers.append((path, [single]))
            continue
        item = _resolved(item, since)
        if isinstance(item, str):
            leaves.texts.append((path, item))
            continue
        identity = _identity(item)
        if identity in seen:
            continue
        seen[identity] = item
        if saver := find(item):
            leaves.models.append((path, item, saver))
        elif is_history(item):
            leaves.histories.append((path, item))
        elif series := _series(item):
            leaves.numbers.append((path, series))
        elif (text := _text_of_lines(item, since)) is not None:
            leaves.texts.append((path, text))
        elif kind := kind_of(item):
            leaves.results.append((path, item, kind))
        elif (children := _children(item)) is not None:
            stack.extend(((*path, key), child) for key, child in reversed(children))
        else:
            leaves.unknown.append((path, item))
    return leaves


def _resolved(item: Any, since: float) -> Any:
    """Return what ``item`` stands for: the path for a text that is one, the figure for its axes."""
    try:
        if isinstance(item, str | bytes):
            text = str.__str__(item) if isinstance(item, str) else item  # the value of an Enum member
            return result_path(text, since) or text
        return stands_for(item)
    except Exception:  # noqa: BLE001  # a foreign object may raise anything when it is inspected
        return item


def _identity(item: object) -> object:
    """Return a key that is equal for paths to the same place, and for the same object otherwise."""
    path = named_path(item) if isinstance(item, os.PathLike) else None
    return id(item) if path is None else os.path.abspath(path)  # noqa: PTH100  # links are not followed


def _series(item: object) -> list[float]:
    """Return the numbers of a list that holds only numbers; an empty list for any other item."""
    series: list[float] = []
    for value in item if isinstance(item, list) else ():
        if (number := to_plain_number(value)) is None:
            return []
        series.append(number)
    return series


def _text_of_lines(item: object, since: float) -> str | None:
    """Return the text of a list that holds only text, an item on each line; ``None`` if one is a path."""
    if not isinstance(item, list) or not item or not all(isinstance(text, str) for text in item):
        return None
    texts = [_resolved(text, since) for text in item]
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
    except Exception:  # noqa: BLE001  # a user's container that can't be opened counts as unknown
        return None
    return None
