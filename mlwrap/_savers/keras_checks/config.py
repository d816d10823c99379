"""Check the classes and functions that a Keras model's configuration names.

When a model is saved, the question is whether another process would find them, and in which modules. When it
is loaded, the question is whether they are registered already, so that the file alone can't make code run or
files open. The format is that of ``saving/serialization_lib.py`` of Keras 2 and 3.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mlwrap._savers.class_modules import distribution_of, import_problem, source_of
from mlwrap._savers.keras_checks.sizes import declared_weights
from mlwrap._savers.keras_checks.symbols import OWN, dangers, is_keras_symbol, is_part_of_models, resolve

_PICKLE = "TorchModuleWrapper"
# Arguments that a Keras layer reads from a file if the configuration has a path in place of the words.
_FILES = ("vocabulary", "merges", "proto")
# Keras classes whose from_config calls cls(**config).
_PLAIN_BASES = ("Operation", "Layer", "Model", "Metric", "Loss", "Optimizer", "Initializer", "Regularizer")
# Values that are written in the form of an object.
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
    """The names in a configuration, and where they can be found.

    Attributes:
        modules: Modules to import before loading, sorted: they register classes that are not Keras's.
        distributions: The distributions to install for them, by top-level module name.
        unregistered: Names that Keras will not find.
        hidden: Names that are registered in a place another process can't import, and why.
        unsafe: Parts that run code or read files on the authority of the model's file alone.
        pickled: Names of the layers that are a pickle.
        unbuildable: Classes whose ``__init__`` does not accept their configuration, and why.
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
        """The names of the distributions."""
        return tuple(pin.partition("==")[0] for pin in self.distributions.values())

    @property
    def details(self) -> dict[str, Any]:
        """The details that ``load`` needs to say what to install."""
        return {"distributions": self.distributions} if self.distributions else {}


def names_of(config: Any, keras: Any, classes: Mapping[str, type] | None = None) -> ConfigNames:
    """Return the names in a saved model's configuration that the loading process must find.

    Args:
        config: The content of ``config.json``.
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
    for node, value, risks in _resolved_objects(config, keras, registered.get):
        unsafe.update(dict.fromkeys(risks))
        if node["class_name"] == _PICKLE:
            pickled.append(str(node["config"].get("name")))
        cls = value if isinstance(value, type) else (classes or {}).get(node["class_name"])
        if (reason := _why_unbuildable(cls, node["config"])) is not None:
            unbuildable[_name(node)] = reason
        if value is None:
            unregistered[_full_name(node)] = None
        elif value is _VALUE or _is_of_keras(value):
            continue
        elif import_failure := import_problem(value):
            hidden[_name(node)] = import_failure
        else:
            modules.add(value.__module__)
    modules = {module for module in modules if module.partition(".")[0] not in ("keras", "tf_keras")}
    tops = {module.partition(".")[0] for module in modules}
    distributions = {
        top: distribution for top in sorted(tops) if (distribution := distribution_of(top)) is not None
    }
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
    """Return whether something is part of Keras itself, and not of KerasHub or a similar package."""
    return str(getattr(value, "__module__", "")).partition(".")[0] in ("keras", "tf_keras")


def not_here(config: Any, keras: Any) -> tuple[list[str], list[str]]:
    """Return the names that this process lacks, and the parts that would run code or read files.

    Args:
        config: The content of ``config.json``, which may be written by anyone.
        keras: The Keras that will load it.
    """
    missing: dict[str, None] = {}
    unsafe: dict[str, None] = {}
    for node, value, risks in _resolved_objects(config, keras, keras.saving.get_registered_object):
        unsafe.update(dict.fromkeys(risks))
        if value is None:
            missing[_full_name(node)] = None
    return sorted(missing), sorted(unsafe)


def needs_module(config: Any, module: str) -> bool:
    """Return whether a configuration has objects of a module.

    A function's module is unknown; it counts if the module's source contains its name.
    """
    functions = set()
    for node in _iter_nodes(config):
        if node.get("module") == module:
            return True
        if node["class_name"] == "function":
            functions.add(str(node["config"]).rpartition(">")[2])
    return not functions.isdisjoint(re.findall(r"\w+", source_of(module)))


def declared(config: Any) -> int:
    """Return the number of weights that a configuration declares."""
    return declared_weights(_iter_nodes(config))


def _iter_nodes(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object that a configuration describes; iteratively, because files may nest deeply."""
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
    """Return the name that a class or function is registered by."""
    if node["class_name"] == "function":
        return str(node["config"])
    if node["class_name"] == "__typespec__":
        return str(node.get("registered_name") or node.get("spec_name"))
    return str(node.get("registered_name") or node["class_name"])


def _full_name(node: Mapping[str, Any]) -> str:
    name, module = _name(node), node.get("module")
    return name if module in (None, "builtins") or ">" in name else f"{module}.{name}"


_VALUE: Any = object()  # stands for a description of a value, not of an object


def _resolved_objects(
    config: Any, keras: Any, find: Callable[[str], Any]
) -> Iterator[tuple[Mapping[str, Any], Any, list[str]]]:
    """Yield every described object, what Keras takes for it, and what that would run or read."""
    for node in _iter_nodes(config):
        if node["class_name"] in _VALUES and node.get("module") is None:
            yield node, _VALUE, list(_unsafe_parts(node))
            continue
        value = resolve(node, keras, find)
        if _is_typespec(node):
            value = _VALUE
        elif value is not None and is_keras_symbol(value) and not is_part_of_models(value):
            value = None
        elif (
            value is not None and not is_keras_symbol(value) and not _is_registered(value, keras, node, find)
        ):
            # Keras 2 accepts anything that is in a module.
            value = value if isinstance(value, type) and hasattr(value, "from_config") else None
        yield node, value, [*_unsafe_parts(node), *(dangers(value, node) if value is not None else ())]


def _why_unbuildable(cls: Any, config: Any) -> str | None:
    """Return why ``from_config`` can't build a class; ``None`` if it can, or is overridden.

    Keras's own ``from_config`` calls ``cls(**config)``, so the keys are compared with the parameters of
    ``__init__``; nothing is called.
    """
    if (
        not isinstance(cls, type)
        or is_keras_symbol(cls)
        or not isinstance(config, Mapping)
        or "layers" in config
    ):
        return None
    definer = next((base for base in cls.__mro__ if "from_config" in vars(base)), None)
    if definer is None or not is_keras_symbol(definer) or definer.__name__ not in _PLAIN_BASES:
        return None
    parameters = _parameters(cls)
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        unknown = [key for key in config if key not in {parameter.name for parameter in parameters}]
        if unknown:
            return f"its __init__() does not take {_quoted(unknown)}"
    named_kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind in named_kinds
    ]
    missing = [name for name in needed if name not in config]
    return f"its get_config() leaves out {_quoted(missing)}" if missing else None


def _parameters(cls: Any) -> list[inspect.Parameter]:
    """Return the parameters of ``__init__`` without ``self``; ``**anything`` if they can't be read."""
    try:
        return list(inspect.signature(cls.__init__).parameters.values())[1:]
    except (TypeError, ValueError):
        return [inspect.Parameter("anything", inspect.Parameter.VAR_KEYWORD)]


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _is_typespec(node: Mapping[str, Any]) -> bool:
    package = str(node.get("module")).partition(".")[0]
    return node["class_name"] == "__typespec__" and package in ("tensorflow", *OWN)


def _is_registered(value: Any, keras: Any, node: Mapping[str, Any], find: Callable[[str], Any]) -> bool:
    registered = (find(_name(node)), *keras.saving.get_custom_objects().values())
    return any(value is candidate for candidate in registered)


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
