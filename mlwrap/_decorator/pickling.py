"""How does a decorated function get into another process, and never without its tracking?

A function of a module travels by its name. Any other travels as what was decorated, and is decorated again
where it arrives: ``cloudpickle`` (joblib's loky, Dask, Ray) writes down by value what is from ``__main__``, a
notebook or another function's body. Stock ``pickle`` looks up what is from ``__main__`` in the ``__main__``
over there, as ``spawn`` needs it.
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

from mlwrap.errors import describe_error

# cloudpickle, and the copies of it that joblib and Ray bring.
_CLOUDPICKLES = ("cloudpickle", "joblib.externals.cloudpickle", "ray.cloudpickle")


class UndecoratedFunction(wrapt.ObjectProxy):  # type: ignore[misc, type-arg, unused-ignore]
    """A function whose own name stands for something else: the decorated function.

    Picklers can't write it down by its name, for that finds the other. cloudpickle takes this for the
    function that it is a proxy of, and writes it down by value; stock pickle asks :meth:`__reduce_ex__`.

    Args:
        function: The function.
        decorate: Decorates it again; the options that go along are in it.
    """

    def __init__(self, function: Any, decorate: functools.partial[Any]) -> None:
        super().__init__(function)
        self._self_decorate = decorate
        self._self_checked = False

    @property
    def __code__(self) -> CodeType | _RaiseOnUse:
        """Only a pickler that writes the function down by value asks for it: so all is looked at first."""
        if not self._self_checked:
            self._self_checked = True  # at once, for a function can refer to itself
            try:
                check_picklable(
                    (self.__wrapped__, self._self_decorate), _all_of(self.__wrapped__, self._self_decorate)
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
    """A decorated function that was looked up by its name; it needs no decorating any more."""

    tracked: Any


def resolve_function(module: str, name: str) -> ResolvedFunction:
    """The decorated function that is called ``name`` in a module.

    Raises:
        AttributeError: There is none.
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
    """What ``__reduce_ex__`` of a decorated function gives to a pickler.

    Args:
        tracked: The decorated function.
        body: What was decorated; the same at each call, for picklers know by identity what they have seen,
            and a function can refer to itself.
        decorate: Decorates again as ``tracked`` was.

    Raises:
        PicklingError: Something that goes with it can't be pickled.
    """
    function = tracked.__wrapped__
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    there = _attribute_at(module, name)
    if there is tracked and module != "__main__" and module not in _by_value():
        return name
    if isinstance(function, FunctionType) and there is not function:
        return decorate_again, (body, decorate)
    parts = [*_options_of(decorate), ("the object that was decorated", function)]
    check_picklable((function, decorate), parts)
    return decorate_again, (function, decorate)


def decorate_again(function: Any, decorate: Callable[[Any], Any]) -> Any:
    """Decorate again, where a function has arrived."""
    return function.tracked if isinstance(function, ResolvedFunction) else decorate(function)


def check_picklable(whole: Any, parts: Iterable[tuple[str, Any]], pickler: Any = None) -> None:
    """Say what can't travel, if anything.

    Args:
        whole: What is to travel, written down by ``pickler``.
        parts: What to look at if it can't, each with what to call it.
        pickler: By default cloudpickle's: what that can't write down, no other can.

    Raises:
        PicklingError: With the name of the variable, default or option.
    """
    error = _pickling_error(whole, pickler)
    if error is None:
        return
    culprits = [
        f"{what} ({describe_error(why)})" for what, part in parts if (why := _pickling_error(part, pickler))
    ]
    raise pickle.PicklingError(
        "a decorated function can't travel to another process with "
        + (" and ".join(culprits) or f"something that it refers to ({describe_error(error)})")
        + ". Make that inside the function, or pass as an argument what it can be made from."
    ) from error


def _options_of(decorate: functools.partial[Any]) -> Iterator[tuple[str, Any]]:
    for option, value in decorate.keywords.items():
        yield f"its option {option}=", value


def _all_of(function: FunctionType, decorate: functools.partial[Any]) -> Iterator[tuple[str, Any]]:
    yield from _options_of(decorate)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty:
            yield f"the default of {parameter.name!r}", parameter.default
    with contextlib.suppress(ValueError):  # a variable that has no value yet
        variables = inspect.getclosurevars(function)
        for name, value in (*variables.nonlocals.items(), *variables.globals.items()):
            yield f"the variable {name!r}", value


def _pickling_error(value: Any, pickler: Any = None) -> Exception | None:
    """Why a value can't be pickled; large arrays in it are not copied to find out."""
    if pickler is None:
        import cloudpickle  # noqa: PLC0415 - only what travels by value pays for it

        pickler = cloudpickle.CloudPickler
    try:
        pickler(_NullWriter(), protocol=5, buffer_callback=lambda _: None).dump(value)
    except Exception as error:  # noqa: BLE001 - whatever anybody's __reduce__ raises
        return error
    return None


class _RaiseOnUse:
    """In place of code that can't travel: says why, when it is looked at.

    The property can't raise that itself: wrapt 1 takes any error in one for an attribute that is not there.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


class _NullWriter:
    """A file that forgets."""

    def write(self, data: Any) -> int:
        return len(data)


def _attribute_at(module: str | None, name: str | None) -> Any:
    """What stands under a qualified name, or ``None``."""
    try:
        return operator.attrgetter(name or "")(sys.modules[module or ""])
    except (AttributeError, KeyError):
        return None


def _by_value() -> set[str]:
    """The modules that the user told cloudpickle not to expect in other processes."""
    told_to = [sys.modules[name] for name in _CLOUDPICKLES if name in sys.modules]
    return {module for one in told_to for module in one.list_registry_pickle_by_value()}
