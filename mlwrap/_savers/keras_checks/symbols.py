"""What a name in a Keras configuration leads to: resolved as Keras does it, and only then judged.

One function has many names (``io.write_file``, ``compat.v1.write_file``), and one class several homes, so
no name tells what it is. Nothing is called, and no module is imported but Keras's own. The order of the
search is that of ``_retrieve_class_or_fn`` in ``saving/serialization_lib.py`` of Keras 2 and 3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from mlwrap._savers.keras_checks.functions import CLASS_METHODS, COMPUTING, METHODS
from mlwrap._savers.tensorflow.graph_operations import ALLOWED, REASONS

# Packages whose classes Keras finds by their module, unregistered.
OWN = ("keras", "tf_keras", "keras_hub", "keras_cv", "keras_nlp")
# Where Keras looks for a function of its own, which it writes by its name alone.
HOMES = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")
# Modules of Keras's whose functions are parts of models; others download files, or start servers.
_FUNCTIONS = (*HOMES, "ops", "random")
# And those whose classes are: the others are callbacks, data sets, trainers of their own.
_CLASSES = (
    *_FUNCTIONS,
    *("backend", "distillation", "dtype_policies", "engine", "export", "feature_column", "layers", "legacy"),
    *("mixed_precision", "models", "premade_models", "quantizers", "trainers", "utils"),
)
_LAMBDA_LAYERS = "tf_op_layer"  # the module of Keras 2 whose layers call TensorFlow by name
# Layers that hold foreign code or read files wherever the configuration says.
_FOREIGN = {
    "TFSMLayer": "loads a SavedModel from a path of its own",
    "TorchModuleWrapper": "holds a pickled PyTorch module",
}


def resolve(node: Mapping[str, Any], keras: Any, find: Callable[[str], Any]) -> Any:
    """The class or function that Keras would take for an object of a configuration; ``None`` for none.

    Args:
        node: The object's description.
        keras: The Keras that is to load it.
        find: Gives what is registered by a name.
    """
    is_function = node["class_name"] == "function"
    key = {"function": "config", "__typespec__": "spec_name"}.get(node["class_name"], "class_name")
    name = str(node.get(key))
    registered = name if is_function else node.get("registered_name", node["class_name"])
    found = find(str(registered)) if registered else None
    module = node.get("module")
    if found is not None or not isinstance(module, str) or not module:
        return found
    if module.partition(".")[0] in ("keras", "tf_keras"):
        found = _exported(f"{module}.{name}", keras)
    if found is None and is_function:
        if module == "builtins":
            exported = (_exported(f"keras.{home}.{name}", keras) for home in HOMES)
            found = next((value for value in exported if value is not None), None)
        found = found if found is not None else _without_its_package(name, keras)
    return found if found is not None else _in_module(module, name, node.get("registered_name"), keras)


def is_keras_symbol(value: Any) -> bool:
    """Whether a class or function is Keras's."""
    return str(getattr(value, "__module__", "")).partition(".")[0] in OWN


def is_part_of_models(value: Any) -> bool:
    """Whether something of Keras's own is a class or function that models are made of."""
    package, _, inner = str(getattr(value, "__module__", "")).partition(".")
    home = inner.removeprefix("src.").partition(".")[0]
    if isinstance(value, type):
        return hasattr(value, "from_config") and (home in _CLASSES or package not in ("keras", "tf_keras"))
    return home in _FUNCTIONS


def dangers(value: Any, node: Mapping[str, Any]) -> Iterator[str]:
    """What a class of Keras's would run or read for what an object's configuration says, in words."""
    config = node["config"] if isinstance(node["config"], Mapping) else {}
    name = config.get("name", "")
    for cls in value.__mro__ if isinstance(value, type) else ():
        if cls.__name__ in _FOREIGN and is_keras_symbol(cls):
            yield f"{cls.__name__} {name!r}, which {_FOREIGN[cls.__name__]}"
        if cls.__name__ == "TensorFlowOpLayer" and is_keras_symbol(cls):
            yield from _operation(config, name)
        if cls.__module__.endswith(_LAMBDA_LAYERS) and is_keras_symbol(cls):
            yield from _calls(value, config, name)
            return


def _calls(layer: type, config: Mapping[str, Any], name: str) -> Iterator[str]:
    """What a layer calls of TensorFlow by name, unless it only computes."""
    method = str(config.get("method_name", config.get("attr_name")))
    kinds = [cls.__name__ for cls in layer.__mro__]
    if "TFOpLambda" in kinds:
        called, allowed = str(config.get("function")), COMPUTING
        known = _canonical(called) in allowed
    elif "ClassMethod" in kinds:
        called = f"{config.get('cls_symbol')}.{method}"
        known = _canonical(str(config.get("cls_symbol"))) == "RaggedTensor" and method in CLASS_METHODS
    else:
        called, known = method, "InstanceProperty" in kinds and method in METHODS
    if not known:
        yield f"a layer {name!r} that calls TensorFlow's {called!r}"


def _operation(config: Mapping[str, Any], name: str) -> Iterator[str]:
    """What a layer that holds one operation of a graph does."""
    definition = config.get("node_def")
    operation = definition.get("op") if isinstance(definition, Mapping) else None
    if operation not in ALLOWED:
        reason = REASONS.get(str(operation), "is not known to do nothing but compute")
        yield f"a layer {name!r} with the operation {operation!r}, which {reason}"


def _canonical(symbol: str) -> str | None:
    """The one name of what TensorFlow, or Keras 2, exports by ``symbol``; ``None`` if that is nothing."""
    export = _exports()
    value = export.get_symbol_from_name(symbol)
    for api in ("tensorflow", "keras"):
        if value is not None and (name := export.get_canonical_name_for_symbol(value, api, True)):
            return str(name).removeprefix("compat.v1.")
    return None


def _exports() -> Any:
    return import_module("tensorflow.python.util.tf_export")


def _exported(name: str, keras: Any) -> Any:
    """What Keras exports by a public name."""
    if _major(keras) == 2:  # noqa: PLR2004  # the number is the name
        return _exports().get_symbol_from_name(f"compat.v1.{name}" if "__internal__.legacy" in name else name)
    return import_module("keras.src.api_export").get_symbol_from_name(name)


def _without_its_package(name: str, keras: Any) -> Any:
    """A registered function whose name has lost its package (Keras before 3.7)."""
    custom = keras.saving.get_custom_objects()
    return (
        next((custom[full] for full in custom if full.endswith(f">{name}")), None)
        if ">" not in name
        else None
    )


def _in_module(module: str, name: str, registered: Any, keras: Any) -> Any:
    """What a module holds by a name; Keras 3 looks in its own packages only, for classes."""
    if keras.__name__ == "tf_keras" and module.startswith("keras"):
        module = f"tf_{module}"
    parts = module.split(".")
    own = parts[0] in OWN
    if own and module not in sys.modules and "__main__" not in parts:
        try:
            import_module(module)
        except (ImportError, ValueError):  # there is none of such a name
            return None
    found = vars(sys.modules[module]) if module in sys.modules else {}
    if _major(keras) > 2:  # noqa: PLR2004  # as above
        value = found.get(name) if own else None
        return value if isinstance(value, type) else None
    if "." in name:  # it would look inside of what it finds
        return None
    value = found.get(name)
    return found.get(registered) if value is None and isinstance(registered, str) else value


def _major(keras: Any) -> int:
    return int(str(keras.__version__).partition(".")[0])
