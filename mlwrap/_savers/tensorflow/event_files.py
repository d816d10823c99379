"""Read scalars from TensorBoard event files, as Estimators and others write them."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mlwrap._journal.records import Metrics
from mlwrap._savers.history.metrics import to_plain_number
from mlwrap._savers.identify import imported
from mlwrap.errors import OptionError

_EVALUATION = re.compile(r"eval(_.*)?/?")
_FILES = "events.out.tfevents."
_COMPARED = "loss"  # tf.estimator.BestExporter compares it, too


class BestExport(NamedTuple):
    """The best of a training's evaluations.

    Attributes:
        metric: The compared metric, as ``eval/loss``: the lowest value is best.
        value: Its value.
        step: The global step of the evaluated checkpoint.
    """

    metric: str
    value: float
    step: int


def best_evaluation(model_dir: str) -> BestExport | None:
    """Return the evaluation with the lowest loss, the earliest of equal ones; ``None`` if there was none.

    Evaluations without a name count (``eval/loss``); if there are none, those of the only name. Of
    evaluations on several sets, only their author knows which one decides.
    """
    losses: dict[str, list[BestExport]] = {}
    for record in event_metrics(model_dir, training=False):
        for name, value in record.numbers().items():
            if name.endswith(f"/{_COMPARED}") and not math.isnan(value):
                losses.setdefault(name, []).append(BestExport(name, value, record.step))
    unnamed = losses.get(f"eval/{_COMPARED}")
    candidates = unnamed or (next(iter(losses.values())) if len(losses) == 1 else [])
    return min(candidates, key=lambda evaluation: (evaluation.value, evaluation.step), default=None)


def event_metrics(model_dir: str, *, training: bool = True) -> Iterator[Metrics]:
    """Return the scalars in ``model_dir``'s event files, oldest first.

    Those of training keep their names (``loss``, ``global_step/sec``); those of an evaluation are prefixed
    with its folder's name (``eval/accuracy``, ``eval_holdout/accuracy``). If training returned to an older
    checkpoint and repeated a step, the later value of that step counts. Values that are not numbers
    (histograms, images, text) are skipped, and so is an incomplete record at the end of a file.

    Args:
        model_dir: The Estimator's folder; may be remote.
        training: Whether to include training's own scalars, or only those of evaluations.
    """
    return _merged(_event_files(model_dir, training))


def folder_metrics(path: Path) -> Iterator[Metrics]:
    """Return the scalars in an event file, or in all event files in a folder and its subfolders.

    Those of a subfolder are prefixed with its name: ``validation/epoch_loss``.

    Args:
        path: The file or folder.

    Raises:
        OptionError: There is no event file, or TensorFlow is not installed.
    """
    files = [path] if path.is_file() else sorted(path.rglob(f"{_FILES}*"))
    if not files:
        raise OptionError(f"{str(path)!r} has no event files: expected files called {_FILES}… in it.")
    if importlib.util.find_spec("tensorflow") is None:
        raise OptionError(f"the event files of {str(path)!r} can't be read without TensorFlow. Install it.")
    importlib.import_module("tensorflow")
    folders = ["" if file == path else file.parent.relative_to(path).as_posix() for file in files]
    prefixes = ["" if folder in {"", "."} else f"{folder}/" for folder in folders]
    return _merged(zip(prefixes, map(str, files), strict=True))


def _merged(files: Iterable[tuple[str, str]]) -> Iterator[Metrics]:
    """Yield the scalars of several files, each with its prefix; the latest value of each step counts."""
    latest: dict[tuple[str, int], tuple[int, float]] = {}
    for prefix, file in files:
        for step, when, name, value in _scalars(file):
            previous = latest.get((prefix + name, step))
            if previous is None or when >= previous[0]:
                latest[prefix + name, step] = (when, value)
    rows: dict[tuple[int, int], dict[str, float]] = {}
    for (name, step), (when, value) in latest.items():
        rows.setdefault((when, step), {})[name] = value
    for when, step in sorted(rows):
        yield Metrics.of(rows[when, step], step=step, time=when)


def _event_files(model_dir: str, training: bool) -> Iterator[tuple[str, str]]:
    files: Any = imported("tensorflow").io.gfile
    if not files.exists(model_dir):
        return
    # A remote file system appends a slash to the names of folders.
    evaluations = {name.rstrip("/") for name in files.listdir(model_dir) if _EVALUATION.fullmatch(name)}
    prefixes = [f"{name}/" for name in sorted(evaluations)]
    for prefix in ["", *prefixes] if training else prefixes:
        folder = f"{model_dir}/{prefix}"
        if files.isdir(folder):
            for name in sorted(files.listdir(folder)):
                if name.startswith(_FILES):
                    yield prefix, f"{folder}{name}"


def _scalars(file: str) -> Iterator[tuple[int, int, str, float]]:
    tf: Any = imported("tensorflow")
    try:
        for event in tf.compat.v1.train.summary_iterator(file):
            for value in event.summary.value:
                number = _scalar(value, tf)
                if number is not None:
                    yield event.step, round(event.wall_time * 1000), value.tag, number
    except tf.errors.OpError:  # a killed process leaves an incomplete last record; those before are complete
        return


def _scalar(value: Any, tf: Any) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    return to_plain_number(tf.make_ndarray(value.tensor)) if kind == "tensor" else None
