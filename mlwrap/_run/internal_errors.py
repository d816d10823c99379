"""Keep errors inside mlwrap from ending the user's training."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from mlwrap._recording.recorder import Recorder
from mlwrap.errors import Diverged, RunStateError, SaveError, describe_error, warn


class _Recording(Protocol):
    _recorder: Recorder


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=_Recording)


def handle_internal_errors(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R | None]:
    """Turn every error of a run's method, also of a wrong call, into a warning.

    If nothing is recorded, the method does nothing; after the run's end it raises ``RunStateError``.
    """

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        if not (self._recorder.ready or check_open(self._recorder, method.__name__)):
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - see the docstring
            warn_or_reraise(self._recorder, method, error)
            return None

    return call


def never_raises(otherwise: Callable[..., Any], *args: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turn every error of a run's method into a warning; the method then returns ``otherwise(*args)``."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def call(*call_args: P.args, **call_kwargs: P.kwargs) -> R:
            try:
                return method(*call_args, **call_kwargs)
            except Exception as error:  # noqa: BLE001 - see the docstring
                run: Any = call_args[0]
                warn(f"run {run.name!r}: {_failure_message(method, error)}")
                return cast("R", otherwise(*args))

        return call

    return decorate


def check_open(recorder: Recorder, method: str) -> bool:
    """Return whether a run's method has something to record, if the run is not :attr:`Recorder.ready`.

    Raises:
        RunStateError: The run has ended.
        SaveError: A model could not be saved in the background, and the run is strict.
    """
    if recorder.status != "RUNNING":
        raise RunStateError(
            f"{method}() was called on run {recorder.name!r}, which has ended "
            f"({recorder.status}). Call it while the run is open."
        )
    if recorder.recording:
        recorder.report_failed_saves()
    return recorder.recording


def warn_or_reraise(recorder: Recorder, method: Callable[..., Any], error: Exception) -> None:
    """Warn that a run's method failed, and how to call it; raise the errors that the user asked for.

    Raises:
        SaveError: The method failed with it, because the run is strict.
        Diverged: The method failed with it, because the run's setting is ``nonfinite="stop"``.
    """
    if isinstance(error, SaveError | Diverged):
        raise error
    recorder.warn(_failure_message(method, error))


def _failure_message(method: Callable[..., Any], error: Exception) -> str:
    description = f"{method.__name__}() failed, and training goes on: {describe_error(error)}"
    if isinstance(error, OSError):  # not caused by how the method was called
        return description
    _, *parameters = inspect.signature(method).parameters.values()  # without "self"
    signature = inspect.Signature(
        [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    )
    return f"{description} Expected: {method.__name__}{signature}."
