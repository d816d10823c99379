"""Pickle a decorated function so that it is still tracked in another process.

A function of a module is pickled by its name. Any other is pickled as the original object, and decorated
again on arrival: ``cloudpickle`` (joblib's loky, Dask, Ray) pickles functions of ``__main__``, of a notebook
and of another function's body by value. Stock ``pickle`` looks up functions of ``__main__`` in the other
process's ``__main__``, as ``spawn`` needs it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import operator
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import wrapt

from mlwrap._process.pickle_probe import pickling_error
from mlwrap.errors import describe_error

# cloudpickle, and the copies of it in joblib and Ray.
_CLOUDPICKLES = ("cloudpickle", "joblib.externals.cloudpickle", "ray.cloudpickle")


class UndecoratedFunction(wrapt.ObjectProxy):  # type: ignore[misc, type-arg, unused-ignore]
    """A function whose qualified name refers to another object: the decorated function.

    Picklers can't pickle it by its name, which finds the decorated one. cloudpickle treats this proxy as a
    plain function and pickles it by value; stock pickle calls :meth:`__reduce_ex__`.

    Args:
        function: The function.
        decorate: Decorates it again; contains the options.
    """

    def __init__(self, function: Any, decorate: functools.partial[Any]) -> None:
        super().__init__(function)
        self._self_decorate = decorate
        self._self_checked = False

    @property
    def __code__(self) -> CodeType | _RaiseOnUse:
        """The function's code. Only pickling by value reads it, so all captured values are checked first."""
        if not self._self_checked:
            self._self_checked = True  # before the check, because a function can refer to itself
            try:
                check_picklable(
                    (self.__wrapped__, self._self_decorate),
                    _captured_values(self.__wrapped__, self._self_decorate),
                )
            except pickle.PicklingError as error:
                self._self_checked = False
                return _RaiseOnUse(error)
        code: CodeType = self.__wrapped__.__code__
        return code

    def __reduce_ex__(self, protocol: Any) -> Any:
        module, name = self.__module__, self.__qualname__
        if getattr(_attribute_at(module, name), "__wrapped__", None) is not self.__wrapped__:
            raise pickle.PicklingError(
                f"{name} can't travel by pickle: it is not found by its name in {module}. Define it in a "
                "module, and not inside another function; or send it by cloudpickle, as joblib's loky, Dask "
                "and Ray do."
            )
        check_picklable(self._self_decorate, _options_of(self._self_decorate), pickle.Pickler)
        return resolve_function, (module, name)


class ResolvedFunction(NamedTuple):
    """A decorated function that was found by its name, so it is not decorated again."""

    tracked: Any


def resolve_function(module: str, name: str) -> ResolvedFunction:
    """Return the decorated function called ``name`` in a module.

    Raises:
        AttributeError: The module has no such function.
    """
    importlib.import_module(module)
    tracked = _attribute_at(module, name)
    if tracked is None:
        raise AttributeError(
            f"{name} is not in {module}, where it was when it was pickled. Define it in a module that both "
            "processes can import."
        )
    return ResolvedFunction(tracked)


def reduce(tracked: Any, body: UndecoratedFunction, decorate: functools.partial[Any]) -> Any:
    """Return what ``__reduce_ex__`` of a decorated function returns to a pickler.

    Args:
        tracked: The decorated function.
        body: The proxy of the original function; the same object at each call, because picklers track
            objects by identity and a function can refer to itself.
        decorate: Decorates a function as ``tracked`` was.

    Raises:
        PicklingError: A value that is pickled along can't be pickled.
    """
    function = tracked.__wrapped__
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    resolved = _attribute_at(module, name)
    if resolved is tracked and module != "__main__" and module not in _modules_by_value():
        return name
    if isinstance(function, FunctionType) and resolved is not function:
        return decorate_again, (body, decorate)
    parts = [*_options_of(decorate), ("the object that was decorated", function)]
    check_picklable((function, decorate), parts)
    return decorate_again, (function, decorate)


def decorate_again(function: Any, decorate: Callable[[Any], Any]) -> Any:
    """Decorate a function again in the process where it was unpickled."""
    return function.tracked if isinstance(function, ResolvedFunction) else decorate(function)


def check_picklable(value: Any, parts: Iterable[tuple[str, Any]], pickler: Any = None) -> None:
    """Raise an error that names the values that can't be pickled, if any.

    Args:
        value: The value to pickle.
        parts: Its parts, each with a description, which are tried one by one if ``value`` fails.
        pickler: By default cloudpickle's, which can pickle the most.

    Raises:
        PicklingError: Names the variable, default or option.
    """
    error = pickling_error(value, pickler)
    if error is None:
        return
    culprits = [
        f"{description} ({describe_error(why)})"
        for description, part in parts
        if (why := pickling_error(part, pickler))
    ]
    raise pickle.PicklingError(
        "a decorated function can't travel to another process with "
        + (" and ".join(culprits) or f"something that it refers to ({describe_error(error)})")
        + ". Make that inside the function, or pass as an argument what it can be made from."
    ) from error


def _options_of(decorate: functools.partial[Any]) -> Iterator[tuple[str, Any]]:
    for option, value in decorate.keywords.items():
        yield f"its option {option}=", value


def _captured_values(function: FunctionType, decorate: functools.partial[Any]) -> Iterator[tuple[str, Any]]:
    yield from _options_of(decorate)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty:
            yield f"the default of {parameter.name!r}", parameter.default
    with contextlib.suppress(ValueError):  # a closure variable without a value yet
        variables = inspect.getclosurevars(function)
        for name, value in (*variables.nonlocals.items(), *variables.globals.items()):
            yield f"the variable {name!r}", value


class _RaiseOnUse:
    """Stands in for code that can't be pickled, and raises the reason when it is used.

    The property can't raise it itself: wrapt 1 turns any error in a property into a missing attribute.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


def _attribute_at(module: str | None, name: str | None) -> Any:
    """Return the object at a qualified name, or ``None``."""
    try:
        return operator.attrgetter(name or "")(sys.modules[module or ""])
    except (AttributeError, KeyError):
        return None


def _modules_by_value() -> set[str]:
    """Return the modules that the user registered with cloudpickle for pickling by value."""
    cloudpickles = [sys.modules[name] for name in _CLOUDPICKLES if name in sys.modules]
    return {module for cloudpickle in cloudpickles for module in cloudpickle.list_registry_pickle_by_value()}
