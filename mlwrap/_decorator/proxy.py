"""What stands for a decorated function: called it is a run, and in all else it is the function."""

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
    """A decorated training function: called, it does and returns what the function does.

    Attributes:
        last_run: The run of the newest call that this thread or asyncio task made, also while it is open;
            where it made none, of the newest call of all. ``None`` before the first.
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
        """Call the function once for each point, with a run around all: see ``docs/how-to/sweep.md``.

        Args:
            points: A grid, which is a mapping of parameters' names to lists of values, every combination of
                which is a point; or the keyword arguments of each point.
            n_jobs: How many run at the same time, as joblib counts them. It chooses the engine, too: its own
                processes, or what ``joblib.parallel_config`` says, such as Dask or Ray.
            resume: ``True`` skips each point whose run FINISHED in any sweep in the experiment with the same
                parameters, as they were logged, and the same code of the function; the id or the key of a
                sweep's run, those of that sweep alone.

        Returns:
            The points in their order, each with metrics, status, run id and error. What the function returned
            is logged, and not in it.

        Raises:
            OptionError: The points, or an option, can't be used; nothing has run.
            DeliveryError: What is to be resumed can't be looked up; nothing has run.
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
    """What a proxy says that it is: what it stands for, but never a plain function.

    cloudpickle writes functions down by their code, and would leave the tracking behind without a word.
    """
    kind: type = type(proxy.__wrapped__)
    return type(proxy) if issubclass(kind, FunctionType) else kind


class _Annotations(dict[str, Any]):
    """What a proxy's class has under ``__annotations__``: of a proxy, the function's own; of the class, none.

    Without it Python gives the class an empty dictionary there as soon as somebody asks for it, as
    ``isinstance(train, SomeProtocol)`` does, and that would hide the function's from then on. It is a
    dictionary for those who read the class's own, as ``typing.get_type_hints`` does.
    """

    def __get__(self, proxy: Any, owner: type | None = None) -> Any:
        return self if proxy is None else proxy.__wrapped__.__annotations__

    def __set__(self, proxy: Any, annotations: Any) -> None:
        proxy.__wrapped__.__annotations__ = annotations

    def __delete__(self, proxy: Any) -> None:
        del proxy.__wrapped__.__annotations__


class _Bound(_BoundFunctionWrapper):
    """A decorated method, looked up on an instance or a class."""

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
        look_up, found_by = self.__reduce_ex__(4)
        return look_up(*copy.deepcopy(found_by, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A method travels as what it is bound to and its name there."""
        parent: TrackedProxy = self._self_parent
        home, name = parent.home or (None, self.__name__)
        owner = self._self_instance
        if owner is None:
            owner = getattr(self.__wrapped__, "__self__", home)
        if owner is None:  # its class has travelled, and did not say to its methods that it is theirs
            return operator.methodcaller("__get__", None, object), (parent,)
        return getattr, (owner, name)


class TrackedProxy(_FunctionWrapper):
    """The proxy that stands for the function: same name, signature, docstring and type.

    Args:
        function: What was decorated.
        tracking: What happens at each call.
        decorate: Decorates a function as this one was; travels to other processes.
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
        """The class that it stands in, and its name there."""
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
        """Sweep over ``call``, which is this function, or it as a method of something."""
        swept = self._self_tracking.swept(call, getattr(call, "_self_instance", None))
        return sweep(swept, points, n_jobs=n_jobs, resume=resume)

    def relabel(self, *, name: str | None, tags: Mapping[str, Any]) -> None:
        """Give the runs another name, and tags below their own; here and wherever it travels."""
        tracking = self._self_tracking
        tracking.name = name or tracking.name
        tracking.tags = {**tags, **tracking.tags}
        self._self_decorate.keywords.update(name=tracking.name, tags=tracking.tags)

    def __set_name__(self, owner: type, name: str) -> None:
        self._self_home = owner, name

    def __copy__(self) -> TrackedProxy:
        return self  # as of any function

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedProxy:
        function = copy.deepcopy(self.__wrapped__, memo)
        same = function is self.__wrapped__
        decorated: TrackedProxy = self if same else self._self_decorate(function)
        return decorated

    def __reduce_ex__(self, protocol: Any) -> Any:
        return pickling.reduce(self, self._self_body, self._self_decorate)
