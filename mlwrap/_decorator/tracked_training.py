"""``tracked_training``: ``model_run`` around a function, plus what went in and what came out."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from mlwrap._capture.arguments import Arguments
from mlwrap._decorator.call import TrackedCall
from mlwrap._decorator.proxy import TrackedFunction, TrackedProxy
from mlwrap._savers.saver import SaveOptions
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

    The call's arguments become parameters; models, histories and numbers in what it returns are saved and
    logged. The caller gets the very object that the function returned, or its own exception. Of an ``async
    def`` the run is open for as long as the coroutine runs.

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
        verify: ``"load"``: once a model of the run is logged a process of its own loads it, and with an
            ``input_example`` compares a prediction; the run's end waits for that. Checkpoints are not loaded.
        run_id: MLflow's id of an existing run, which each call opens again and writes on, as with
            :func:`mlwrap.model_run`.
        **options: Any of :class:`mlwrap.config.Settings`, for these runs alone: ``experiment``,
            ``tracking_uri``, ``delivery``, ``wait``, ``spool``, ``strict``, ``quiet``, ``disabled``.

    Returns:
        The decorated function; without ``function``, a decorator.

    Raises:
        OptionError: An option that there is not, or one of the wrong type; something that is no training
            function, as a generator. Raised when the function is decorated.
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
    asked: dict[str, Any] = {
        "serving_input_receiver_fn": serving_input_receiver_fn,
        "trust": trust,
        "input_example": input_example,
        "register_as": register_as,
        "verify": verify,
    }
    SaveOptions(**asked)  # says what is wrong with them
    own = {"name": name, "tags": tags, "ignore": ignore, "only": only, "run_id": run_id}
    given = own | asked | checked

    def decorate(function: Callable[..., Any]) -> Any:
        body, asynchronous = _trainable(function)
        tracking = TrackedCall(
            body,
            Arguments(body, ignore=ignore, only=only),
            asynchronous=asynchronous,
            name=name or str(getattr(body, "__name__", type(body).__name__)),
            tags=tags or {},
            asked=asked,
            options=checked,
            run_id=run_id,
        )
        return TrackedProxy(function, tracking, functools.partial(tracked_training, **given))

    return decorate if function is None else decorate(function)


def _trainable(function: object) -> tuple[Callable[..., Any], bool]:
    """The function to track, and whether it gives coroutines; or a sentence about why it can't be tracked."""
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
    return body, inspect.iscoroutinefunction(asked)


def relabel(function: Any, *, name: str | None, tags: Mapping[str, Any]) -> bool:
    """Give the runs of a decorated function another name, and tags below its own.

    Args:
        function: The decorated function, or what other decorators have made of it.
        name: The name; ``None`` leaves it.
        tags: The tags.

    Returns:
        Whether it is a decorated function.
    """
    # A method's proxy has the function's for its parent, as wrapt names it.
    while not isinstance(found := getattr(function, "_self_parent", None) or function, TrackedProxy):
        behind = (getattr(function, attribute, None) for attribute in ("__func__", "func", "__wrapped__"))
        function = next((each for each in behind if each is not None), None)
        if function is None:
            return False
    found.relabel(name=name, tags=tags)
    return True
