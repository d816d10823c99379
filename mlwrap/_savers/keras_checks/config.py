"""What a Keras model's configuration names: classes and functions that are looked up to load it.

Asked twice. When a model is saved: would another process find them all, and in which modules? When it
is loaded: are they here already, so that nothing is run or opened that only the file speaks for? The
format is that of ``saving/serialization_lib.py`` of Keras 2 and 3.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mlwrap._savers.keras_checks.sizes import declared_weights
from mlwrap._savers.keras_checks.symbols import OWN, dangers, is_keras_symbol, is_part_of_models, resolve
from mlwrap._savers.modules import distribution_of, import_problem, source_of

_PICKLE = "TorchModuleWrapper"
# What a layer of Keras's reads from a file, where the configuration has its path in the place of the words.
_FILES = ("vocabulary", "merges", "proto")
# Classes of Keras's whose from_config calls cls(**config).
_PLAIN_BASES = ("Operation", "Layer", "Model", "Metric", "Loss", "Optimizer", "Initializer", "Regularizer")
# What is written as a value, though it has the form of an object.
_VALUES = (
    "__tensor__",
    "__numpy__",
    "__bytes__",
    "__ellipsis__",
    "__slice__",
    "__keras_tensor__",
    "__lambda__",
)


class ConfigNames(NamedTuple):
    """What a configuration names, and where that is found.

    Attributes:
        modules: To import before the model is loaded, sorted: they register what is not Keras's own.
        distributions: By the names of their top-level modules what has to be installed for them.
        unregistered: What Keras will not find by its name.
        hidden: What is registered where another process will not find it, and why.
        unsafe: What runs code or reads files that only the model's file speaks for.
        pickled: Names of the layers among them that are a pickle.
        unbuildable: Classes whose ``__init__`` does not take what their configuration holds, and why.
    """

    modules: tuple[str, ...]
    distributions: dict[str, str]
    unregistered: list[str]
    hidden: dict[str, str]
    unsafe: list[str]
    pickled: list[str]
    unbuildable: dict[str, str]

    @property
    def packages(self) -> tuple[str, ...]:
        """Names of the distributions."""
        return tuple(pin.partition("==")[0] for pin in self.distributions.values())

    @property
    def details(self) -> dict[str, Any]:
        """What is to be known where they are missing, to say what to install."""
        return {"distributions": self.distributions} if self.distributions else {}


def names_of(config: Any, keras: Any, classes: Mapping[str, type] | None = None) -> ConfigNames:
    """What a saved model's configuration will want of the process that loads it.

    Args:
        config: What is in ``config.json``.
        keras: The Keras that wrote it.
        classes: Classes of the model's own layers by name, for those that are not registered.
    """
    modules: set[str] = set()
    unregistered: dict[str, None] = {}
    hidden: dict[str, str] = {}
    unsafe: dict[str, None] = {}
    pickled: list[str] = []
    unbuildable: dict[str, str] = {}
    registered: Mapping[str, Any] = keras.saving.get_custom_objects() if keras is not None else {}
    for node, value, trouble in _found(config, keras, registered.get):
        unsafe.update(dict.fromkeys(trouble))
        if node["class_name"] == _PICKLE:
            pickled.append(str(node["config"].get("name")))
        cls = value if isinstance(value, type) else (classes or {}).get(node["class_name"])
        if (reason := _why_unbuildable(cls, node["config"])) is not None:
            unbuildable[_name(node)] = reason
        if value is None:
            unregistered[_full_name(node)] = None
        elif value is _VALUE or _is_of_keras(value):
            continue
        elif hiding := import_problem(value):
            hidden[_name(node)] = hiding
        else:
            modules.add(value.__module__)
    modules = {module for module in modules if module.partition(".")[0] not in ("keras", "tf_keras")}
    tops = {module.partition(".")[0] for module in modules}
    distributions = {top: pin for top in sorted(tops) if (pin := distribution_of(top)) is not None}
    return ConfigNames(
        tuple(sorted(modules)),
        distributions,
        sorted(unregistered),
        hidden,
        sorted(unsafe),
        pickled,
        unbuildable,
    )


def _is_of_keras(value: Any) -> bool:
    """Whether something is of the Keras that every model needs, and not of KerasHub and its like."""
    return str(getattr(value, "__module__", "")).partition(".")[0] in ("keras", "tf_keras")


def not_here(config: Any, keras: Any) -> tuple[list[str], list[str]]:
    """What a configuration names that is not in this process, and what in it would run code or read files.

    Args:
        config: What is in ``config.json``, by whomever.
        keras: The Keras that is to load it.
    """
    missing: dict[str, None] = {}
    unsafe: dict[str, None] = {}
    for node, value, trouble in _found(config, keras, keras.saving.get_registered_object):
        unsafe.update(dict.fromkeys(trouble))
        if value is None:
            missing[_full_name(node)] = None
    return sorted(missing), sorted(unsafe)


def needs_module(config: Any, module: str) -> bool:
    """Whether objects of a configuration are of a module, as far as it tells: of functions it does not."""
    functions = set()
    for node in _iter_nodes(config):
        if node.get("module") == module:
            return True
        if node["class_name"] == "function":
            functions.add(str(node["config"]).rpartition(">")[2])
    return not functions.isdisjoint(re.findall(r"\w+", source_of(module)))


def declared(config: Any) -> int:
    """The number of weights that a configuration declares."""
    return declared_weights(_iter_nodes(config))


def _iter_nodes(config: Any) -> Iterator[Mapping[str, Any]]:
    """Every object that a configuration describes; with a stack of our own, for a file may nest at will."""
    stack = [config]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            stack.extend(item.values())
            if isinstance(item.get("class_name"), str) and "config" in item:
                yield item
        elif isinstance(item, list | tuple):
            stack.extend(item)


def _name(node: Mapping[str, Any]) -> str:
    """The name that a class or function is registered by."""
    if node["class_name"] == "function":
        return str(node["config"])
    if node["class_name"] == "__typespec__":
        return str(node.get("registered_name") or node.get("spec_name"))
    return str(node.get("registered_name") or node["class_name"])


def _full_name(node: Mapping[str, Any]) -> str:
    name, module = _name(node), node.get("module")
    return name if module in (None, "builtins") or ">" in name else f"{module}.{name}"


_VALUE: Any = object()  # what a description leads to that describes no object


def _found(
    config: Any, keras: Any, find: Callable[[str], Any]
) -> Iterator[tuple[Mapping[str, Any], Any, list[str]]]:
    """Every object that is described, what Keras takes for it, and what that would run or read."""
    for node in _iter_nodes(config):
        if node["class_name"] in _VALUES and node.get("module") is None:
            yield node, _VALUE, list(_unsafe_parts(node))
            continue
        value = resolve(node, keras, find)
        if _is_type(node):
            value = _VALUE
        elif value is not None and is_keras_symbol(value) and not is_part_of_models(value):
            value = None
        elif (
            value is not None and not is_keras_symbol(value) and not _is_registered(value, keras, node, find)
        ):
            # Keras 2 takes whatever a module holds.
            value = value if isinstance(value, type) and hasattr(value, "from_config") else None
        yield node, value, [*_unsafe_parts(node), *(dangers(value, node) if value is not None else ())]


def _why_unbuildable(cls: Any, config: Any) -> str | None:
    """Why ``from_config`` can't make an object of a class; ``None`` if it can, or has a way of its own.

    Keras's own ``from_config`` calls ``cls(**config)``, so the keys are compared with what ``__init__``
    takes; nothing is run.
    """
    if (
        not isinstance(cls, type)
        or is_keras_symbol(cls)
        or not isinstance(config, Mapping)
        or "layers" in config
    ):
        return None
    home = next((base for base in cls.__mro__ if "from_config" in vars(base)), None)
    if home is None or not is_keras_symbol(home) or home.__name__ not in _PLAIN_BASES:
        return None
    parameters = _parameters(cls)
    if not any(one.kind is one.VAR_KEYWORD for one in parameters):
        strange = [key for key in config if key not in {one.name for one in parameters}]
        if strange:
            return f"its __init__() does not take {_listed(strange)}"
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [one.name for one in parameters if one.default is one.empty and one.kind in plain]
    lacking = [name for name in needed if name not in config]
    return f"its get_config() leaves out {_listed(lacking)}" if lacking else None


def _parameters(cls: Any) -> list[inspect.Parameter]:
    """What ``__init__`` takes, without ``self``; anything, where it does not say."""
    try:
        return list(inspect.signature(cls.__init__).parameters.values())[1:]
    except (TypeError, ValueError):
        return [inspect.Parameter("anything", inspect.Parameter.VAR_KEYWORD)]


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _is_type(node: Mapping[str, Any]) -> bool:
    package = str(node.get("module")).partition(".")[0]
    return node["class_name"] == "__typespec__" and package in ("tensorflow", *OWN)


def _is_registered(value: Any, keras: Any, node: Mapping[str, Any], find: Callable[[str], Any]) -> bool:
    registered = (find(_name(node)), *keras.saving.get_custom_objects().values())
    return any(value is one for one in registered)


def _unsafe_parts(node: Mapping[str, Any]) -> Iterator[str]:
    config = node["config"]
    name = config.get("name", "") if isinstance(config, Mapping) else ""
    if "__lambda__" in (node["class_name"], node.get("registered_name")):
        yield "a lambda (its code is in the file)"
    if not isinstance(config, Mapping):
        return
    if any(str(key).endswith("_type") and value == "lambda" for key, value in config.items()):
        yield f"a lambda in the layer {name!r} (its code is in the file)"
    for part in _FILES:
        if isinstance(config.get(part), str):
            yield f"{node['class_name']} {name!r}, which reads its {part} from {config[part]!r}"
