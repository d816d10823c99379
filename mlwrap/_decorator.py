"""``tracked_training``: ``model_run`` around a function, plus what went in and what came out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

import wrapt

from mlwrap._capture import Arguments
from mlwrap._grid import Points
from mlwrap._model_run import RunContext
from mlwrap._portable import Portable
from mlwrap._run import Run
from mlwrap._sweep import Swept, sweep
from mlwrap._sweep_table import SweepTable
from mlwrap.config import check_type, checked_option, settings
from mlwrap.errors import OptionError
from mlwrap.savers import SaveOptions

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class TrackedFunction(Protocol[P, R]):
    """A decorated training function: called, it does and returns what the function does.

    Attributes:
        last_run: The run of the newest call, also while it is open; ``None`` before the first.
        __wrapped__: The function itself; calling it tracks nothing.
    """

    last_run: Run | None
    __wrapped__: Callable[P, R]
    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    def sweep(self, points: Points, *, n_jobs: int | None = None, resume: bool | str = False) -> SweepTable:
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
    def __get__(self, instance: None, owner: type | None = None) -> TrackedFunction[P, R]: ...

    @overload
    def __get__(
        self: TrackedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> TrackedFunction[Q, R]: ...


@overload
def tracked_training(function: Callable[P, R], /) -> TrackedFunction[P, R]: ...


@overload
def tracked_training(
    *,
    name: str | None = None,
    tags: Mapping[str, Any] | None = None,
    ignore: str | Iterable[str] = (),
    only: str | Iterable[str] | None = None,
    serving_input_receiver_fn: Callable[[], Any] | None = None,
    trust: bool = False,
    input_example: Any = None,
    register_as: str | Mapping[str, str] | None = None,
    verify: Literal["static", "load"] = "static",
    **options: Any,
) -> Callable[[Callable[P, R]], TrackedFunction[P, R]]: ...


def tracked_training(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    tags: Mapping[str, Any] | None = None,
    ignore: str | Iterable[str] = (),
    only: str | Iterable[str] | None = None,
    serving_input_receiver_fn: Callable[[], Any] | None = None,
    trust: bool = False,
    input_example: Any = None,
    register_as: str | Mapping[str, str] | None = None,
    verify: Literal["static", "load"] = "static",
    **options: Any,
) -> Any:
    """Track every call of a training function as an MLflow run.

    The call's arguments become parameters; models, histories and numbers in what it returns are saved and
    logged. The caller gets the very object that the function returned, or its own exception.

    Args:
        function: The training function, where the decorator is used bare.
        name: The runs' name in MLflow; by default the function's own.
        tags: Tags for MLflow.
        ignore: Names of arguments that are not to be captured.
        only: Names of the only arguments that are.
        serving_input_receiver_fn: For a function that returns an Estimator: how it is fed when served.
        trust: Whether returned models may be pickled that have no safe format: see :meth:`Run.log_model`.
        input_example: What the returned model can be fed: an array, a mapping of names to arrays, a pandas
            frame or a list, stored as MLflow stores it. For several models, a mapping of their names to such.
        register_as: ``name`` or ``name@alias``: the returned model becomes a version in MLflow's registry, to
            which the alias points. For several models, a mapping of their names to such.
        verify: ``"load"``: once a returned model is logged a process of its own loads it, and with an
            ``input_example`` compares a prediction; the run's end waits for that.
        **options: Any of :class:`mlwrap.config.Settings`, for these runs alone: ``experiment``,
            ``tracking_uri``, ``delivery``, ``spool``, ``strict``, ``quiet``, ``disabled``.

    Returns:
        The decorated function; without ``function``, a decorator.

    Raises:
        OptionError: An option that there is not, or one of the wrong type; something that is no training
            function. Raised when the function is decorated.
    """
    for option, value, expected in (
        ("name", name, str),
        ("tags", tags, Mapping),
        ("serving_input_receiver_fn", serving_input_receiver_fn, Callable),
        ("trust", trust, bool),
    ):
        if value is not None:
            check_type(option, value, expected)
    checked = {option: checked_option(option, value) for option, value in options.items()}
    asked = {
        "serving_input_receiver_fn": serving_input_receiver_fn,
        "trust": trust,
        "input_example": input_example,
        "register_as": register_as,
        "verify": verify,
    }
    SaveOptions(**asked)  # says what is wrong with them

    def decorate(function: Callable[..., Any]) -> Any:
        body = _trainable(function)
        tracking = _Tracking(
            body,
            Arguments(body, ignore=ignore, only=only),
            name=name or str(getattr(body, "__name__", type(body).__name__)),
            tags=tags or {},
            asked=asked,
            options=checked,
        )
        return _TrackedFunction(function, tracking)

    return decorate if function is None else decorate(function)


class _Tracking:
    """What one decorated function needs at each call, settled when it was decorated."""

    def __init__(
        self,
        body: Callable[..., Any],
        arguments: Arguments,
        *,
        name: str,
        tags: Mapping[str, Any],
        asked: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self._body = body
        self._arguments = arguments
        self.name = name
        self.tags = tags
        self._asked = asked
        self._options = options
        self.last_run: Run | None = None

    def __call__(
        self, wrapped: Callable[..., Any], instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        chosen = settings(**self._options)
        context = RunContext(
            self.name,
            chosen,
            capture=functools.partial(self._arguments.capture, instance, args, kwargs),
            tags=self.tags,
            function=self._body,
        )
        with context as run:
            self.last_run = run
            result = wrapped(*args, **kwargs)
            run.record(result, **self._asked)
        return result

    def swept(self, call: Callable[..., Any], instance: object = None) -> Swept:
        """What a sweep needs to know."""
        return Swept(call, self._body, instance, self._arguments, self.name, self.tags, self._options)


if TYPE_CHECKING:
    _FunctionWrapper = wrapt.FunctionWrapper[..., Any]
    _BoundFunctionWrapper = wrapt.BoundFunctionWrapper[..., Any]
else:  # wrapt 1 has no generic types
    _FunctionWrapper = wrapt.FunctionWrapper
    _BoundFunctionWrapper = wrapt.BoundFunctionWrapper


class _Bound(_BoundFunctionWrapper):
    """A decorated method, looked up on an instance or a class."""

    @property
    def last_run(self) -> Run | None:
        parent: _TrackedFunction = self._self_parent
        return parent.last_run

    def sweep(self, points: Points, *, n_jobs: int | None = None, resume: bool | str = False) -> SweepTable:
        parent: _TrackedFunction = self._self_parent
        instance = self._self_instance
        call = Portable(self, parent._self_tracking, instance)  # noqa: SLF001 - its own
        return sweep(parent._self_tracking.swept(call, instance), points, n_jobs=n_jobs, resume=resume)  # noqa: SLF001


class _TrackedFunction(_FunctionWrapper):
    """The proxy that stands for the function: same name, signature, docstring and type."""

    __bound_function_wrapper__ = _Bound

    def __init__(self, function: Callable[..., Any], tracking: _Tracking) -> None:
        super().__init__(function, tracking)
        self._self_tracking = tracking

    @property
    def last_run(self) -> Run | None:
        return self._self_tracking.last_run

    def sweep(self, points: Points, *, n_jobs: int | None = None, resume: bool | str = False) -> SweepTable:
        tracking = self._self_tracking
        return sweep(tracking.swept(Portable(self, tracking)), points, n_jobs=n_jobs, resume=resume)


def _trainable(function: object) -> Callable[..., Any]:
    """The function behind ``function``, or a sentence about why it can't be tracked."""
    body = getattr(function, "__func__", function)  # of a classmethod or staticmethod
    asked = body.func if isinstance(body, functools.partial) else body
    if not callable(body) or inspect.isclass(body):
        raise OptionError(f"tracked_training decorates a training function, and got {function!r}.")
    if not inspect.isroutine(asked):  # an object that can be called: what it does is in its class
        asked = type(asked).__call__
    if inspect.isgeneratorfunction(asked) or inspect.isasyncgenfunction(asked):
        raise OptionError(
            f"{asked.__qualname__} is a generator: it returns before it has trained. Track its body with "
            "'with mlwrap.model_run(...):', or decorate the function that consumes it."
        )
    if inspect.iscoroutinefunction(asked):
        raise OptionError(
            f"{asked.__qualname__} is a coroutine function: it returns before it has trained. Decorate the "
            "function that trains, or use 'with mlwrap.model_run(...):' inside."
        )
    return body


def relabel(function: Any, *, name: str | None, tags: Mapping[str, Any]) -> bool:
    """Give the runs of a decorated function another name, and tags below its own.

    Args:
        function: The decorated function, or what other decorators have made of it.
        name: The name; ``None`` leaves it.
        tags: The tags.

    Returns:
        Whether it is a decorated function.
    """
    while not isinstance(
        tracking := getattr(function, "_self_wrapper", None), _Tracking
    ):  # as wrapt names it
        behind = (getattr(function, attribute, None) for attribute in ("__func__", "func", "__wrapped__"))
        function = next((found for found in behind if found is not None), None)
        if function is None:
            return False
    tracking.name = name or tracking.name
    tracking.tags = {**tags, **tracking.tags}
    return True
