"""Bind the arguments of a call to the names of the function's parameters.

The signature is analysed once, when the function is decorated; a call then costs a few dictionary
operations. Binding never raises: the function itself refuses a call that does not fit its signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter
from typing import Any

from mlwrap._capture.describe import is_growing
from mlwrap._capture.flatten import Captured, params
from mlwrap._capture.redact import Redactor
from mlwrap._capture.secret_annotations import annotated_params
from mlwrap.errors import OptionError

__all__ = ["Arguments"]

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """The parameters of one function, to which calls can be bound.

    Args:
        func: Function, method, classmethod, staticmethod, partial or any other callable.
        ignore: Names that are not recorded; a dotted name (``"config.seed"``) names a part of a value.
        only: The only names that are recorded.

    Raises:
        OptionError: ``func`` is not callable; ``ignore`` or ``only`` has the wrong type or names a parameter
            that the function does not have; or both are given.

    Attributes:
        names: The parameters in order, without ``self`` or ``cls`` of a function in a class.
        secrets: The parameters annotated with :class:`~mlwrap.Secret`.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        ignore: str | Iterable[str] = (),
        only: str | Iterable[str] | None = None,
    ) -> None:
        inner = getattr(func, "__func__", func)  # of a bound method, classmethod or staticmethod
        parameters = list(_signature_of(inner).parameters.values())
        self._instance_name = (
            None if isinstance(func, staticmethod) else _instance_parameter(inner, parameters)
        )
        self._bound_instance = func.__self__ if inspect.ismethod(func) else None
        self._receiver = (
            self._instance_name
            if self._bound_instance is not None or _in_class(inner, self._instance_name)
            else None
        )
        self._positional = [p.name for p in parameters if p.kind in _BY_POSITION]
        self._args = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
        self._kwargs = next((p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD), None)
        self._by_keyword = {
            p.name for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        }
        self._defaults = {p.name: p.default for p in parameters}
        self.names = tuple(p.name for p in parameters if p.name != self._receiver)
        self.secrets = _secrets(inner)
        self._ignore = self._checked("ignore", ignore)
        self._only = None if only is None else self._checked("only", only)
        if self._ignore and self._only is not None:
            raise OptionError("ignore= and only= can't both be given: only= already leaves out all others.")

    def bind(self, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters' values by name, including defaults, in the signature's order.

        Surplus positional arguments are a tuple under the name of the ``*`` parameter. Surplus keyword
        arguments keep their own names; one with the name of another parameter gets the name of the ``**``
        parameter as a prefix (``kwargs.epochs``).

        Args:
            instance: The object that a method is bound to, in the form that wrapt passes it; ``None`` for a
                function.
            args: Positional arguments, without the instance.
            kwargs: Keyword arguments.
        """
        bound = self._bind_all(instance, args, kwargs)
        return {name: value for name, value in bound.items() if self._wanted(name)}

    def capture(
        self, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], redactor: Redactor
    ) -> Captured:
        """Return the call's parameters in the form that MLflow accepts.

        A secret among the ignored parameters is not recorded, but the redactor removes it from then on.
        """
        no_filter = not self._ignore and self._only is None
        return params(
            self._bind_all(instance, args, kwargs),
            redactor=redactor,
            secrets=self.secrets,
            wanted=None if no_filter else self._wanted,
        )

    def capture_grown(
        self, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], redactor: Redactor
    ) -> Captured:
        """Return what the call added to its arguments, as an Optuna trial's ``suggest_float`` does."""
        bound = self._bind_all(instance, args, kwargs)
        grown = {name: value for name, value in bound.items() if is_growing(value)}
        return params(grown, redactor=redactor, secrets=self.secrets, wanted=self._wanted)

    def _bind_all(self, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        instance = self._bound_instance if instance is None else instance
        receiver = self._receiver
        if instance is not None and self._instance_name is not None:
            receiver, args = self._instance_name, (instance, *args)
        by_position = dict(zip(self._positional, args, strict=False))
        bound: dict[str, Any] = {}
        for name, default in self._defaults.items():
            if name == self._args:
                if surplus := args[len(self._positional) :]:
                    bound[name] = surplus
            elif name == self._kwargs:
                continue
            elif name in by_position:
                bound[name] = by_position[name]
            elif name in kwargs and name in self._by_keyword:
                bound[name] = kwargs[name]
            elif default is not Parameter.empty:
                bound[name] = default
        if self._kwargs is not None:
            for name, value in kwargs.items():
                if name not in self._by_keyword:
                    while name in self._defaults or name in bound:
                        name = f"{self._kwargs}.{name}"  # noqa: PLW2901  until no other argument has it
                    bound[name] = value
        if receiver is not None:
            bound.pop(receiver, None)
        return bound

    def _wanted(self, name: str) -> bool:
        """Return whether to record a dotted name; called for a value before its parts."""
        if self._only is None:
            return name not in self._ignore
        return any(
            name == only or name.startswith(f"{only}.") or only.startswith(f"{name}.") for only in self._only
        )

    def _checked(self, option: str, value: str | Iterable[str]) -> frozenset[str]:
        try:
            names: list[Any] = [value] if isinstance(value, str) else list(value)
        except TypeError:
            names = [value]
        for name in names:
            if not isinstance(name, str):
                raise OptionError(f"{option}= takes names of parameters, not {value!r}.")
            if self._kwargs is None and name not in self.names and name.split(".")[0] not in self.names:
                parameters = ", ".join(self.names) or "none"
                raise OptionError(f"{option}={name!r} names no parameter. The function has: {parameters}.")
        return frozenset(names)


def _signature_of(func: Callable[..., Any]) -> inspect.Signature:
    if not callable(func):
        raise OptionError(f"A function or another callable was expected, not {func!r}.")
    try:
        return inspect.signature(func)
    except (TypeError, ValueError):  # some builtins have no signature
        return inspect.Signature(
            [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]
        )


def _instance_parameter(func: Callable[..., Any], parameters: list[Parameter]) -> str | None:
    """Return the name of the parameter that gets the instance."""
    if not inspect.isroutine(func) or inspect.isbuiltin(func):
        return None  # for a builtin function wrapt passes its module as the instance
    return parameters[0].name if parameters and parameters[0].kind in _BY_POSITION else None


def _in_class(func: Callable[..., Any], first: str | None) -> bool:
    """Return whether, by its names, a function is defined in a class and takes the instance first."""
    scope = getattr(func, "__qualname__", "").rpartition(".")[0]
    return first in ("self", "cls") and bool(scope) and not scope.endswith("<locals>")


def _secrets(func: Callable[..., Any]) -> frozenset[str]:
    try:
        function = inspect.unwrap(func)
        function = getattr(function, "func", function)  # of a partial
        return annotated_params(function.__annotations__, getattr(function, "__globals__", {}))
    except Exception:  # noqa: BLE001  annotations can be computed by any code
        return frozenset()
