"""What a Keras model's configuration names: classes and functions that are looked up to load it.

Asked twice. When a model is saved: would another process find them all, and in which modules? When it
is loaded: are they here already, so that nothing is run or opened that only the file speaks for? The
format is that of ``saving/serialization_lib.py`` of Keras 2 and 3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mlwrap.savers._modules import is_installed, trouble_of

# Packages whose classes Keras finds by their module, unregistered.
_OWN = ("keras", "tf_keras", "keras_hub", "keras_cv", "keras_nlp")
# Where Keras looks for a function of its own, which it writes by its name alone.
_HOMES = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")
# Modules of Keras's whose functions are parts of models; others download files, or start servers.
_FUNCTIONS = (*_HOMES, "ops", "random")
_PICKLE = "TorchModuleWrapper"
# Layers that hold foreign code or read files wherever the configuration says.
_FOREIGN = {
    "TFSMLayer": "loads a SavedModel from a path of its own",
    _PICKLE: "holds a pickled PyTorch module",
}
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
# Functions of TensorFlow's that layers of Keras 2 name: those of these modules compute, and those of its own
# but for a few; others read and write files, or run code.
_COMPUTING = (
    *("__operators__", "bitwise", "image", "linalg", "math", "nn", "ragged", "random", "sets", "signal"),
    *("sparse", "strings", *(f"keras.{home}" for home in ("backend", *_HOMES))),
)
_RUNNING = ("py_function", "py_func", "numpy_function", "load_op_library", "load_library", "print")


class Names(NamedTuple):
    """What a configuration names, and where that is found.

    Attributes:
        modules: To import before the model is loaded, sorted: they register what is not Keras's own.
        packages: Of them those that are installed, by the names of their top-level modules.
        unregistered: What Keras will not find by its name.
        hidden: What is registered where another process will not find it, and why.
        unsafe: What runs code or reads files that only the model's file speaks for.
        pickled: Names of the layers among them that are a pickle.
    """

    modules: tuple[str, ...]
    packages: tuple[str, ...]
    unregistered: list[str]
    hidden: dict[str, str]
    unsafe: list[str]
    pickled: list[str]


def names_of(config: Any, keras: Any) -> Names:
    """What a saved model's configuration will want of the process that loads it.

    Args:
        config: What is in ``config.json``.
        keras: The Keras that wrote it.
    """
    modules: set[str] = set()
    unregistered: dict[str, None] = {}
    hidden: dict[str, str] = {}
    unsafe: dict[str, None] = {}
    pickled: list[str] = []
    for node in _nodes(config):
        unsafe.update(dict.fromkeys(_unsafe(node)))
        if node["class_name"] == _PICKLE:
            pickled.append(str(node["config"].get("name")))
        if _is_foreign(node, keras):
            name = _name(node)
            value = _registered(name, node, keras.saving.get_custom_objects().get, keras) or _imported(
                node, keras
            )
            if value is None:
                unregistered[_full_name(node)] = None
            elif trouble := trouble_of(value):
                hidden[name] = trouble
            else:
                modules.add(value.__module__)
    modules = {module for module in modules if module.partition(".")[0] not in ("keras", "tf_keras")}
    tops = {module.partition(".")[0] for module in modules if is_installed(module)}
    return Names(
        tuple(sorted(modules)), tuple(sorted(tops)), sorted(unregistered), hidden, sorted(unsafe), pickled
    )


def not_here(config: Any, keras: Any) -> tuple[list[str], list[str]]:
    """What a configuration names that is not in this process, and what in it would run code or read files.

    Args:
        config: What is in ``config.json``, by whomever.
        keras: The Keras that is to load it.
    """
    missing: dict[str, None] = {}
    unsafe: dict[str, None] = {}
    for node in _nodes(config):
        unsafe.update(dict.fromkeys(_unsafe(node)))
        if _is_foreign(node, keras):
            found = _registered(_name(node), node, keras.saving.get_registered_object, keras)
            if found is None and not hasattr(_imported(node, keras), "from_config"):
                missing[_full_name(node)] = None
    return sorted(missing), sorted(unsafe)


def _nodes(config: Any) -> Iterator[Mapping[str, Any]]:
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


def _is_function(node: Mapping[str, Any]) -> bool:
    # A class is found by its name too where that is a function's: Keras gives back whatever is there.
    return node["class_name"] == "function" or not node["class_name"].lstrip("_")[:1].isupper()


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


def _is_foreign(node: Mapping[str, Any], keras: Any) -> bool:
    """Tell whether a node names something that is not Keras's own."""
    if node["class_name"] in _VALUES:
        return False
    package, _, inner = str(node.get("module") or "").partition(".")
    if node["class_name"] == "__typespec__":
        return package not in ("tensorflow", *_OWN)
    if "." in node["class_name"] or (node["class_name"] == "function" and "." in _name(node)):
        return True  # Keras 2 would look inside of what it finds
    if not _is_function(node):
        return package not in _OWN
    if package == "builtins" and node["class_name"] == "function":
        return not any(hasattr(getattr(keras, home, None), _name(node)) for home in _HOMES)
    return package not in _OWN or inner.removeprefix("src.").partition(".")[0] not in _FUNCTIONS


def _registered(name: str, node: Mapping[str, Any], find: Callable[[str], Any], keras: Any) -> Any:
    """What is registered by ``name``; of a function the name may have lost its package (Keras before 3.7)."""
    found = find(name)
    if found is None and node["class_name"] == "function" and ">" not in name:
        custom = keras.saving.get_custom_objects()
        found = next((custom[full] for full in custom if full.endswith(f">{name}")), None)
    return found


def _imported(node: Mapping[str, Any], keras: Any) -> Any:
    """The class that a node names by its module, where this Keras goes by that and it is imported."""
    # Keras 3 looks nowhere but in its own packages, for safety; Keras 2 imports what the file names.
    by_module = keras.__name__ == "tf_keras" or keras.__version__.startswith("2.")
    value = getattr(sys.modules.get(str(node.get("module"))), node["class_name"], None) if by_module else None
    return value if isinstance(value, type) else None


def _unsafe(node: Mapping[str, Any]) -> Iterator[str]:
    kinds, config = (node["class_name"], node.get("registered_name")), node["config"]
    name = config.get("name", "") if isinstance(config, Mapping) else ""
    if "__lambda__" in kinds:
        yield "a lambda (its code is in the file)"
    for kind, what in _FOREIGN.items():
        if kind in kinds:
            yield f"{kind} {name!r}, which {what}"
    if not isinstance(config, Mapping):
        return
    if any(key.endswith("_type") and value == "lambda" for key, value in config.items()):
        yield f"a lambda in the layer {name!r} (its code is in the file)"
    if isinstance(config.get("vocabulary"), str):
        yield f"{node['class_name']} {name!r}, which reads its vocabulary from {config['vocabulary']!r}"
    if "TFOpLambda" in kinds or "ClassMethod" in kinds:
        called = str(config.get("function", config.get("cls_symbol")))
        if not _computes(called):
            yield f"a layer {name!r} that calls TensorFlow's {called!r}"


def _computes(function: str) -> bool:
    """Tell whether a function of TensorFlow's, by its public name, does nothing but compute."""
    plain = function.removeprefix("tf.").removeprefix("compat.v1.").removeprefix("compat.v2.")
    if "." not in plain:
        return plain not in _RUNNING
    return any(plain.startswith(f"{module}.") for module in _COMPUTING)
