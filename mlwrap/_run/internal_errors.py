"""What breaks in mlwrap must not end the user's training."""

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
    """For the methods of a run: what goes wrong in one is said in a warning, a wrong call among it.

    Where nothing is recorded it does nothing, and after the run's end it raises ``RunStateError``.
    """

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        if not (self._recorder.ready or check_open(self._recorder, method.__name__)):
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - see above
            warn_or_reraise(self._recorder, method, error)
            return None

    return call


def never_raises(otherwise: Callable[..., Any], *args: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For the methods of a run that give something back: after a wrong call it is ``otherwise(*args)``."""

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def call(*given: P.args, **named: P.kwargs) -> R:
            try:
                return method(*given, **named)
            except Exception as error:  # noqa: BLE001 - see above
                run: Any = given[0]
                warn(f"run {run.name!r}: {_what_failed(method, error)}")
                return cast("R", otherwise(*args))

        return call

    return decorate


def check_open(recorder: Recorder, method: str) -> bool:
    """Whether a run's method has something to do, where the run is not :attr:`Recorder.ready`.

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
    """Say that a run's method failed, and how it is called.

    Raises:
        SaveError: That is what it failed with, and the run is strict.
        Diverged: Likewise, and the run's setting is ``nonfinite="stop"``.
    """
    if isinstance(error, SaveError | Diverged):
        raise error
    recorder.warn(_what_failed(method, error))


def _what_failed(method: Callable[..., Any], error: Exception) -> str:
    what = f"{method.__name__}() failed, and training goes on: {describe_error(error)}"
    if isinstance(error, OSError):  # which does not come of how it was called
        return what
    _, *known = inspect.signature(method).parameters.values()  # without "self"
    signature = inspect.Signature(
        [parameter.replace(annotation=inspect.Parameter.empty) for parameter in known]
    )
    return f"{what} Expected: {method.__name__}{signature}."
