"""Convert values to numbers, and read the numbers that a Keras ``History`` records."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from numbers import Real
from typing import Any
from weakref import WeakKeyDictionary

from mlwrap._journal.records import Metrics, now
from mlwrap._savers.history.fits import Fit, fit_of

_NUMERIC = ("float", "int", "uint", "bfloat")
_after: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def to_plain_number(value: object) -> float | None:
    """Return ``value`` as a number, or ``None``; never raises.

    Numbers are those of Python and numpy, and 0-d arrays, tensors and variables of a real type.
    Booleans and text that looks like a number do not count.
    """
    try:
        if isinstance(value, bool):
            return None
        if isinstance(value, Real | Decimal):
            return float(value)
        if tuple(getattr(value, "shape", (None,))) or not _is_numeric(value):
            return None
        return float(value)  # type: ignore[arg-type]  # a 0-d array or tensor has __float__
    except Exception:  # noqa: BLE001  # symbolic tensors, huge integers, types of other packages
        return None


def _is_numeric(value: object) -> bool:
    dtype = getattr(value, "dtype", None)
    # tf.float32 has its name in `.name`; for numpy, Keras and torch (with a prefix) str() gives it.
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.").startswith(_NUMERIC)


def is_live(history: Any) -> bool:
    """Return whether the ``fit`` of a ``History`` was logged while it ran."""
    fit = fit_of(history)
    return isinstance(fit, Fit) and fit.live_in is not None


def place_after(history: Any, epochs: int) -> int:
    """Place a ``History`` after ``epochs`` epochs of its model, unless its place is known.

    Returns:
        The number of epochs including its own.
    """
    history = fit_of(history)
    fit_epochs = list(getattr(history, "epoch", None) or ())
    if isinstance(history, Fit) and history.is_placed:
        before = history.before
    else:
        if fit_epochs:
            _after[history] = max(0, epochs - int(fit_epochs[0]))
        before = _after.get(history, 0)
    return max([epochs, *(before + int(epoch) + 1 for epoch in fit_epochs)])


def history_metrics(history: Any) -> Iterator[Metrics]:
    """Yield one record for each epoch of a ``History``, with the epoch's number in its run as the step.

    Values that were logged while the fit ran are left out. If a ``fit`` was not watched (outside a run, or
    with a ``History`` of the user's own), the epochs of a metric with fewer values than epochs are unknown
    (``validation_freq``): its values are spaced evenly.
    """
    fit = fit_of(history)
    is_watched = isinstance(fit, Fit)
    recorded_values = getattr(fit, "history", None) or {}
    values = {
        str(name): list(series)
        for name, series in recorded_values.items()
        if isinstance(series, list | tuple)
    }
    length = max((len(series) for series in values.values()), default=0)
    epochs = [int(epoch) for epoch in getattr(fit, "epoch", None) or ()]
    if len(epochs) != length:
        epochs = list(range(length))
    rows: dict[int, dict[str, float]] = {}
    for name, series in values.items():
        if is_watched and fit.is_live() and name in fit.live_names:
            continue
        interval = max(1, round(length / len(series))) if series else 1
        spaced = [epochs[min(index * interval, length) - 1] for index in range(1, len(series) + 1)]
        metric_epochs = (fit.epochs_of(name, len(series)) if is_watched else None) or spaced
        for epoch, item in zip(metric_epochs, series, strict=True):
            if (number := to_plain_number(item)) is not None:
                rows.setdefault(epoch, {})[name] = number
    when = now()
    is_placed = is_watched and fit.is_placed
    before, prefix = (fit.before, fit.prefix) if is_placed else (_after.get(fit, 0) if rows else 0, "")
    for epoch in sorted(rows):
        numbers = {f"{prefix}{name}": value for name, value in rows[epoch].items()}
        yield Metrics.of(numbers, step=before + epoch, time=when)
