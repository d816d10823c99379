"""What an entry of the zoo is, and how one is declared.

A family of models is a file in ``models/``, written as its author would write a script. It is run as
``__main__``, as Python runs a script, so that no other process can import what it defines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlwrap import tracked_training

MODELS = Path(__file__).parent / "models"
EXPERIMENT = "zoo"


class Entry(NamedTuple):
    """A model of the zoo.

    Attributes:
        name: Of the row, and of the run.
        stands_for: What published code it is like.
        train: The tracked training.
        feed: What it predicts from: an array, a dictionary of arrays, or ``None`` where no data goes in.
        predict: What it predicts in the process that trained it, of the model and the feed.
        of: The model in what the training returned.
        gap: What is known not to work, and stands in the page until it does.
    """

    name: str
    stands_for: str
    train: Any
    feed: Any
    predict: Callable[[Any, Any], Any]
    of: Callable[[Any], Any]
    gap: str


_entries: list[Entry] = []


def zoo(
    stands_for: str,
    feed: Any = None,
    *,
    predict: Callable[[Any, Any], Any] | None = None,
    of: Callable[[Any], Any] = lambda returned: returned,
    gap: str = "",
    **options: Any,
) -> Callable[[Callable[[], Any]], Any]:
    """Declare a training, which takes no arguments and returns what a user's would.

    Args:
        stands_for: What published code it is like.
        feed: What its model predicts from.
        predict: What the model predicts where it was trained; by default as its kind does.
        of: The model in what the training returns.
        gap: What is known not to work.
        **options: For ``tracked_training``.
    """

    def declare(function: Callable[[], Any]) -> Any:
        name = function.__name__.replace("_", " ").strip()
        tracked = tracked_training(name=name, experiment=EXPERIMENT, **options)(function)
        _entries.append(Entry(name, stands_for, tracked, feed, predict or predictions, of, gap))
        return tracked

    return declare


def entries_of(family: str) -> list[Entry]:
    """Run a family's script; gives what it declares."""
    _entries.clear()
    path = MODELS / f"{family}.py"
    exec(compile(path.read_text(), str(path), "exec"), {"__name__": "__main__", "__file__": str(path)})
    return list(_entries)


def predictions(model: Any, feed: Any) -> Any:
    """What a model predicts where it was trained: called, which takes less time than ``predict``."""
    if feed is None:
        return None
    tensors = (
        {name: _tensor(part) for name, part in feed.items()} if isinstance(feed, dict) else _tensor(feed)
    )
    return model(tensors, training=False) if hasattr(model, "predict") else model(tensors)


def _tensor(array: Any) -> Any:
    """TensorFlow's, where that is: Keras 3 takes no text of numpy's."""
    tensorflow: Any = sys.modules.get("tensorflow")
    return tensorflow.constant(np.asarray(array).tolist(), _dtype(array)) if tensorflow else array


def _dtype(array: Any) -> str:
    dtype = np.asarray(array).dtype
    return "string" if dtype.kind in "OSU" else dtype.name


def plain(result: Any) -> Any:
    """A prediction as JSON has it: lists, in lists or dictionaries of such."""
    if result is None:
        return None
    if isinstance(result, Mapping):
        return {str(name): plain(part) for name, part in result.items()}
    if isinstance(result, list | tuple):
        return {"outputs": [plain(part) for part in result]}
    if hasattr(result, "detach"):
        result = result.detach().cpu()
    array = np.asarray(result)
    if array.dtype.kind in "OS":
        return np.vectorize(_text)(array).tolist()
    return array.astype("float64").tolist() if array.dtype.kind not in "biuU" else array.tolist()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
