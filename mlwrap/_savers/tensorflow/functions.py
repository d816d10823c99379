"""Work with ``tf.function``: its traces, a module to save one in, and the function to serve.

A SavedModel contains objects, and for functions the graphs that were traced. Stock loaders can feed a graph
whose inputs and outputs are flat and named, as in a serving signature.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlwrap._savers.identify import has_class
from mlwrap.errors import SaveError

_PACKAGES = ("tensorflow.python.eager",)
_SERVED_METHODS = ("__call__", "predict", "serve", "call")


def is_function(value: object) -> bool:
    """Return whether ``value`` is a ``tf.function`` or a ``ConcreteFunction``, traced here or loaded."""
    return has_class(value, "Function", "ConcreteFunction", packages=_PACKAGES)


def holder(function: Any, tf: Any) -> Any:
    """Return a module that can be called like ``function`` and holds everything that it uses.

    Raises:
        SaveError: It has no graph.
    """
    concrete = traces(function)
    if not concrete:
        raise SaveError(
            "The tf.function was never called, so it has no graph that could be saved. Call it once, or "
            "decorate with @tf.function(input_signature=[tf.TensorSpec(...)]), before it is returned.",
            function,
        )
    module = tf.Module()
    module.__call__ = function
    # All that a graph uses must hang on the saved object. A trace knows its variables, but not its tables.
    module.variables_ = [variable for trace in concrete for variable in trace.graph.variables]
    module.trackables_ = list(_used_trackables(getattr(function, "python_function", None)))
    return module


def _used_trackables(python_function: Any) -> Iterator[Any]:
    """Yield the trackables in a Python function's closure, and the object that it is a method of."""
    if python_function is None:
        return
    owner = getattr(getattr(python_function, "__wrapped__", None), "__self__", None)
    closure = (
        inspect.getclosurevars(inspect.unwrap(python_function))
        if inspect.isfunction(python_function)
        else None
    )
    # TensorFlow hides the object that a method belongs to behind a weak reference.
    candidates = [getattr(owner, "target", owner)]
    candidates += [*closure.nonlocals.values(), *closure.globals.values()] if closure else []
    for candidate in candidates:
        if has_class(candidate, "Trackable", packages=("tensorflow.python.trackable",)):
            yield candidate


def traces(function: Any) -> list[Any]:
    """Return the concrete functions of a ``tf.function``; one with an input signature is traced now."""
    if has_class(function, "ConcreteFunction", packages=_PACKAGES):
        return [function]
    # tf.saved_model.save itself calls this; it has no public name.
    return list(function._list_all_concrete_functions_for_serialization())  # noqa: SLF001


def serving(value: Any, tf: Any) -> Any:
    """Return the function of ``value`` to serve, with flat inputs and outputs that have names.

    It is ``__call__``, ``predict``, ``serve`` or ``call``, else the only function. Inputs have the names of
    their arguments. If the function takes one dictionary, they have its keys, joined if nested
    (``passenger_age``). Outputs have their keys, or ``output_0`` and so on.

    Returns:
        The function; or ``None`` if there is no single one, if none of its traces covers the others, or if
        something in it is not a plain tensor.
    """
    try:
        functions = {
            name: attribute for name, attribute in _readable_attributes(value) if is_function(attribute)
        }
        candidates = [functions[name] for name in _SERVED_METHODS if name in functions] or list(
            functions.values()
        )
        if len(candidates) == 1 or any(name in functions for name in _SERVED_METHODS):
            general = _most_general(traces(candidates[0]), tf)
            return _flat_function(general, tf) if general is not None else None
    except Exception:  # noqa: BLE001  # a signature is optional, and private attributes are read
        return None
    return None


def _readable_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all readable attributes, as TensorFlow reads them when it saves."""
    for name in dir(value):
        with contextlib.suppress(Exception):  # a user's property may raise any error
            yield name, getattr(value, name)


def _most_general(traces: list[Any], tf: Any) -> Any:
    """Return the trace that covers all others; of equal ones, one not traced for training."""
    inference_traces = [
        trace for trace in traces if not any(leaf is True for leaf in _inputs(trace, tf))
    ] or traces
    return next(
        (
            trace
            for trace in inference_traces
            if all(_covers(trace, other_trace, tf) for other_trace in inference_traces)
        ),
        None,
    )


def _inputs(trace: Any, tf: Any) -> list[Any]:
    return list(tf.nest.flatten(trace.structured_input_signature))


def _covers(trace: Any, other_trace: Any, tf: Any) -> bool:
    leaves, other_leaves = (
        [leaf for leaf in _inputs(each_trace, tf) if isinstance(leaf, tf.TypeSpec)]
        for each_trace in (trace, other_trace)
    )
    return len(leaves) == len(other_leaves) and all(
        a.dtype == b.dtype
        and (a.shape.rank is None or a.shape.rank == b.shape.rank)  # text has an unknown rank
        and (
            a.shape.rank is None
            or all(size in {None, other_size} for size, other_size in zip(a.shape, b.shape, strict=True))
        )
        for a, b in zip(leaves, other_leaves, strict=True)
    )


def _flat_function(concrete: Any, tf: Any) -> Any:
    structure = concrete.structured_input_signature
    args, kwargs = structure
    leaves = list(_sorted_leaves(structure))
    is_dictionary = len(args) == 1 and not kwargs and isinstance(args[0], Mapping)
    constants = [None if isinstance(leaf, tf.TypeSpec) else leaf for _, leaf in leaves]
    specs = {}
    for index, (path, leaf) in enumerate(leaves):
        if isinstance(leaf, tf.TypeSpec):
            name = re.sub(r"\W", "_", "_".join(path[2:]) if is_dictionary else leaf.name)
            specs[name] = (index, tf.TensorSpec(leaf.shape, leaf.dtype, name=name))
    outputs = [leaf for _, leaf in _sorted_leaves(concrete.structured_outputs) if leaf is not None]
    tensors = [leaf for _, leaf in leaves if isinstance(leaf, tf.TypeSpec)]
    is_plain = all(isinstance(tensor, tf.TensorSpec) for tensor in tensors)
    if not is_plain or len(specs) != len(tensors) or not outputs:
        return None  # there is a ragged or sparse tensor, or two of one name

    def serve(**tensors_by_name: Any) -> dict[str, Any]:
        flat = list(constants)
        for name, (index, _) in specs.items():
            flat[index] = tensors_by_name[name]
        args, kwargs = tf.nest.pack_sequence_as(structure, flat)
        return {
            _output_name(path): leaf
            for path, leaf in _sorted_leaves(concrete(*args, **kwargs))
            if leaf is not None
        }

    function = tf.function(serve, autograph=False)
    return function.get_concrete_function(**{name: spec for name, (_, spec) in specs.items()})


def _sorted_leaves(structure: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the leaves of a nested structure with the keys that lead to them, in ``tf.nest``'s order."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from _sorted_leaves(structure[key], (*path, str(key)))
    elif isinstance(structure, list | tuple):
        for index, item in enumerate(structure):
            yield from _sorted_leaves(item, (*path, str(index)))
    else:
        yield path, structure


def _output_name(path: tuple[str, ...]) -> str:
    name = "_".join(path or ("0",))
    return f"output_{name}" if name[0].isdigit() else name
