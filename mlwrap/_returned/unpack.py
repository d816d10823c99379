"""Unpack a returned value into models, metrics, results to save as files, tags and unknown items.

A training function may return a model, ``(model, history)``, or a dictionary of both with scores, predictions
and figures. Mappings, sequences, named tuples, dataclasses and attrs classes are opened; the items in them
are inspected, and never changed or called.
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
from mlwrap._savers.saver_interface import Saver
from mlwrap._savers.saver_registry import find, training_metrics

_NUMBER_NAME = "result"
_HISTORY_NAME = "history"
_KERAS = "keras"  # the saver of Keras models
_EVALUATION_NAME = "evaluation"
_ESTIMATOR, _GLOBAL_STEP = "estimator", "global_step"
_EVALUATIONS = "eval"  # the folder of an Estimator's evaluations, and the prefix of their metrics in MLflow
_MAX_UNNAMED = 100  # more numbers, such as a thousand predictions, are data and not metrics
_MAX_OUTPUTS = 1000  # each one is a request to MLflow
_MAX_TAGS = 100
_MAX_TAG_LENGTH = 250  # characters; a longer text is an artifact
_RESERVED_PREFIXES = ("mlflow.", "mlwrap.")  # of tags that MLflow and mlwrap set themselves
_RESERVED_ARTIFACTS = ("params.json", "traceback.txt")  # mlwrap's own artifacts of a run
_NOT_IN_NAMES = re.compile(r"[^\w\- ]+")  # replaced in the names of models and of their folders


class FoundModel(NamedTuple):
    """A model in a returned value.

    Attributes:
        name: Its unique name: from its key if it has one, else the saver's ``default_name``.
        value: The model itself.
        saver: The saver that fits it.
    """

    name: str
    value: Any
    saver: Saver


class Unpacked(NamedTuple):
    """The contents of a returned value.

    Attributes:
        models: The models, in the order in which they were found; the same object counts once.
        metrics: The metrics of the models' training, of histories, and of numbers.
        outputs: The artifacts: arrays, tables, figures, texts and files, each with its own path.
        tags: Texts of one line, by their keys.
        unknown: The location (``"['data'][0]"``) and type of items that no saver knows; each type once.
    """

    models: list[FoundModel]
    metrics: list[Metrics]
    outputs: list[Output]
    tags: dict[str, str]
    unknown: list[tuple[str, str]]


def unpack(value: object, *, since: float = 0.0, fits: FitLog | None = None) -> Unpacked:
    """Unpack ``value``; never raises for items that it does not know, and writes nothing.

    * Numbers become metrics named by their keys (``{"test": {"loss": 0.1}}`` is ``test/loss``); a number
      without a key is ``result``. They belong to step 0. A list of only numbers is one metric with one step
      per number; numbers in a tuple are separate metrics.
      A number with the name of a training metric is an evaluation after the training: ``evaluation/loss``.
      The result of an Estimator's ``evaluate``, returned with the Estimator, is ``eval/loss`` at its global
      step. More than a hundred numbers without keys are data: they are reported as unknown.
    * A history becomes one record for each epoch. The metrics of a single training keep their names; with
      several trainings, the model's name is the prefix (``generator/loss``).
    * If only histories are returned, and all are of one model, that model is logged, too.
    * If a returned Keras model was never fitted, such as one read from a file, the run's fits that belong to
      no returned model count as its trainings.
    * Arrays, tensors, tables, figures, images, bytes and paths become outputs, at most a thousand.
    * Text of one line with a key is a tag; longer text is an output. One line without a key is a note to the
      caller, and is ignored like booleans and ``None``. A list of only text is one text.

    Args:
        value: What the training function returned.
        since: Start of the run, in seconds since the epoch. A text counts as a path only if it leads to
            something newer.
        fits: The fits that were observed in the run.
    """
    leaves = leaves_of(value, since)
    if not leaves.models:
        leaves.models.extend(_models_of(leaves.histories))
    models = _named_models(leaves.models)
    trainings = list(_trainings(models, leaves.histories, fits or FitLog()))
    trained_names = {name for record in trainings for name in record.values}
    evaluations: list[Metrics] = []
    if any(model.saver.name == _ESTIMATOR for model in models):
        evaluations, leaves.numbers[:] = _evaluations(leaves.numbers, trainings)
    unnamed = [path for path, _ in leaves.numbers if not _keys(path)]
    numbers = (
        leaves.numbers
        if len(unnamed) <= _MAX_UNNAMED
        else [named_number for named_number in leaves.numbers if _keys(named_number[0])]
    )
    unknown = _unknown(leaves.unknown)
    if len(unnamed) > _MAX_UNNAMED:
        unknown.append(("the returned value", f"a collection of {len(unnamed)} numbers without names"))
    outputs, tags = _artifacts_and_tags(leaves, models)
    for items, limit, plural in ((outputs, _MAX_OUTPUTS, "results"), (tags, _MAX_TAGS, "texts")):
        if len(items) > limit:
            unknown.append(
                ("the returned value", f"{len(items) - limit:,} more {plural} than the first {limit:,}")
            )
    return Unpacked(
        models=models,
        metrics=[*trainings, *evaluations, *_results(numbers, trained_names)],
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
    """Return the model of the histories, with its saver, if all of them belong to one model."""
    models = {id(model): model for _, history in histories if (model := getattr(history, "model", None))}
    model = next(iter(models.values())) if len(models) == 1 else None
    saver = None if model is None else find(model)
    return [] if saver is None else [((), model, saver)]


def _trainings(
    models: list[FoundModel], histories: list[tuple[KeyPath, Any]], log: FitLog
) -> Iterator[Metrics]:
    """Yield the metrics of every training once, because a History is often returned with its own model.

    Several fits of one model are one training with consecutive epochs; a History with a key is a training of
    its own.
    """
    fits_by_model = {model.name: _fits_of_model(model, log) for model in models}
    claimed = {id(fit) for fits in fits_by_model.values() for fit in fits}
    other_fits = [(path, fit_of(history)) for path, history in histories]
    other_fits = [(path, fit) for path, fit in other_fits if id(fit) not in claimed]
    if any(model.saver.name == _KERAS and not fits_by_model[model.name] for model in models):
        claimed |= {id(fit) for _, fit in other_fits}
        other_fits += [((), fit) for fit in log.fits if id(fit) not in claimed]
    _make_consecutive(
        [
            *(fit for path, fit in other_fits if not _keys(path)),
            *(fit for fits in fits_by_model.values() for fit in fits),
        ]
    )
    unique_names = UniqueNames(model.name for model in models)
    names_by_id = {id(identity_of(model.value)): model.name for model in models}
    trainings: dict[str, list[tuple[bool, list[Metrics]]]] = {}
    for model in models:
        fits = fits_by_model[model.name]
        trainings[model.name] = [(is_live(fit), list(history_metrics(fit))) for fit in fits] or [
            (False, training_metrics(model.saver, model.value))
        ]
    for path, fit in other_fits:
        keys = "/".join(_keys(path))
        model_id = id(fit if keys else _model_of(fit))
        if model_id not in names_by_id:
            names_by_id[model_id] = unique_names.distinct(keys or _HISTORY_NAME)
        trainings.setdefault(names_by_id[model_id], []).append((is_live(fit), list(history_metrics(fit))))
    trainings = {name: fits for name, fits in trainings.items() if any(records for _, records in fits)}
    for name, training in trainings.items():
        for live, records in training:
            for record in records:
                # Metrics that were logged live have their final names already.
                yield record if live or len(trainings) == 1 else _prefixed(record, name)


def _fits_of_model(model: FoundModel, log: FitLog) -> list[Any]:
    """Return the fits of a model: those of the run, else the latest one that a Keras model keeps."""
    try:
        if model.saver.name != _KERAS:
            return []
        return list(log.of(model.value)) or [fit for fit in (latest_fit(model.value),) if fit is not None]
    except Exception:  # noqa: BLE001  # a property of a foreign model may do anything
        return []


def _model_of(fit: Any) -> Any:
    """Return the object that identifies a fit's model; the model itself may no longer exist."""
    return fit.identity if isinstance(fit, Fit) else identity_of(getattr(fit, "model", None) or fit)


def _make_consecutive(fits: list[Any]) -> None:
    """Make the epochs of each model's fits consecutive, in the given order of the fits."""
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
    """Return the results of ``Estimator.evaluate``, named as in its event files, and the other numbers.

    A result has a ``global_step``, which is its step. Values that the event files contain are not repeated.
    """
    groups: dict[KeyPath, dict[str, float]] = {}
    for path, series in numbers:
        if path and isinstance(path[-1], str) and len(series) == 1:
            groups.setdefault(path[:-1], {})[path[-1]] = series[0]
    groups = {path: values for path, values in groups.items() if _GLOBAL_STEP in values}
    rest = [(path, series) for path, series in numbers if path[:-1] not in groups or not path]
    records = []
    for values in groups.values():
        step = int(values.pop(_GLOBAL_STEP))
        already_logged = (_contains(values, record) for record in trainings if record.step == step)
        if values and not any(already_logged):
            named = {f"{_EVALUATIONS}/{name}": value for name, value in values.items()}
            records.append(Metrics.of(named, step=step, time=now()))
    return records, rest


def _contains(values: dict[str, float], record: Metrics) -> bool:
    """Return whether a record contains all of these values under one common prefix."""
    logged = {name.rpartition("/")[::2]: value for name, value in record.values.items()}
    return any(
        all(logged.get((prefix, name)) == value for name, value in values.items()) for prefix, _ in logged
    )


def _results(numbers: list[tuple[KeyPath, list[float]]], trained: set[str]) -> Iterator[Metrics]:
    """Yield one record for each step, with all numbers that belong to it.

    Args:
        numbers: The numbers, each with its key path.
        trained: Names of the training's metrics: a number with such a name is from an evaluation after it.
    """
    names = UniqueNames()
    steps: dict[int, dict[str, float]] = {}
    for path, series in numbers:
        raw_name = "/".join(_keys(path)) or _NUMBER_NAME
        name = names.distinct(f"{_EVALUATION_NAME}/{raw_name}" if raw_name in trained else raw_name)
        for step, value in enumerate(series):
            steps.setdefault(step, {})[name] = value
    time_ms = now()
    for step, values in sorted(steps.items()):
        yield Metrics.of(values, step=step, time=time_ms)


def _artifacts_and_tags(leaves: Leaves, models: list[FoundModel]) -> tuple[list[Output], dict[str, str]]:
    """Return the artifacts and tags.

    No artifact has the name of a model, because some servers store models among a run's artifacts.
    """
    paths, names = ArtifactPaths((*_RESERVED_ARTIFACTS, *(model.name for model in models))), UniqueNames()
    outputs, tags = [], {}
    for path, value, kind in leaves.results:
        name = "/".join(_keys(path)) or kind.called(value)
        artifact_path = paths.distinct(name, kind.suffix(value))
        outputs.append(Output(artifact_path, functools.partial(kind.write, value)))
    for path, text in leaves.texts:
        key = "/".join(_keys(path))
        if (
            len(text) > _MAX_TAG_LENGTH
            or len(text.splitlines()) > 1
            or (key.startswith(_RESERVED_PREFIXES) and text)
        ):
            outputs.append(Output(paths.distinct(key or "text", ".txt"), text))
        elif key:
            tags[names.distinct(key)] = text
    return outputs, tags


def _unknown(leaves: list[tuple[KeyPath, Any]]) -> list[tuple[str, str]]:
    first: dict[str, str] = {}
    for path, item in leaves:
        first.setdefault(class_name(item), "".join(f"[{part!r}]" for part in path) or "the returned value")
    return [(where, kind) for kind, where in first.items()]
