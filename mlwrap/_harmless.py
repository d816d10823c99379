"""What breaks in mlwrap must not end the user's training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from mlwrap._recorder import Recorder
from mlwrap.errors import Diverged, RunStateError, SaveError, told


class _Recording(Protocol):
    _recorder: Recorder


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=_Recording)


def harmless(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R | None]:
    """For the methods of a run: what goes wrong in one is said in a warning.

    Where nothing is recorded it does nothing, and after the run's end it raises ``RunStateError``.
    """

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        if not (self._recorder.ready or is_open(self._recorder, method.__name__)):
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - see above
            failed(self._recorder, method.__name__, error)
            return None

    return call


def is_open(recorder: Recorder, method: str) -> bool:
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
        recorder.tell_failures()
    return recorder.recording


def failed(recorder: Recorder, method: str, error: Exception) -> None:
    """Say that a run's method failed.

    Raises:
        SaveError: That is what it failed with, and the run is strict.
        Diverged: Likewise, and the run's setting is ``nonfinite="stop"``.
    """
    if isinstance(error, SaveError | Diverged):
        raise error
    recorder.warn(f"{method}() failed, and training goes on: {told(error)}")
