"""Numbers, out of whatever they come in; and the numbers that a Keras ``History`` remembers."""

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
    """The number that ``value`` is, or ``None``; never raises.

    Numbers are those of Python and numpy, and 0-d arrays, tensors and variables of a real type.
    Booleans are answers, not measurements, and text that looks like a number is text.
    """
    try:
        if isinstance(value, bool):
            return None
        if isinstance(value, Real | Decimal):
            return float(value)
        if tuple(getattr(value, "shape", (None,))) or not _is_numeric(value):
            return None
        return float(value)  # type: ignore[arg-type]  # a 0-d array or tensor has __float__
    except Exception:  # noqa: BLE001  # symbolic tensors, huge integers, foreign types: no number, no harm
        return None


def _is_numeric(value: object) -> bool:
    dtype = getattr(value, "dtype", None)
    # tf.float32 says its name in `.name`, numpy's and Keras's types in str(), torch's with a prefix.
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.").startswith(_NUMERIC)


def is_live(history: Any) -> bool:
    """Whether the ``fit`` of a ``History`` was logged while it ran."""
    fit = fit_of(history)
    return isinstance(fit, Fit) and fit.live_in is not None


def place_after(history: Any, epochs: int) -> int:
    """Place a ``History`` after so many epochs of its model, unless it is known where it is.

    Returns:
        How many epochs there are with its own.
    """
    history = fit_of(history)
    own = list(getattr(history, "epoch", None) or ())
    if isinstance(history, Fit) and history.is_placed:
        before = history.before
    else:
        if own:
            _after[history] = max(0, epochs - int(own[0]))
        before = _after.get(history, 0)
    return max([epochs, *(before + int(epoch) + 1 for epoch in own)])


def history_metrics(history: Any) -> Iterator[Metrics]:
    """One record for each epoch of a ``History``, with the epoch's own number in its run as the step.

    What was logged while it ran is left out. Of a ``fit`` that was not watched (outside a run, or with a
    ``History`` of the user's own), a metric with fewer values than epochs comes from ``validation_freq``,
    which the ``History`` does not keep: its values are placed at the even spacing that fits.
    """
    fit = fit_of(history)
    is_watched = isinstance(fit, Fit)
    kept = getattr(fit, "history", None) or {}
    values = {str(name): list(series) for name, series in kept.items() if isinstance(series, list | tuple)}
    length = max((len(series) for series in values.values()), default=0)
    epochs = [int(epoch) for epoch in getattr(fit, "epoch", None) or ()]
    if len(epochs) != length:
        epochs = list(range(length))
    rows: dict[int, dict[str, float]] = {}
    for name, series in values.items():
        if is_watched and fit.is_live() and name in fit.live_names:
            continue
        every = max(1, round(length / len(series))) if series else 1
        spaced = [epochs[min(index * every, length) - 1] for index in range(1, len(series) + 1)]
        places = (fit.epochs_of(name, len(series)) if is_watched else None) or spaced
        for epoch, item in zip(places, series, strict=True):
            if (found := to_plain_number(item)) is not None:
                rows.setdefault(epoch, {})[name] = found
    when = now()
    is_placed = is_watched and fit.is_placed
    before, prefix = (fit.before, fit.prefix) if is_placed else (_after.get(fit, 0) if rows else 0, "")
    for epoch in sorted(rows):
        numbers = {f"{prefix}{name}": value for name, value in rows[epoch].items()}
        yield Metrics.of(numbers, step=before + epoch, time=when)
