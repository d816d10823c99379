"""What an object is, told by the names of its classes: nothing needs to be imported to ask."""

from __future__ import annotations

import sys
from types import ModuleType


def has_class(value: object, *names: str, packages: tuple[str, ...]) -> bool:
    """Tell whether one of ``value``'s classes has one of these names and lives in one of these packages."""
    return owner(value, *names, packages=packages) is not None


def owner(value: object, *names: str, packages: tuple[str, ...]) -> str | None:
    """The package, of those given, that the first of ``value``'s classes with such a name lives in.

    The object's own package is asked, never what is installed or what ``tf.keras`` happens to be:
    Keras 3, Keras 2 and tf_keras models meet in one process.
    """
    for cls in type(value).__mro__:
        if cls.__name__ in names:
            for package in packages:
                if f"{cls.__module__}.".startswith(f"{package}."):
                    return package
    return None


def imported(name: str) -> ModuleType:
    """The module that an object of its own proves to be imported already."""
    return sys.modules[name]


def class_name(value: object) -> str:
    """Module and name of ``value``'s class, as messages show it."""
    return f"{type(value).__module__}.{type(value).__qualname__}"
