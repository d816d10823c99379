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
        recorder = self._recorder
        if recorder.status != "RUNNING":
            raise RunStateError(
                f"{method.__name__}() was called on run {recorder.name!r}, which has ended "
                f"({recorder.status}). Call it while the run is open."
            )
        if not recorder.recording:
            return None
        try:
            recorder.models.report()
            return method(self, *args, **kwargs)
        except (SaveError, Diverged):
            raise  # only where the user asked for it with strict=True, with nonfinite="stop"
        except Exception as error:  # noqa: BLE001 - see above
            recorder.warn(f"{method.__name__}() failed, and training goes on: {told(error)}")
            return None

    return call
