"""Wrap the methods of a callback that Keras calls, so that their errors do not end ``fit``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from mlwrap.errors import SaveError


class Callback(Protocol):
    """The callback whose method is called."""

    _metrics: Any

    def _failed(self, hook: str, error: Exception) -> None: ...


C = TypeVar("C", bound=Callback)
P = ParamSpec("P")


def hook(
    method: Callable[Concatenate[C, P], None],
) -> Callable[Concatenate[C, P], None]:
    """Wrap a hook: it does nothing without a run, and an error in it does not end ``fit``."""

    @functools.wraps(method)
    def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self._metrics is None:
            return
        try:
            method(self, *args, **kwargs)
        except SaveError:
            raise  # only raised with strict=True
        except Exception as error:  # noqa: BLE001 - no error may end fit()
            self._failed(method.__name__, error)

    return call
