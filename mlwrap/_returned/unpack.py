"""Take a returned value apart: models, numbers, histories, results to keep as files, and what nobody knows.

A training body returns what its author likes: a model, ``(model, history)``, a dictionary of both with
scores, predictions and figures among them. Containers are opened (mappings, sequences, named tuples,
dataclasses, attrs classes); what is in them is looked at, and never changed or called.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mlwrap._journal.records import Metrics, now
from mlwrap._returned.collect import KeyPath, Leaves, leaves_of
from mlwrap._returned.results import Output
from mlwrap._returned.unique_names import ArtifactPaths, UniqueNames
from mlwrap._savers.history.fits import Fit, FitLog, fit_of, identity_of, is_history, latest_fit
from mlwrap._savers.history.metrics import history_metrics, is_live, place_after
from mlwrap._savers.identify import class_name
from mlwrap._savers.registry import find, training_metrics
from mlwrap._savers.saver import Saver

_NUMBER_NAME = "result"
_HISTORY_NAME = "history"
_KERAS = "keras"  # the saver of Keras models
_EVALUATION_NAME = "evaluation"
_ESTIMATOR, _GLOBAL_STEP = "estimator", "global_step"
_EVALUATIONS = "eval"  # the folder of an Estimator's evaluations, which its metrics in MLflow begin with
_MAX_UNNAMED = 100  # a thousand predictions are data, and no metrics
_MAX_OUTPUTS = 1000  # likewise: each is a request to MLflow
_MAX_TAGS = 100
_TAG = 250  # characters of a text that is a tag
_NOT_TAGS = ("mlflow.", "mlwrap.")  # what begins so means something to others
_TAKEN = ("params.json", "traceback.txt")  # artifacts that a run has of its own
_NOT_IN_NAMES = re.compile(r"[^\w\- ]+")  # what the name of a model, and of its folder, is spared


class FoundModel(NamedTuple):
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
        outputs: What becomes an artifact: arrays, tables, figures, texts, files, each with a path of its own.
        tags: Texts of one line, by their keys.
        unknown: Where something lies that nobody knows (``"['data'][0]"``) and its type; each type once.
    """

    models: list[FoundModel]
    metrics: list[Metrics]
    outputs: list[Output]
    tags: dict[str, str]
    unknown: list[tuple[str, str]]


def unpack(value: object, *, since: float = 0.0, fits: FitLog | None = None) -> Unpacked:
    """Take ``value`` apart; never raises for what it can't make sense of, and writes nothing.

    * Numbers become metrics named by their keys (``{"test": {"loss": 0.1}}`` is ``test/loss``); one without
      a key is ``result``. They belong to step 0. A list of nothing but numbers is one metric with a
      step for each; side by side in a tuple they are metrics of their own.
      What has the name of a training's metric is an evaluation after it: ``evaluation/loss``. What an
      Estimator's ``evaluate`` gives, beside the Estimator, is ``eval/loss`` at its global step. More than
      a hundred without a key are data, and not known.
    * A history becomes one record for each epoch. Where there is only one training its metrics keep
      their names; of several, each has its model's name before it (``generator/loss``).
    * Histories of one model, with no model beside them, bring their model.
    * Where a returned Keras model was never fitted, as one that was read from a file, the fits of the run
      that are of no returned model are its trainings.
    * Arrays, tensors, tables, figures, images, bytes and paths become outputs, at most a thousand.
    * Text of one line with a key is a tag; a longer one is an output; one line without a key is a note to
      the caller, and passed over like booleans and ``None``. A list of nothing but text is one text.

    Args:
        value: What the training body returned.
        since: When the run began, in seconds since the epoch: a text is a path only to what is newer.
        fits: What was seen of the run's fits.
    """
    leaves = leaves_of(value, since)
    if not leaves.models:
        leaves.models.extend(_models_of(leaves.histories))
    models = _named_models(leaves.models)
    trainings = list(_trainings(models, leaves.histories, fits or FitLog()))
    trained = {name for record in trainings for name in record.values}
    evaluations: list[Metrics] = []
    if any(model.saver.name == _ESTIMATOR for model in models):
        evaluations, leaves.numbers[:] = _evaluations(leaves.numbers, trainings)
    unnamed = [path for path, _ in leaves.numbers if not _keys(path)]
    numbers = leaves.numbers if len(unnamed) <= _MAX_UNNAMED else [n for n in leaves.numbers if _keys(n[0])]
    unknown = _unknown(leaves.unknown)
    if len(unnamed) > _MAX_UNNAMED:
        unknown.append(("the returned value", f"a collection of {len(unnamed)} numbers without names"))
    outputs, tags = _artifacts_and_tags(leaves, models)
    for found, most, what in ((outputs, _MAX_OUTPUTS, "results"), (tags, _MAX_TAGS, "texts")):
        if len(found) > most:
            unknown.append(
                ("the returned value", f"{len(found) - most:,} more {what} than the first {most:,}")
            )
    return Unpacked(
        models=models,
        metrics=[*trainings, *evaluations, *_results(numbers, trained)],
        outputs=outputs[:_MAX_OUTPUTS],
        tags=dict(list(tags.items())[:_MAX_TAGS]),
        unknown=unknown,
    )


def _keys(path: KeyPath) -> list[str]:
    return [part for part in path if isinstance(part, str)]


def _named_models(models: list[tuple[KeyPath, Any, Saver]]) -> list[FoundModel]:
    names = UniqueNames()
    named = []
    for path, value, saver in models:
        key = _NOT_IN_NAMES.sub("_", "_".join(_keys(path))).strip()
        named.append(FoundModel(names.distinct(key or saver.default_name), value, saver))
    return named


def _models_of(histories: list[tuple[KeyPath, Any]]) -> list[tuple[KeyPath, Any, Saver]]:
    """The model of histories that all are of one."""
    models = {id(model): model for _, history in histories if (model := getattr(history, "model", None))}
    model = next(iter(models.values())) if len(models) == 1 else None
    saver = None if model is None else find(model)
    return [] if saver is None else [((), model, saver)]


def _trainings(
    models: list[FoundModel], histories: list[tuple[KeyPath, Any]], log: FitLog
) -> Iterator[Metrics]:
    """Metrics of every training found, each once: a History is often returned beside its own model.

    Several fits of one model are one training, whose epochs go on; a History with a key is its own.
    """
    own = {model.name: _own_fits(model, log) for model in models}
    claimed = {id(fit) for fits in own.values() for fit in fits}
    found = [(path, fit_of(history)) for path, history in histories]
    found = [(path, fit) for path, fit in found if id(fit) not in claimed]
    if any(model.saver.name == _KERAS and not own[model.name] for model in models):
        claimed |= {id(fit) for _, fit in found}
        found += [((), fit) for fit in log.fits if id(fit) not in claimed]
    _in_line(
        [*(fit for path, fit in found if not _keys(path)), *(fit for fits in own.values() for fit in fits)]
    )
    names = UniqueNames(model.name for model in models)
    called = {id(identity_of(model.value)): model.name for model in models}
    trainings: dict[str, list[tuple[bool, list[Metrics]]]] = {}
    for model in models:
        fits = own[model.name]
        trainings[model.name] = [(is_live(fit), list(history_metrics(fit))) for fit in fits] or [
            (False, training_metrics(model.saver, model.value))
        ]
    for path, fit in found:
        keys = "/".join(_keys(path))
        model_id = id(fit if keys else _model_of(fit))
        if model_id not in called:
            called[model_id] = names.distinct(keys or _HISTORY_NAME)
        trainings.setdefault(called[model_id], []).append((is_live(fit), list(history_metrics(fit))))
    trainings = {name: fits for name, fits in trainings.items() if any(records for _, records in fits)}
    for name, training in trainings.items():
        for live, records in training:
            for record in records:
                # What was logged live has its names already.
                yield record if live or len(trainings) == 1 else _prefixed(record, name)


def _own_fits(model: FoundModel, log: FitLog) -> list[Any]:
    """The fits of a model: those of the run, else the one that a Keras model remembers."""
    try:
        if model.saver.name != _KERAS:
            return []
        return list(log.of(model.value)) or [fit for fit in (latest_fit(model.value),) if fit is not None]
    except Exception:  # noqa: BLE001  # a property of a foreign model may do anything
        return []


def _model_of(fit: Any) -> Any:
    """What stands for the model of a fit; it may be gone already."""
    return fit.identity if isinstance(fit, Fit) else identity_of(getattr(fit, "model", None) or fit)


def _in_line(fits: list[Any]) -> None:
    """Put the fits of each model one after another, in the order in which they are given."""
    ends: dict[int, int] = {}
    for fit in dict.fromkeys(fit for fit in fits if isinstance(fit, Fit) or is_history(fit)):
        model = id(_model_of(fit))
        ends[model] = place_after(fit, ends.get(model, 0))


def _prefixed(record: Metrics, name: str) -> Metrics:
    values = {f"{name}/{key}": value for key, value in record.values.items()}
    return Metrics(values=values, step=record.step, time=record.time)


def _evaluations(
    numbers: list[tuple[KeyPath, list[float]]], trainings: list[Metrics]
) -> tuple[list[Metrics], list[tuple[KeyPath, list[float]]]]:
    """What ``Estimator.evaluate`` returned, named as in its event files; and the other numbers.

    It has a ``global_step``, which is the step. What the event files told already is not told again.
    """
    groups: dict[KeyPath, dict[str, float]] = {}
    for path, series in numbers:
        if path and isinstance(path[-1], str) and len(series) == 1:
            groups.setdefault(path[:-1], {})[path[-1]] = series[0]
    groups = {path: values for path, values in groups.items() if _GLOBAL_STEP in values}
    rest = [(path, series) for path, series in numbers if path[:-1] not in groups or not path]
    found = []
    for values in groups.values():
        step = int(values.pop(_GLOBAL_STEP))
        told = (_is_part(values, record) for record in trainings if record.step == step)
        if values and not any(told):
            named = {f"{_EVALUATIONS}/{name}": value for name, value in values.items()}
            found.append(Metrics.of(named, step=step, time=now()))
    return found, rest


def _is_part(values: dict[str, float], record: Metrics) -> bool:
    """Whether a record has all of these, under one name before them."""
    known = {name.rpartition("/")[::2]: value for name, value in record.values.items()}
    return any(all(known.get((before, n)) == v for n, v in values.items()) for before, _ in known)


def _results(numbers: list[tuple[KeyPath, list[float]]], trained: set[str]) -> Iterator[Metrics]:
    """One record for each step, of all numbers that belong to it.

    Args:
        numbers: Where they were found.
        trained: Names of metrics of the training: a number of that name is of an evaluation after it.
    """
    names = UniqueNames()
    steps: dict[int, dict[str, float]] = {}
    for path, series in numbers:
        own = "/".join(_keys(path)) or _NUMBER_NAME
        name = names.distinct(f"{_EVALUATION_NAME}/{own}" if own in trained else own)
        for step, value in enumerate(series):
            steps.setdefault(step, {})[name] = value
    when = now()
    for step, values in sorted(steps.items()):
        yield Metrics.of(values, step=step, time=when)


def _artifacts_and_tags(leaves: Leaves, models: list[FoundModel]) -> tuple[list[Output], dict[str, str]]:
    """Artifacts, and tags. No artifact has the name of a model: on some servers models are artifacts, too."""
    paths, names = ArtifactPaths((*_TAKEN, *(model.name for model in models))), UniqueNames()
    outputs, tags = [], {}
    for path, value, kind in leaves.results:
        called = "/".join(_keys(path)) or kind.called(value)
        place = paths.distinct(called, kind.suffix(value))
        outputs.append(Output(place, functools.partial(kind.write, value)))
    for path, text in leaves.texts:
        key = "/".join(_keys(path))
        if len(text) > _TAG or len(text.splitlines()) > 1 or (key.startswith(_NOT_TAGS) and text):
            outputs.append(Output(paths.distinct(key or "text", ".txt"), text))
        elif key:
            tags[names.distinct(key)] = text
    return outputs, tags


def _unknown(leaves: list[tuple[KeyPath, Any]]) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    for path, item in leaves:
        first.setdefault(class_name(item), "".join(f"[{part!r}]" for part in path) or "the returned value")
    return [(where, kind) for kind, where in first.items()]
