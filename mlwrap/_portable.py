"""Decorated functions travel to other processes."""

from __future__ import annotations

import copy
import importlib
import inspect
import operator
import sys
from typing import Any


class Portable:
    """A decorated function on its way to a worker, until the proxy itself can be pickled.

    By its name where that finds it, else what was decorated and how.
    """

    def __init__(self, proxy: Any, tracking: Any, instance: object = None) -> None:
        self._proxy = proxy
        self._tracking = tracking
        self._instance = instance
        self.__signature__ = inspect.signature(proxy)

    def __call__(self, **kwargs: Any) -> Any:
        return self._proxy(**kwargs)

    def __reduce__(self) -> Any:
        if self._instance is not None:
            return _method, (self._instance, self._proxy.__name__)
        module, name = self._proxy.__module__, self._proxy.__qualname__
        try:
            found = operator.attrgetter(name)(sys.modules[module])
        except (AttributeError, KeyError):
            found = None
        if found is self._proxy and module != "__main__":
            return _named, (module, name)
        tracking = copy.copy(self._tracking)
        tracking.last_run = None
        return _decorated, (type(self._proxy), self._proxy.__wrapped__, tracking)


# Each gives another such thing, for what travels can travel on: Dask's scheduler opens and sends again.


def _method(instance: Any, name: str) -> Portable:
    return Portable(getattr(instance, name), None, instance)


def _named(module: str, name: str) -> Portable:
    return Portable(operator.attrgetter(name)(importlib.import_module(module)), None)


def _decorated(kind: Any, function: Any, tracking: Any) -> Portable:
    return Portable(kind(function, tracking), tracking)
