"""The points of a sweep: said as a grid or one by one, and looked at before anything runs."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter
from typing import Any

from mlwrap.errors import OptionError

SweepInput = Mapping[str, Iterable[Any]] | Iterable[Mapping[str, Any]]
"""A grid (name of a parameter to its values), or the keyword arguments of each point."""

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def expand_grid(points: SweepInput, function: Callable[..., Any], name: str) -> list[dict[str, Any]]:
    """The keyword arguments of each point, in a stable order: the last name of a grid changes fastest.

    Args:
        points: What the user said.
        function: What is to be called with them; of a method, the bound one.
        name: What to call it in a message.

    Raises:
        OptionError: They can't be used: which, why, and what there is.
    """
    each = _trials_of_grid(points, name) if isinstance(points, Mapping) else _listed_trials(points, name)
    if not each:
        raise OptionError(f"{name}.sweep() got no points at all. Give it a grid, as {{'units': [8, 16]}}.")
    parameters = inspect.signature(function).parameters
    for number, point in enumerate(each):
        _check_trial(point, parameters, name, f"point {number}")
    return each


def values_by_parameter(points: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Name of a parameter to its values in the points, each object once."""
    found: dict[str, dict[int, Any]] = {}
    for point in points:
        for name, value in point.items():
            found.setdefault(name, {}).setdefault(id(value), value)
    return {name: list(values.values()) for name, values in found.items()}


def _trials_of_grid(grid: Mapping[str, Iterable[Any]], name: str) -> list[dict[str, Any]]:
    values: dict[str, list[Any]] = {}
    for parameter, several in grid.items():
        try:
            if isinstance(several, str | bytes | Mapping):
                raise TypeError  # noqa: TRY301 - what can be iterated over, and is one value
            values[parameter] = list(several)
        except TypeError:
            raise OptionError(
                f"{name}.sweep() got {_type_name(several)} for {parameter!r}: expected a list of values, as "
                f"{{{parameter!r}: [value]}}."
            ) from None
        if not values[parameter]:
            raise OptionError(f"{name}.sweep() got an empty list of values for {parameter!r}, so no points.")
    if not values:
        return []
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def _listed_trials(points: Iterable[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    expected = "expected a grid, as {'units': [8, 16]}, or a list of keyword arguments, as [{'units': 8}]"
    try:
        each = list(points)
    except TypeError:
        raise OptionError(f"{name}.sweep() got {_type_name(points)}: {expected}.") from None
    for point in each:
        if not isinstance(point, Mapping):
            raise OptionError(f"{name}.sweep() got {_type_name(point)} for a point: {expected}.")
    return [dict(point) for point in each]


def _check_trial(
    point: Mapping[str, Any], parameters: Mapping[str, Parameter], name: str, where: str
) -> None:
    named = [p.name for p in parameters.values() if p.kind in _NAMED]
    any_name = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    for given in point:
        if given not in named and not any_name:
            there = ", ".join(named) or "none"
            raise OptionError(
                f"{where}: {name}() has no parameter {given!r} that can be given by name. It has: {there}."
            )
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in point]
    variable = {
        p.name for p in parameters.values() if p.kind in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
    }
    for lacking in missing:
        if lacking not in variable:
            raise OptionError(
                f"{where}: {name}() needs {lacking!r} too. Give it as {{{lacking!r}: [value]}} in a grid."
            )


def _type_name(value: object) -> str:
    """What to call a value that may be a secret."""
    return f"a value of type {type(value).__name__}"
