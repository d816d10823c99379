"""Read the learning rates of a Keras model's optimizers."""

from __future__ import annotations

import contextlib
from typing import Any

_NAME = "learning_rate"


def learning_rates(model: Any) -> dict[str, float]:
    """Return the learning rate of each optimizer of ``model`` that has been used.

    Returns:
        ``learning_rate`` for the only optimizer or the one of ``compile()``; for others
        ``<attribute>/learning_rate``, for example ``d_optimizer/learning_rate``.
    """
    rates: dict[str, float] = {}
    for attribute, optimizer in _optimizers(model).items():
        with contextlib.suppress(Exception):  # a custom optimizer need not have a learning rate
            if _is_used(optimizer):
                rates[_NAME if attribute == "optimizer" else f"{attribute}/{_NAME}"] = _rate(optimizer)
    return dict(zip([_NAME], rates.values(), strict=True)) if len(rates) == 1 else rates


def _optimizers(model: Any) -> dict[str, Any]:
    """Return the optimizers by attribute; the compiled one first, always as ``optimizer``."""
    compiled = getattr(model, "optimizer", None)
    optimizers = {"optimizer": compiled}
    seen = {id(compiled)}
    for attribute, value in list(getattr(model, "__dict__", {}).items()):
        if id(value) not in seen and hasattr(type(value), "apply_gradients"):
            seen.add(id(value))
            optimizers[attribute.lstrip("_")] = value
    return optimizers


def _is_used(optimizer: Any) -> bool:
    """Return whether an optimizer was applied: ``compile()`` sets one that a GAN, for example, never uses."""
    if hasattr(optimizer, "built"):  # Keras 3
        return bool(optimizer.built)
    return not hasattr(optimizer, "iterations") or int(optimizer.iterations) > 0


def _rate(optimizer: Any) -> float:
    rate = optimizer.learning_rate
    if callable(rate) and not hasattr(rate, "dtype"):  # a schedule in Keras 2
        rate = rate(optimizer.iterations)
    return float(rate)
