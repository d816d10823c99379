"""Resolve the names in a Keras configuration as Keras does, and judge the results.

One function has many names (``io.write_file``, ``compat.v1.write_file``), and one class is in several
modules, so a name alone decides nothing. Nothing is called, and only Keras's own modules are imported. The
search order is that of ``_retrieve_class_or_fn`` in ``saving/serialization_lib.py`` of Keras 2 and 3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from mlwrap._savers.keras_checks.functions import CLASS_METHODS, COMPUTING, METHODS
from mlwrap._savers.keras_checks.packages import major_version
from mlwrap._savers.tensorflow.graph_operations import ALLOWED, REASONS

# Packages whose classes Keras finds by their module, without registration.
OWN = ("keras", "tf_keras", "keras_hub", "keras_cv", "keras_nlp")
# Modules where Keras looks for its own functions, which it writes by name alone.
HOMES = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")
# Keras modules whose functions are parts of models; functions of others download files or start servers.
_FUNCTIONS = (*HOMES, "ops", "random")
# Keras modules whose classes are parts of models; others have callbacks, data sets, trainers.
_CLASSES = (
    *_FUNCTIONS,
    *("backend", "distillation", "dtype_policies", "engine", "export", "feature_column", "layers", "legacy"),
    *("mixed_precision", "models", "premade_models", "quantizers", "trainers", "utils"),
)
_LAMBDA_LAYERS = "tf_op_layer"  # the module of Keras 2 whose layers call TensorFlow by name
# Layers that contain other code, or read files from a path in the configuration.
_FOREIGN = {
    "TFSMLayer": "loads a SavedModel from a path of its own",
    "TorchModuleWrapper": "holds a pickled PyTorch module",
}


def resolve(node: Mapping[str, Any], keras: Any, find: Callable[[str], Any]) -> Any:
    """Return the class or function that Keras would take for a configuration's object; ``None`` if none.

    Args:
        node: The object's description.
        keras: The Keras that will load it.
        find: Returns the registered object of a name.
    """
    is_function = node["class_name"] == "function"
    key = {"function": "config", "__typespec__": "spec_name"}.get(node["class_name"], "class_name")
    name = str(node.get(key))
    registered = name if is_function else node.get("registered_name", node["class_name"])
    symbol = find(str(registered)) if registered else None
    module = node.get("module")
    if symbol is not None or not isinstance(module, str) or not module:
        return symbol
    if module.partition(".")[0] in ("keras", "tf_keras"):
        symbol = _exported(f"{module}.{name}", keras)
    if symbol is None and is_function:
        if module == "builtins":
            exported = (_exported(f"keras.{home}.{name}", keras) for home in HOMES)
            symbol = next((value for value in exported if value is not None), None)
        symbol = symbol if symbol is not None else _find_without_package(name, keras)
    return symbol if symbol is not None else _in_module(module, name, node.get("registered_name"), keras)


def is_keras_symbol(value: Any) -> bool:
    """Return whether a class or function is Keras's own."""
    return str(getattr(value, "__module__", "")).partition(".")[0] in OWN


def is_part_of_models(value: Any) -> bool:
    """Return whether something of Keras's own is a class or function that models consist of."""
    package, _, inner = str(getattr(value, "__module__", "")).partition(".")
    home = inner.removeprefix("src.").partition(".")[0]
    if isinstance(value, type):
        return hasattr(value, "from_config") and (home in _CLASSES or package not in ("keras", "tf_keras"))
    return home in _FUNCTIONS


def dangers(value: Any, node: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a Keras class would run or read because of an object's configuration, in words."""
    config = node["config"] if isinstance(node["config"], Mapping) else {}
    name = config.get("name", "")
    for cls in value.__mro__ if isinstance(value, type) else ():
        if cls.__name__ in _FOREIGN and is_keras_symbol(cls):
            yield f"{cls.__name__} {name!r}, which {_FOREIGN[cls.__name__]}"
        if cls.__name__ == "TensorFlowOpLayer" and is_keras_symbol(cls):
            yield from _unsafe_operations(config, name)
        if cls.__module__.endswith(_LAMBDA_LAYERS) and is_keras_symbol(cls):
            yield from _unsafe_calls(value, config, name)
            return


def _unsafe_calls(layer: type, config: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the TensorFlow function that a layer calls by name, unless it only computes."""
    method = str(config.get("method_name", config.get("attr_name")))
    class_names = [cls.__name__ for cls in layer.__mro__]
    if "TFOpLambda" in class_names:
        called, allowed = str(config.get("function")), COMPUTING
        is_allowed = _canonical(called) in allowed
    elif "ClassMethod" in class_names:
        called = f"{config.get('cls_symbol')}.{method}"
        is_allowed = _canonical(str(config.get("cls_symbol"))) == "RaggedTensor" and method in CLASS_METHODS
    else:
        called, is_allowed = method, "InstanceProperty" in class_names and method in METHODS
    if not is_allowed:
        yield f"a layer {name!r} that calls TensorFlow's {called!r}"


def _unsafe_operations(config: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the graph operation that a layer contains, unless it only computes."""
    definition = config.get("node_def")
    operation = definition.get("op") if isinstance(definition, Mapping) else None
    if operation not in ALLOWED:
        reason = REASONS.get(str(operation), "is not known to do nothing but compute")
        yield f"a layer {name!r} with the operation {operation!r}, which {reason}"


def _canonical(symbol: str) -> str | None:
    """Return the canonical name of a symbol of TensorFlow or Keras 2; ``None`` if it does not exist."""
    export = _exports()
    value = export.get_symbol_from_name(symbol)
    for api in ("tensorflow", "keras"):
        if value is not None and (name := export.get_canonical_name_for_symbol(value, api, True)):
            return str(name).removeprefix("compat.v1.")
    return None


def _exports() -> Any:
    return import_module("tensorflow.python.util.tf_export")


def _exported(name: str, keras: Any) -> Any:
    """Return what Keras exports under a public name."""
    if major_version(keras.__version__) == 2:  # noqa: PLR2004  # "Keras 2"
        return _exports().get_symbol_from_name(f"compat.v1.{name}" if "__internal__.legacy" in name else name)
    return import_module("keras.src.api_export").get_symbol_from_name(name)


def _find_without_package(name: str, keras: Any) -> Any:
    """Return a registered function whose name lacks its package (Keras before 3.7)."""
    custom = keras.saving.get_custom_objects()
    return (
        next((custom[full_name] for full_name in custom if full_name.endswith(f">{name}")), None)
        if ">" not in name
        else None
    )


def _in_module(module: str, name: str, registered: Any, keras: Any) -> Any:
    """Return what a module has under a name; Keras 3 looks only in its own packages, for classes."""
    if keras.__name__ == "tf_keras" and module.startswith("keras"):
        module = f"tf_{module}"
    parts = module.split(".")
    is_keras_package = parts[0] in OWN
    if is_keras_package and module not in sys.modules and "__main__" not in parts:
        try:
            import_module(module)
        except (ImportError, ValueError):  # no such module exists
            return None
    namespace = vars(sys.modules[module]) if module in sys.modules else {}
    if major_version(keras.__version__) > 2:  # noqa: PLR2004  # "Keras 2"
        value = namespace.get(name) if is_keras_package else None
        return value if isinstance(value, type) else None
    if "." in name:  # Keras would look inside of the object that it finds
        return None
    value = namespace.get(name)
    return namespace.get(registered) if value is None and isinstance(registered, str) else value
