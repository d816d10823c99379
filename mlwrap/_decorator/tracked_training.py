"""``tracked_training``: ``model_run`` around a function, which also logs its arguments and its result."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from mlwrap._capture.arguments import Arguments
from mlwrap._decorator.call import TrackedCall
from mlwrap._decorator.proxy import TrackedFunction, TrackedProxy
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap.config import Options, check_type, checked_option
from mlwrap.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = ParamSpec("P")
R = TypeVar("R")


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
    run_id: str | None = None,
    **options: Unpack[Options],
) -> Callable[[Callable[P, R]], TrackedFunction[P, R]]: ...


def tracked_training(
    function: Any = None,
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
    run_id: str | None = None,
    **options: Unpack[Options],
) -> Any:
    """Track every call of a training function as an MLflow run.

    The call's arguments become parameters; models, histories and numbers in the return value are saved and
    logged. The caller gets the same object that the function returned, or its exception. For an ``async
    def``, the run is open while the coroutine runs.

    Args:
        function: The training function, if the decorator is used without parentheses.
        name: The runs' name in MLflow; by default the function's own.
        tags: Tags for MLflow.
        ignore: Names of arguments that are not captured.
        only: Names of the only arguments that are captured.
        serving_input_receiver_fn: For a function that returns an Estimator: its input when it is served.
        trust: Whether returned models without a safe format may be pickled: see :meth:`Run.log_model`.
        input_example: An example input of the returned model: an array, a mapping of names to arrays, a
            pandas frame or a list, stored in MLflow's format. For several models, a mapping of their names
            to examples.
        register_as: ``name`` or ``name@alias``: the returned model becomes a version in MLflow's registry,
            and the alias points to it. For several models, a mapping of their names to such.
        verify: ``"load"``: once a model of the run is logged, a separate process loads it, and with an
            ``input_example`` compares a prediction; the run's end waits for that. Checkpoints are not loaded.
        run_id: MLflow's id of an existing run, which each call reopens and writes to, as with
            :func:`mlwrap.model_run`.
        **options: Any of :class:`mlwrap.config.Settings`, for these runs only: ``experiment``,
            ``tracking_uri``, ``delivery``, ``wait``, ``spool``, ``strict``, ``quiet``, ``disabled``.

    Returns:
        The decorated function; without ``function``, a decorator.

    Raises:
        OptionError: An option is unknown or has the wrong type, or the object is not a training function but,
            for example, a generator. Raised when the function is decorated.
    """
    for option, value, expected in (
        ("name", name, str),
        ("tags", tags, Mapping),
        ("serving_input_receiver_fn", serving_input_receiver_fn, Callable),
        ("trust", trust, bool),
        ("run_id", run_id, str),
    ):
        if value is not None:
            check_type(option, value, expected)
    checked = {option: checked_option(option, value) for option, value in options.items()}
    save_options: dict[str, Any] = {
        "serving_input_receiver_fn": serving_input_receiver_fn,
        "trust": trust,
        "input_example": input_example,
        "register_as": register_as,
        "verify": verify,
    }
    SaveOptions(**save_options)  # raises if they are invalid
    tracking_options = {"name": name, "tags": tags, "ignore": ignore, "only": only, "run_id": run_id}
    all_options = tracking_options | save_options | checked

    def decorate(function: Callable[..., Any]) -> Any:
        body, asynchronous = _trainable(function)
        tracking = TrackedCall(
            body,
            Arguments(body, ignore=ignore, only=only),
            asynchronous=asynchronous,
            name=name or str(getattr(body, "__name__", type(body).__name__)),
            tags=tags or {},
            asked=save_options,
            options=checked,
            run_id=run_id,
        )
        return TrackedProxy(function, tracking, functools.partial(tracked_training, **all_options))

    return decorate if function is None else decorate(function)


def _trainable(function: object) -> tuple[Callable[..., Any], bool]:
    """Return the function to track and whether it returns coroutines; raise if it can't be tracked."""
    body = getattr(function, "__func__", function)  # of a classmethod or staticmethod
    routine = body.func if isinstance(body, functools.partial) else body
    if not callable(body) or inspect.isclass(body):
        raise OptionError(f"tracked_training decorates a training function, and got {function!r}.")
    if not inspect.isroutine(routine):  # a callable object: its class defines the call
        routine = type(routine).__call__
    if inspect.isgeneratorfunction(routine) or inspect.isasyncgenfunction(routine):
        raise OptionError(
            f"{routine.__qualname__} is a generator: it returns before it has trained. Track its body with "
            "'with mlwrap.model_run(...):', or decorate the function that consumes it."
        )
    return body, inspect.iscoroutinefunction(routine)


def relabel(function: Any, *, name: str | None, tags: Mapping[str, Any]) -> bool:
    """Set another name for the runs of a decorated function, and default tags.

    Args:
        function: The decorated function, also wrapped by other decorators.
        name: The name; ``None`` keeps the current one.
        tags: The tags, which the function's own override.

    Returns:
        Whether it is a decorated function.
    """
    # wrapt calls the function's proxy the parent of a method's proxy.
    while not isinstance(proxy := getattr(function, "_self_parent", None) or function, TrackedProxy):
        wrapped = (getattr(function, attribute, None) for attribute in ("__func__", "func", "__wrapped__"))
        function = next((candidate for candidate in wrapped if candidate is not None), None)
        if function is None:
            return False
    proxy.relabel(name=name, tags=tags)
    return True
