"""Proxy for a decorated function: calling it opens a run; everything else is forwarded to the function."""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import wrapt

from mlwrap._decorator import pickling
from mlwrap._decorator.call import TrackedCall
from mlwrap._run.run import Run
from mlwrap._sweeps.grid import SweepInput
from mlwrap._sweeps.sweep import sweep
from mlwrap._sweeps.table import SweepTable

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class TrackedFunction(Protocol[P, R_co]):
    """A decorated training function: a call does and returns what the function does.

    Attributes:
        last_run: The run of the newest call by this thread or asyncio task, even while it is open; if it made
            none, of the newest call of all. ``None`` before the first.
        __wrapped__: The function itself; calling it tracks nothing.
    """

    __name__: str
    __qualname__: str

    @property
    def last_run(self) -> Run | None: ...

    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def sweep(
        self, points: SweepInput, *, n_jobs: int | None = None, resume: bool | str = False
    ) -> SweepTable:
        """Call the function once for each trial, under one parent run: see ``docs/how-to/sweep.md``.

        Args:
            points: A grid, which maps parameter names to lists of values and has a trial for every
                combination; or the keyword arguments of each trial.
            n_jobs: Number of trials at the same time, as joblib counts them. joblib runs them in its own
                processes, or on the engine set by ``joblib.parallel_config``, such as Dask or Ray.
            resume: ``True`` skips each trial with a FINISHED run in any sweep of the experiment that has the
                same parameters, as logged, and the same code of the function; the id or the key of a sweep's
                run skips those of that sweep only.

        Returns:
            The trials in their order, each with metrics, status, run id and error. What the function returned
            is logged, but not included.

        Raises:
            OptionError: The trials, or an option, can't be used; nothing has run.
            DeliveryError: The sweep to resume can't be looked up; nothing has run.
        """
        ...

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> TrackedFunction[P, R_co]: ...

    @overload
    def __get__(
        self: TrackedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> TrackedFunction[Q, R]: ...


if TYPE_CHECKING:
    _FunctionWrapper = wrapt.FunctionWrapper[..., Any]
    _BoundFunctionWrapper = wrapt.BoundFunctionWrapper[..., Any]
else:  # wrapt 1 has no generic types
    _FunctionWrapper = wrapt.FunctionWrapper
    _BoundFunctionWrapper = wrapt.BoundFunctionWrapper


def _class_of(proxy: Any) -> type:
    """Return the class that a proxy claims: that of its function, but never a plain function.

    cloudpickle pickles plain functions by their code, which would silently drop the tracking.
    """
    wrapped_class: type = type(proxy.__wrapped__)
    return type(proxy) if issubclass(wrapped_class, FunctionType) else wrapped_class


class _Annotations(dict[str, Any]):
    """The ``__annotations__`` of a proxy's class: for a proxy its function's, for the class an empty dict.

    Without it Python gives the class an empty dictionary on first access, as in
    ``isinstance(train, SomeProtocol)``, which then hides the function's annotations. It is a dictionary
    because ``typing.get_type_hints`` reads the class's own.
    """

    def __get__(self, proxy: Any, owner: type | None = None) -> Any:
        return self if proxy is None else proxy.__wrapped__.__annotations__

    def __set__(self, proxy: Any, annotations: Any) -> None:
        proxy.__wrapped__.__annotations__ = annotations

    def __delete__(self, proxy: Any) -> None:
        del proxy.__wrapped__.__annotations__


class _Bound(_BoundFunctionWrapper):
    """A decorated method, accessed on an instance or a class."""

    __class__ = property(_class_of)
    __annotations__ = _Annotations()

    @property
    def last_run(self) -> Run | None:
        parent: TrackedProxy = self._self_parent
        return parent.last_run

    def sweep(
        self, points: SweepInput, *, n_jobs: int | None = None, resume: bool | str = False
    ) -> SweepTable:
        parent: TrackedProxy = self._self_parent
        return parent.sweep_of(self, points, n_jobs=n_jobs, resume=resume)

    def __copy__(self) -> _Bound:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        rebuild, arguments = self.__reduce_ex__(4)
        return rebuild(*copy.deepcopy(arguments, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle a method as the object that it is bound to and its name there."""
        parent: TrackedProxy = self._self_parent
        home, name = parent.home or (None, self.__name__)
        owner = self._self_instance
        if owner is None:
            owner = getattr(self.__wrapped__, "__self__", home)
        if owner is None:  # its class was pickled by value, which does not call __set_name__
            return operator.methodcaller("__get__", None, object), (parent,)
        return getattr, (owner, name)


class TrackedProxy(_FunctionWrapper):
    """The proxy for a decorated function: same name, signature, docstring and type.

    Args:
        function: The decorated object.
        tracking: Runs at each call.
        decorate: Decorates a function in the same way; pickled along to other processes.
    """

    __bound_function_wrapper__ = _Bound
    __class__ = property(_class_of)
    __annotations__ = _Annotations()

    def __init__(
        self, function: Callable[..., Any], tracking: TrackedCall, decorate: functools.partial[Any]
    ) -> None:
        super().__init__(function, tracking)
        self._self_tracking = tracking
        self._self_decorate = decorate
        self._self_body = pickling.UndecoratedFunction(function, decorate)
        self._self_home: tuple[type, str] | None = None

    @property
    def home(self) -> tuple[type, str] | None:
        """The class that defines the function as a method, and its name there."""
        return self._self_home

    @property
    def last_run(self) -> Run | None:
        return self._self_tracking.last_run

    def sweep(
        self, points: SweepInput, *, n_jobs: int | None = None, resume: bool | str = False
    ) -> SweepTable:
        return self.sweep_of(self, points, n_jobs=n_jobs, resume=resume)

    def sweep_of(
        self, call: Any, points: SweepInput, *, n_jobs: int | None, resume: bool | str
    ) -> SweepTable:
        """Sweep over ``call``, which is this function or a method bound from it."""
        target = self._self_tracking.swept(call, getattr(call, "_self_instance", None))
        return sweep(target, points, n_jobs=n_jobs, resume=resume)

    def relabel(self, *, name: str | None, tags: Mapping[str, Any]) -> None:
        """Set another name for the runs, and default tags; both are pickled along with the function."""
        tracking = self._self_tracking
        tracking.name = name or tracking.name
        tracking.tags = {**tags, **tracking.tags}
        self._self_decorate.keywords.update(name=tracking.name, tags=tracking.tags)

    def __set_name__(self, owner: type, name: str) -> None:
        self._self_home = owner, name

    def __copy__(self) -> TrackedProxy:
        return self  # as for any function

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedProxy:
        function = copy.deepcopy(self.__wrapped__, memo)
        is_same = function is self.__wrapped__
        decorated: TrackedProxy = self if is_same else self._self_decorate(function)
        return decorated

    def __reduce_ex__(self, protocol: Any) -> Any:
        return pickling.reduce(self, self._self_body, self._self_decorate)
