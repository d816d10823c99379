"""Watch what Keras's ``History`` is told while a run lasts.

A ``History`` does not keep at which epoch each of its values came (``validation_freq=``), ``evaluate()`` of
Keras 2 and tf_keras drops the one of ``fit``, and a model that was read from a file has none. So while a run
lasts mlwrap notes what it is told, in ``History.on_epoch_end``; nothing else of Keras is changed.
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
_models: WeakKeyDictionary[Any, list[Fit]] = WeakKeyDictionary()  # the latest of each
_identities: WeakKeyDictionary[Any, object] = WeakKeyDictionary()
_current: Callable[[], FitLog | None] | None = None


class Fit:
    """One ``fit``, as its ``History`` tells of it; it keeps no model alive.

    Attributes:
        history: The values of each metric: the dictionary of the ``History`` itself.
        epochs: At which epoch each of them came.
        before: The steps in the run before its epoch 0.
        is_placed: Whether ``before`` is known.
        prefix: What stands before the names of its metrics.
        live_in: The fits of the run that it is logged to while it runs.
        live_names: The metrics that are.
        fed: What it was fed, as :func:`mlwrap._savers.history.fit_inputs.fed_by` tells it;
            ``None`` if that is not known.
        identity: Stands for the model, also when that is gone.
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
        """The model, while it lives."""
        return self._model()

    @property
    def epoch(self) -> list[int]:
        """The epochs so far, as in a ``History``."""
        return sorted(set(itertools.chain.from_iterable(self.epochs.values())))

    def is_live(self) -> bool:
        """Whether the run that is current has its values already; where there is none, any run."""
        log = _current() if _current is not None else None
        return self.live_in is not None and log in {None, self.live_in}

    def epochs_of(self, name: str, count: int) -> list[int] | None:
        """The epochs of a metric's ``count`` values; ``None`` where not each of them was seen once."""
        epochs = self.epochs.get(name, [])
        is_whole = len(epochs) == count and all(a < b for a, b in itertools.pairwise(epochs))
        return epochs if is_whole else None


def fed_to(model: Any) -> Any:
    """What the latest ``fit`` of a model that was watched was fed; ``None`` if that is not known."""
    fit = latest_fit(model)
    return fit.fed if isinstance(fit, Fit) else None


class FitLog:
    """The fits of one run, in their order."""

    def __init__(self) -> None:
        self.fits: list[Fit] = []

    def of(self, model: Any) -> list[Fit]:
        """Those of one model."""
        return [fit for fit in self.fits if fit.model is model]

    def add(self, fit: Fit, epoch: int) -> None:
        """Add one that begins with ``epoch``: its steps come after those of its model's earlier fits."""
        ends = [other.before + other.epoch[-1] + 1 for other in self.of(fit.model) if other.epoch]
        fit.before, fit.is_placed = max(0, max(ends, default=0) - epoch), True
        self.fits.append(fit)


def is_history(value: object) -> bool:
    """Tell whether ``value`` is what ``fit`` of Keras 3, Keras 2 or tf_keras returns."""
    return has_class(value, "History", packages=("keras", "tf_keras"))


def identity_of(model: Any) -> Any:
    """What the fits of a model have as their ``identity``; the model itself if none was watched."""
    try:
        return _identities.get(model, model)
    except TypeError:  # it can't be hashed
        return model


def fit_of(history: Any) -> Any:
    """The ``Fit`` of a ``History`` that was watched, else the ``History`` itself."""
    return _fits.get(history, history) if is_history(history) else history


def latest_fit(model: Any) -> Any:
    """The last training that a model remembers, or that was seen of it; ``None`` for none."""
    history = getattr(model, "history", None)
    if is_history(history) and getattr(history, "epoch", None):
        return fit_of(history)
    with contextlib.suppress(TypeError):  # of a model that can't be hashed
        return next(iter(_models.get(model, ())), None)
    return None


def mark_logged_live(history: Any, epochs: int, prefix: str, log: FitLog) -> set[str]:
    """Say that the ``fit`` of a ``History`` is logged while it runs.

    Args:
        history: The History.
        epochs: How many there were in the run before its own, whose steps come after them.
        prefix: What stands before the names of its metrics.
        log: The fits of the run that it is logged to.

    Returns:
        Where the names of its metrics that are logged go.
    """
    if not is_history(history):
        return set()
    fit = _watched(history, 0)
    fit.before, fit.prefix, fit.live_in, fit.is_placed = epochs, prefix, log, True
    return fit.live_names


def watch_fits(current: Callable[[], FitLog | None]) -> None:
    """Note what every ``History`` is told from now on, also of a Keras that is yet to be imported.

    Args:
        current: Gives the fits of the run that is current.
    """
    global _current  # noqa: PLW0603 - Keras has one History, too
    if _current is None:
        for module in _MODULES:
            wrapt.register_post_import_hook(_watch, module)
    _current = current


def _watch(module: Any) -> None:
    original = module.History.on_epoch_end

    @functools.wraps(original)
    def on_epoch_end(self: Any, epoch: int, logs: Any = None) -> None:
        original(self, epoch, logs)
        with contextlib.suppress(Exception):  # what is noted is a bonus
            fit = _watched(self, epoch)
            for name in logs or ():
                fit.epochs.setdefault(str(name), []).append(int(epoch))

    module.History.on_epoch_end = on_epoch_end


def _watched(history: Any, epoch: int) -> Fit:
    """The ``Fit`` of a ``History``, made when it is first met."""
    fit = _fits.get(history)
    if fit is None:
        fit = _fits[history] = Fit(history)
        _models[fit.model] = [fit]
        if _current is not None and (log := _current()) is not None:
            log.add(fit, epoch)
    return fit
