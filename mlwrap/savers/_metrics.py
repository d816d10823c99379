"""Numbers, out of whatever they come in; and the numbers that a Keras ``History`` remembers."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from numbers import Real
from typing import Any
from weakref import WeakKeyDictionary

from mlwrap._journal import Metrics, now
from mlwrap.savers._kind import has_class

_NUMERIC = ("float", "int", "uint", "bfloat")
_after: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_live: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()


def number(value: object) -> float | None:
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


def is_history(value: object) -> bool:
    """Tell whether ``value`` is what ``fit`` of Keras 3, Keras 2 or tf_keras returns."""
    return has_class(value, "History", packages=("keras", "tf_keras"))


def goes_on(history: Any, epochs: int, prefix: str = "") -> None:
    """Say that the ``fit`` of a ``History`` is logged while it runs.

    Args:
        history: The History.
        epochs: How many there were in the run before its own, whose steps come after them.
        prefix: What stands before the names of its metrics.
    """
    if is_history(history):
        _live[history] = (epochs, prefix)


def is_live(history: Any) -> bool:
    """Whether :func:`goes_on` was told of it."""
    return is_history(history) and history in _live


def comes_after(history: Any, epochs: int) -> int:
    """Place a ``History`` after so many epochs of its model, unless it is known where it is.

    Returns:
        How many epochs there are with its own.
    """
    own = list(getattr(history, "epoch", None) or ())
    if history not in _live and own:
        _after[history] = max(0, epochs - int(own[0]))
    before = _live[history][0] if history in _live else _after.get(history, 0)
    return max([epochs, *(before + int(epoch) + 1 for epoch in own)])


def history_metrics(history: Any) -> Iterator[Metrics]:
    """One record for each epoch of a ``History``, with the epoch's own number in its run as the step.

    A metric with fewer values than epochs comes from ``validation_freq``, which the ``History`` does
    not keep: its values are placed at the even spacing that fits (every second epoch, every third).
    """
    kept = getattr(history, "history", None) or {}
    values = {name: series for name, series in kept.items() if isinstance(series, list | tuple)}
    length = max((len(series) for series in values.values()), default=0)
    epochs = list(getattr(history, "epoch", None) or ())
    if len(epochs) != length:
        epochs = list(range(length))
    rows: dict[int, dict[str, float]] = {}
    for name, series in values.items():
        every = length // len(series) if series else 1
        for index, item in enumerate(series, start=1):
            if (found := number(item)) is not None:
                rows.setdefault(index * every - 1, {})[str(name)] = found
    when = now()
    before, prefix = 0, ""
    if is_history(history):
        before, prefix = _live.get(history) or (_after.get(history, 0), "")
    for row in sorted(rows):
        numbers = {f"{prefix}{name}": value for name, value in rows[row].items()}
        yield Metrics.of(numbers, step=before + int(epochs[row]), time=when)
