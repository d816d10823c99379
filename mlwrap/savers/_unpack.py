"""Take a returned value apart: models, numbers, histories, and what nobody knows.

A training body returns what its author likes: a model, ``(model, history)``, a dictionary of both with
scores among them. Containers are opened (mappings, sequences, named tuples, dataclasses); what is in
them is looked at, and never changed or called.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from mlwrap._journal import Metrics, now
from mlwrap.savers._kind import class_name
from mlwrap.savers._metrics import history_metrics, is_history, number
from mlwrap.savers._registry import find, remembered
from mlwrap.savers._saver import Saver

_NUMBER_NAME = "result"
_HISTORY_NAME = "history"
_EVALUATION_NAME = "evaluation"
_MOST_UNNAMED = 100  # a thousand predictions are data, and no metrics
_SILENT = (str, bytes, bool, type(None))  # answers and notes: neither metrics nor worth a warning
_NUMPY_BOOLEANS = ("numpy.bool", "numpy.bool_")
_NOT_IN_NAMES = re.compile(r"[^\w\- ]+")  # what the name of a model, and of its folder, is spared
_Path = tuple[str | int, ...]


class Found(NamedTuple):
    """A model in a returned value.

    Attributes:
        name: From its key where it has one, else the saver's ``default_name``; distinct.
        value: The model itself.
        saver: The saver that fits it.
    """

    name: str
    value: Any
    saver: Saver


class Unpacked(NamedTuple):
    """What was in a returned value.

    Attributes:
        models: In the order in which they were found; the same object counts once.
        metrics: Of the models' own training, of histories, and of numbers.
        unknown: Where something lies that nobody knows (``"['data'][0]"``) and its type; each type once.
    """

    models: list[Found]
    metrics: list[Metrics]
    unknown: list[tuple[str, str]]


class _Leaves(NamedTuple):
    models: list[tuple[_Path, Any, Saver]]
    histories: list[tuple[_Path, Any]]
    numbers: list[tuple[_Path, list[float]]]
    unknown: list[tuple[_Path, Any]]


def unpack(value: object, *, name: str | None = None) -> Unpacked:
    """Take ``value`` apart; never raises for what it can't make sense of.

    * Numbers become metrics named by their keys (``{"test": {"loss": 0.1}}`` is ``test/loss``); one without
      a key is ``result``. They belong to step 0. A list of nothing but numbers is one metric with a
      step for each; side by side in a tuple they are metrics of their own.
      What has the name of a training's metric is an evaluation after it: ``evaluation/loss``. More than
      a hundred without a key are data, and not known.
    * A history becomes one record for each epoch. Where there is only one training its metrics keep
      their names; of several, each has its model's name before it (``generator/loss``).
    * Text, bytes, booleans and ``None`` are passed over quietly.

    Args:
        value: What the training body returned.
        name: What a single model is to be called; of several without keys, what they are named after.
    """
    leaves = _leaves(value)
    models = _named_models(leaves.models, name)
    trainings = list(_trainings(models, leaves.histories))
    trained = {name for record in trainings for name in record.values}
    unnamed = [path for path, _ in leaves.numbers if not _keys(path)]
    numbers = leaves.numbers if len(unnamed) <= _MOST_UNNAMED else [n for n in leaves.numbers if _keys(n[0])]
    unknown = _unknown(leaves.unknown)
    if len(unnamed) > _MOST_UNNAMED:
        unknown.append(("the returned value", f"a collection of {len(unnamed)} numbers without names"))
    return Unpacked(models=models, metrics=[*trainings, *_results(numbers, trained)], unknown=unknown)


def _leaves(value: object) -> _Leaves:
    """Walk depth first with a stack of our own: nesting may be deep, or go in circles."""
    found = _Leaves([], [], [], [])
    seen: dict[int, object] = {}  # holds what it has seen, for an id is only good as long as its object lives
    stack: list[tuple[_Path, Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, _SILENT) or class_name(item) in _NUMPY_BOOLEANS:
            continue
        if (single := number(item)) is not None:
            found.numbers.append((path, [single]))
            continue
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if saver := find(item):
            found.models.append((path, item, saver))
        elif is_history(item):
            found.histories.append((path, item))
        elif series := _series(item):
            found.numbers.append((path, series))
        elif (children := _children(item)) is not None:
            stack.extend(((*path, key), child) for key, child in reversed(children))
        else:
            found.unknown.append((path, item))
    return found


def _series(item: object) -> list[float]:
    """The numbers of a list that holds nothing else."""
    series: list[float] = []
    for value in item if isinstance(item, list) else ():
        if (found := number(value)) is None:
            return []
        series.append(found)
    return series


def _children(item: Any) -> list[tuple[str | int, Any]] | None:
    # isinstance and not type(): TensorFlow wraps the containers that it tracks.
    try:
        if isinstance(item, Mapping):
            return [(str(key), item[key]) for key in item]
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return list(zip(item._fields, item, strict=True))
        if isinstance(item, Sequence | AbstractSet) and not isinstance(item, bytearray | memoryview | range):
            return list(enumerate(item))
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return [(field.name, getattr(item, field.name)) for field in dataclasses.fields(item)]
    except Exception:  # noqa: BLE001  # a container of the user's own that can't be opened is an unknown thing
        return None
    return None


def _keys(path: _Path) -> list[str]:
    return [part for part in path if isinstance(part, str)]


class _Names:
    """Gives each name once; a name that comes again gets a number."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._times: dict[str, int] = dict.fromkeys(taken, 1)

    def distinct(self, name: str) -> str:
        """``name``, or ``name_2`` and so on where it is taken."""
        chosen, times = name, self._times.get(name, 0)
        while chosen in self._times:
            times += 1
            chosen = f"{name}_{times}"
        self._times[name] = times or 1
        self._times.setdefault(chosen, 1)
        return chosen


def _named_models(models: list[tuple[_Path, Any, Saver]], name: str | None) -> list[Found]:
    names = _Names()
    found = []
    for path, value, saver in models:
        keys = [] if name and len(models) == 1 else _keys(path)
        key = _NOT_IN_NAMES.sub("_", "_".join(keys)).strip()
        found.append(Found(names.distinct(key or name or saver.default_name), value, saver))
    return found


def _trainings(models: list[Found], histories: list[tuple[_Path, Any]]) -> Iterator[Metrics]:
    """Metrics of every training found, each once: a History is often returned beside its own model."""
    claimed = {id(_own_history(model)) for model in models}
    names = _Names(model.name for model in models)
    trainings = [(model.name, remembered(model.saver, model.value)) for model in models]
    for path, history in histories:
        if id(history) not in claimed:
            name = names.distinct("/".join(_keys(path)) or _HISTORY_NAME)
            trainings.append((name, list(history_metrics(history))))
    trainings = [(name, records) for name, records in trainings if records]
    for name, records in trainings:
        for record in records:
            yield record if len(trainings) == 1 else _prefixed(record, name)


def _own_history(model: Found) -> Any:
    try:
        return model.value.history
    except Exception:  # noqa: BLE001  # a property of a foreign model may do anything
        return None


def _prefixed(record: Metrics, name: str) -> Metrics:
    values = {f"{name}/{key}": value for key, value in record.values.items()}
    return Metrics(values=values, step=record.step, time=record.time)


def _results(numbers: list[tuple[_Path, list[float]]], trained: set[str]) -> Iterator[Metrics]:
    """One record for each step, of all numbers that belong to it.

    Args:
        numbers: Where they were found.
        trained: Names of metrics of the training: a number of that name is of an evaluation after it.
    """
    names = _Names()
    steps: dict[int, dict[str, float]] = {}
    for path, series in numbers:
        own = "/".join(_keys(path)) or _NUMBER_NAME
        name = names.distinct(f"{_EVALUATION_NAME}/{own}" if own in trained else own)
        for step, value in enumerate(series):
            steps.setdefault(step, {})[name] = value
    when = now()
    for step, values in sorted(steps.items()):
        yield Metrics.of(values, step=step, time=when)


def _unknown(leaves: list[tuple[_Path, Any]]) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    for path, item in leaves:
        first.setdefault(class_name(item), "".join(f"[{part!r}]" for part in path) or "the returned value")
    return [(where, kind) for kind, where in first.items()]
