"""A call to the names of its parameters.

What can be decided once is decided when the function is decorated; a call then costs a few dictionary
operations. Binding never raises: a call that does not fit is the function's own to refuse.
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
    """The parameters of one function, ready to have calls bound to them.

    Args:
        func: Function, method, classmethod, staticmethod, partial or any other callable.
        ignore: Names that are not recorded; dotted ones (``"config.seed"``) name parts of a value.
        only: The only names that are.

    Raises:
        OptionError: ``func`` is not callable; ``ignore`` or ``only`` are of the wrong type, both given, or
            name a parameter that the function does not have.

    Attributes:
        names: The parameters in order, without ``self`` or ``cls`` of a function in a class.
        secrets: Those annotated with :class:`~mlwrap.Secret`.
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
        self._first = None if isinstance(func, staticmethod) else _instance_parameter(inner, parameters)
        self._bound_to = func.__self__ if inspect.ismethod(func) else None
        self._receiver = self._first if self._bound_to is not None or _in_class(inner, self._first) else None
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
        """Own parameter name to value, defaults among them, in the signature's order.

        ``*args`` stand as a tuple under their name, if there are any. ``**kwargs`` stand under their own
        names; one that meets the name of a parameter gets the name of the ``**`` one before it
        (``kwargs.epochs``).

        Args:
            instance: What a method is bound to, as wrapt passes it; ``None`` for a function.
            args: Positional arguments, without the instance.
            kwargs: Keyword arguments.
        """
        bound = self._bound(instance, args, kwargs)
        return {name: value for name, value in bound.items() if self._wanted(name)}

    def capture(
        self, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], redactor: Redactor
    ) -> Captured:
        """The call's parameters as MLflow takes them.

        A secret among the ignored ones is not recorded, but the redactor knows it from then on.
        """
        plain = not self._ignore and self._only is None
        return params(
            self._bound(instance, args, kwargs),
            redactor=redactor,
            secrets=self.secrets,
            wanted=None if plain else self._wanted,
        )

    def capture_grown(
        self, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any], redactor: Redactor
    ) -> Captured:
        """After the call: what it added to its arguments, as an Optuna trial's ``suggest_float`` does."""
        bound = self._bound(instance, args, kwargs)
        grown = {name: value for name, value in bound.items() if is_growing(value)}
        return params(grown, redactor=redactor, secrets=self.secrets, wanted=self._wanted)

    def _bound(self, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        instance = self._bound_to if instance is None else instance
        receiver = self._receiver
        if instance is not None and self._first is not None:
            receiver, args = self._first, (instance, *args)
        given = dict(zip(self._positional, args, strict=False))
        bound: dict[str, Any] = {}
        for name, default in self._defaults.items():
            if name == self._args:
                if rest := args[len(self._positional) :]:
                    bound[name] = rest
            elif name == self._kwargs:
                continue
            elif name in given:
                bound[name] = given[name]
            elif name in kwargs and name in self._by_keyword:
                bound[name] = kwargs[name]
            elif default is not Parameter.empty:
                bound[name] = default
        if self._kwargs is not None:
            for name, value in kwargs.items():
                if name not in self._by_keyword:
                    while name in self._defaults or name in bound:
                        name = f"{self._kwargs}.{name}"  # noqa: PLW2901  until it is nobody else's
                    bound[name] = value
        if receiver is not None:
            bound.pop(receiver, None)
        return bound

    def _wanted(self, name: str) -> bool:
        """Whether a dotted own name is to be recorded; asked from the outside in."""
        if self._only is None:
            return name not in self._ignore
        return any(
            name == only or name.startswith(f"{only}.") or only.startswith(f"{name}.") for only in self._only
        )

    def _checked(self, option: str, given: str | Iterable[str]) -> frozenset[str]:
        try:
            names: list[Any] = [given] if isinstance(given, str) else list(given)
        except TypeError:
            names = [given]
        for name in names:
            if not isinstance(name, str):
                raise OptionError(f"{option}= takes names of parameters, not {given!r}.")
            if self._kwargs is None and name not in self.names and name.split(".")[0] not in self.names:
                known = ", ".join(self.names) or "none"
                raise OptionError(f"{option}={name!r} names no parameter. The function has: {known}.")
        return frozenset(names)


def _signature_of(func: Callable[..., Any]) -> inspect.Signature:
    if not callable(func):
        raise OptionError(f"A function or another callable was expected, not {func!r}.")
    try:
        return inspect.signature(func)
    except (TypeError, ValueError):  # some builtins do not tell
        return inspect.Signature(
            [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]
        )


def _instance_parameter(func: Callable[..., Any], parameters: list[Parameter]) -> str | None:
    """Name of the parameter that an instance would be passed to."""
    if not inspect.isroutine(func) or inspect.isbuiltin(func):
        return None  # wrapt calls the module of a builtin function its instance
    return parameters[0].name if parameters and parameters[0].kind in _BY_POSITION else None


def _in_class(func: Callable[..., Any], first: str | None) -> bool:
    """Whether a function stands in a class and takes the instance first, as far as its names tell."""
    outside = getattr(func, "__qualname__", "").rpartition(".")[0]
    return first in ("self", "cls") and bool(outside) and not outside.endswith("<locals>")


def _secrets(func: Callable[..., Any]) -> frozenset[str]:
    try:
        plain = inspect.unwrap(func)
        plain = getattr(plain, "func", plain)  # of a partial
        return annotated_params(plain.__annotations__, getattr(plain, "__globals__", {}))
    except Exception:  # noqa: BLE001  annotations can be computed by anybody's code
        return frozenset()
