"""Record the epochs of each Keras ``fit`` during a run, through ``History.on_epoch_end``.

A ``History`` does not keep the epoch of each value (``validation_freq=``). ``evaluate()`` of Keras 2 and
tf_keras drops the ``History`` of ``fit``, and a model that was read from a file has none. So mlwrap records
what each ``History`` receives while a run lasts; it changes nothing else of Keras.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import wrapt

from mlwrap._savers.history.fit_inputs import fed_to_fit
from mlwrap._savers.identify import has_class

_MODULES = ("keras.src.callbacks", "tf_keras.src.callbacks")
_fits: WeakKeyDictionary[Any, Fit] = WeakKeyDictionary()  # by History
_models: WeakKeyDictionary[Any, list[Fit]] = WeakKeyDictionary()  # the latest fit of each model
_identities: WeakKeyDictionary[Any, object] = WeakKeyDictionary()
_current: Callable[[], FitLog | None] | None = None


class Fit:
    """One ``fit``, as its ``History`` records it; does not keep the model alive.

    Attributes:
        history: The values of each metric: the dictionary of the ``History`` itself.
        epochs: The epoch of each value, by metric.
        before: The number of steps in the run before epoch 0 of this fit.
        is_placed: Whether ``before`` is known.
        prefix: The prefix of its metrics' names.
        live_in: The fits of the run that it is logged to while it runs.
        live_names: The metrics that are logged while it runs.
        fed: The data that it was fed, as :func:`mlwrap._savers.history.fit_inputs.fed_by` returns it;
            ``None`` if that is not known.
        identity: An object that identifies the model, also after the model is gone.
    """

    def __init__(self, history: Any) -> None:
        self.history: dict[str, list[Any]] = history.history
        self.epochs: dict[str, list[int]] = {}
        self.before, self.prefix, self.is_placed = 0, "", False
        self.live_in: FitLog | None = None
        self.live_names: set[str] = set()
        self.fed = fed_to_fit(history.model)
        self._model = weakref.ref(history.model)
        self.identity = _identities.setdefault(history.model, object())

    @property
    def model(self) -> Any:
        """The model; ``None`` once it is gone."""
        return self._model()

    @property
    def epoch(self) -> list[int]:
        """The epochs so far, as a ``History`` has them."""
        return sorted(set(itertools.chain.from_iterable(self.epochs.values())))

    def is_live(self) -> bool:
        """Return whether the current run, or any run if none is current, has its values already."""
        log = _current() if _current is not None else None
        return self.live_in is not None and log in {None, self.live_in}

    def epochs_of(self, name: str, count: int) -> list[int] | None:
        """Return the epochs of a metric's ``count`` values; ``None`` unless each was seen exactly once."""
        epochs = self.epochs.get(name, [])
        is_complete = len(epochs) == count and all(a < b for a, b in itertools.pairwise(epochs))
        return epochs if is_complete else None


def fed_to(model: Any) -> Any:
    """Return what a model's latest watched ``fit`` was fed; ``None`` if that is not known."""
    fit = latest_fit(model)
    return fit.fed if isinstance(fit, Fit) else None


class FitLog:
    """The fits of one run, in order."""

    def __init__(self) -> None:
        self.fits: list[Fit] = []

    def of(self, model: Any) -> list[Fit]:
        """Return the fits of one model."""
        return [fit for fit in self.fits if fit.model is model]

    def add(self, fit: Fit, epoch: int) -> None:
        """Add a fit that begins with ``epoch``; its steps follow those of its model's earlier fits."""
        ends = [other.before + other.epoch[-1] + 1 for other in self.of(fit.model) if other.epoch]
        fit.before, fit.is_placed = max(0, max(ends, default=0) - epoch), True
        self.fits.append(fit)


def is_history(value: object) -> bool:
    """Return whether ``value`` is a ``History`` of Keras 3, Keras 2 or tf_keras."""
    return has_class(value, "History", packages=("keras", "tf_keras"))


def identity_of(model: Any) -> Any:
    """Return the ``identity`` of a model's fits; the model itself if no fit was watched."""
    try:
        return _identities.get(model, model)
    except TypeError:  # the model is not hashable
        return model


def fit_of(history: Any) -> Any:
    """Return the ``Fit`` of a watched ``History``, else the ``History`` itself."""
    return _fits.get(history, history) if is_history(history) else history


def latest_fit(model: Any) -> Any:
    """Return the last fit that a model records, or that was watched; ``None`` if there was none."""
    history = getattr(model, "history", None)
    if is_history(history) and getattr(history, "epoch", None):
        return fit_of(history)
    with contextlib.suppress(TypeError):  # the model is not hashable
        return next(iter(_models.get(model, ())), None)
    return None


def mark_logged_live(history: Any, epochs: int, prefix: str, log: FitLog) -> set[str]:
    """Mark the ``fit`` of a ``History`` as logged while it runs.

    Args:
        history: The History.
        epochs: The number of epochs in the run before its own; its steps follow them.
        prefix: The prefix of its metrics' names.
        log: The fits of the run that it is logged to.

    Returns:
        A set for the caller to add the names of logged metrics to.
    """
    if not is_history(history):
        return set()
    fit = _fit_of_watched(history, 0)
    fit.before, fit.prefix, fit.live_in, fit.is_placed = epochs, prefix, log, True
    return fit.live_names


def watch_fits(current: Callable[[], FitLog | None]) -> None:
    """Record the epochs of every ``History`` from now on, also of a Keras that is imported later.

    Args:
        current: Returns the fits of the current run.
    """
    global _current  # noqa: PLW0603 - Keras has one History class, too
    if _current is None:
        for module in _MODULES:
            wrapt.register_post_import_hook(_watch, module)
    _current = current


def _watch(module: Any) -> None:
    original = module.History.on_epoch_end

    @functools.wraps(original)
    def on_epoch_end(self: Any, epoch: int, logs: Any = None) -> None:
        original(self, epoch, logs)
        with contextlib.suppress(Exception):  # the record is optional
            fit = _fit_of_watched(self, epoch)
            for name in logs or ():
                fit.epochs.setdefault(str(name), []).append(int(epoch))

    module.History.on_epoch_end = on_epoch_end


def _fit_of_watched(history: Any, epoch: int) -> Fit:
    """Return the ``Fit`` of a ``History``; create it on the first call."""
    fit = _fits.get(history)
    if fit is None:
        fit = _fits[history] = Fit(history)
        _models[fit.model] = [fit]
        if _current is not None and (log := _current()) is not None:
            log.add(fit, epoch)
    return fit
