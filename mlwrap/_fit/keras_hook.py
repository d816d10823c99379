"""What stands between Keras and a method of a callback of ours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from mlwrap.errors import SaveError


class Callback(Protocol):
    """What a method is called on."""

    _points: Any

    def _failed(self, hook: str, error: Exception) -> None: ...


C = TypeVar("C", bound=Callback)
P = ParamSpec("P")


def hook(
    method: Callable[Concatenate[C, P], None],
) -> Callable[Concatenate[C, P], None]:
    """For what Keras calls: does nothing without a run, and what goes wrong in it ends no ``fit``."""

    @functools.wraps(method)
    def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self._points is None:
            return
        try:
            method(self, *args, **kwargs)
        except SaveError:
            raise  # only where the user asked for it with strict=True
        except Exception as error:  # noqa: BLE001 - see above
            self._failed(method.__name__, error)

    return call
