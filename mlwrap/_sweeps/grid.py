"""Expand the trials of a sweep from a grid or a list, and check them before any of them runs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter
from typing import Any

from mlwrap.errors import OptionError

SweepInput = Mapping[str, Iterable[Any]] | Iterable[Mapping[str, Any]]
"""A grid (parameter name to its values), or the keyword arguments of each trial."""

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def expand_grid(points: SweepInput, function: Callable[..., Any], name: str) -> list[dict[str, Any]]:
    """Return the keyword arguments of each trial, in a stable order: the last name of a grid changes fastest.

    Args:
        points: The user's grid or list.
        function: The function to call with them; of a method, the bound one.
        name: The function's name for messages.

    Raises:
        OptionError: They can't be used; the message says which, why, and what is expected.
    """
    trials = _trials_of_grid(points, name) if isinstance(points, Mapping) else _listed_trials(points, name)
    if not trials:
        raise OptionError(f"{name}.sweep() got no trials at all. Give it a grid, as {{'units': [8, 16]}}.")
    parameters = inspect.signature(function).parameters
    for number, trial in enumerate(trials):
        _check_trial(trial, parameters, name, f"trial {number}")
    return trials


def values_by_parameter(points: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return each parameter's values in the trials, by name, each object once."""
    values_by_id: dict[str, dict[int, Any]] = {}
    for trial in points:
        for name, value in trial.items():
            values_by_id.setdefault(name, {}).setdefault(id(value), value)
    return {name: list(values.values()) for name, values in values_by_id.items()}


def _trials_of_grid(grid: Mapping[str, Iterable[Any]], name: str) -> list[dict[str, Any]]:
    values: dict[str, list[Any]] = {}
    for parameter, choices in grid.items():
        try:
            if isinstance(choices, str | bytes | Mapping):
                raise TypeError  # noqa: TRY301 - iterable, but one value
            values[parameter] = list(choices)
        except TypeError:
            raise OptionError(
                f"{name}.sweep() got {_type_name(choices)} for {parameter!r}: expected a list of values, as "
                f"{{{parameter!r}: [value]}}."
            ) from None
        if not values[parameter]:
            raise OptionError(f"{name}.sweep() got an empty list of values for {parameter!r}, so no trials.")
    if not values:
        return []
    return [dict(zip(values, trial, strict=True)) for trial in itertools.product(*values.values())]


def _listed_trials(points: Iterable[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    expected = "expected a grid, as {'units': [8, 16]}, or a list of keyword arguments, as [{'units': 8}]"
    try:
        trials = list(points)
    except TypeError:
        raise OptionError(f"{name}.sweep() got {_type_name(points)}: {expected}.") from None
    for trial in trials:
        if not isinstance(trial, Mapping):
            raise OptionError(f"{name}.sweep() got {_type_name(trial)} for a trial: {expected}.")
    return [dict(trial) for trial in trials]


def _check_trial(
    trial: Mapping[str, Any], parameters: Mapping[str, Parameter], name: str, where: str
) -> None:
    named = [p.name for p in parameters.values() if p.kind in _NAMED]
    any_name = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    for argument in trial:
        if argument not in named and not any_name:
            names = ", ".join(named) or "none"
            raise OptionError(
                f"{where}: {name}() has no parameter {argument!r} that can be given by name. It has: {names}."
            )
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in trial]
    variable = {
        p.name for p in parameters.values() if p.kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
    }
    for parameter in missing:
        if parameter not in variable:
            raise OptionError(
                f"{where}: {name}() needs {parameter!r} too. Give it as {{{parameter!r}: [value]}} in a grid."
            )


def _type_name(value: object) -> str:
    """Describe a value that may be a secret, by its type."""
    return f"a value of type {type(value).__name__}"
