"""Identify objects by the names of their classes, without importing anything."""

from __future__ import annotations

import sys
from types import ModuleType


def has_class(value: object, *names: str, packages: tuple[str, ...]) -> bool:
    """Return whether one of ``value``'s classes has one of these names and is in one of these packages."""
    return owner(value, *names, packages=packages) is not None


def owner(value: object, *names: str, packages: tuple[str, ...]) -> str | None:
    """Return the package, one of ``packages``, of the first of ``value``'s classes with such a name.

    The class's own module decides, not what is installed or what ``tf.keras`` refers to: models of Keras 3,
    Keras 2 and tf_keras can be in one process.
    """
    for cls in type(value).__mro__:
        if cls.__name__ in names:
            for package in packages:
                if f"{cls.__module__}.".startswith(f"{package}."):
                    return package
    return None


def imported(name: str) -> ModuleType:
    """Return a module that must be imported already, because an object of it exists."""
    return sys.modules[name]


def class_name(value: object) -> str:
    """Return module and name of ``value``'s class, for messages."""
    return f"{type(value).__module__}.{type(value).__qualname__}"
