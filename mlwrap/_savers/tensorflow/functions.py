"""``tf.function``: its traces, a holder for one that is returned alone, and the one to serve.

A SavedModel holds objects, and of functions the graphs that were traced. Stock loaders can feed a graph
whose inputs and outputs are flat and named, which is what a serving signature is.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlwrap._savers.identify import has_class
from mlwrap.errors import SaveError

_HOME = ("tensorflow.python.eager",)
_WAYS_IN = ("__call__", "predict", "serve", "call")


def is_function(value: object) -> bool:
    """Tell whether ``value`` is a ``tf.function`` or a ``ConcreteFunction``, traced here or loaded."""
    return has_class(value, "Function", "ConcreteFunction", packages=_HOME)


def holder(function: Any, tf: Any) -> Any:
    """A module that can be called as ``function`` is, and holds what that one uses.

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
    held = tf.Module()
    held.__call__ = function
    # What a graph uses must hang on what is saved. It knows its variables; tables are found by name only.
    held.variables_ = [variable for trace in concrete for variable in trace.graph.variables]
    held.trackables_ = list(_used(getattr(function, "python_function", None)))
    return held


def _used(python: Any) -> Iterator[Any]:
    """Trackables in what a Python function closes over, and the object that it is a method of."""
    if python is None:
        return
    owner = getattr(getattr(python, "__wrapped__", None), "__self__", None)
    found = inspect.getclosurevars(inspect.unwrap(python)) if inspect.isfunction(python) else None
    # TensorFlow hides the object that a method belongs to behind a weak reference.
    candidates = [getattr(owner, "target", owner)]
    candidates += [*found.nonlocals.values(), *found.globals.values()] if found else []
    for candidate in candidates:
        if has_class(candidate, "Trackable", packages=("tensorflow.python.trackable",)):
            yield candidate


def traces(function: Any) -> list[Any]:
    """The concrete functions of a ``tf.function``; of one that has an input signature it is traced now."""
    if has_class(function, "ConcreteFunction", packages=_HOME):
        return [function]
    # What tf.saved_model.save itself asks for; there is no public name for it.
    return list(function._list_all_concrete_functions_for_serialization())  # noqa: SLF001


def serving(value: Any, tf: Any) -> Any:
    """The function of ``value`` that is to be served, with flat inputs and outputs that have names.

    That is ``__call__``, ``predict``, ``serve`` or ``call``, else the only one that there is. Inputs have the
    names of their arguments; those of a function of one dictionary have its keys, which nested ones
    lengthen (``passenger_age``). Outputs have their keys, or ``output_0`` and so on.

    Returns:
        The function, or ``None``: there is no such one, it was traced in ways that no single one
        covers, or something in it is no plain tensor.
    """
    try:
        functions = {name: found for name, found in _readable_attributes(value) if is_function(found)}
        ways = [functions[name] for name in _WAYS_IN if name in functions] or list(functions.values())
        if len(ways) == 1 or any(name in functions for name in _WAYS_IN):
            general = _general(traces(ways[0]), tf)
            return _flat(general, tf) if general is not None else None
    except Exception:  # noqa: BLE001  # a signature is a bonus, and private corners are read for it
        return None
    return None


def _readable_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """All attributes that can be read, as TensorFlow reads them when it saves."""
    for name in dir(value):
        with contextlib.suppress(Exception):  # a property of the user's own may raise anything
            yield name, getattr(value, name)


def _general(forms: list[Any], tf: Any) -> Any:
    """The form that every other one is a case of; of equal ones, one not traced for training."""
    calm = [form for form in forms if not any(leaf is True for leaf in _inputs(form, tf))] or forms
    return next((one for one in calm if all(_covers(one, other, tf) for other in calm)), None)


def _inputs(form: Any, tf: Any) -> list[Any]:
    return list(tf.nest.flatten(form.structured_input_signature))


def _covers(one: Any, other: Any, tf: Any) -> bool:
    mine, theirs = (
        [leaf for leaf in _inputs(form, tf) if isinstance(leaf, tf.TypeSpec)] for form in (one, other)
    )
    return len(mine) == len(theirs) and all(
        a.dtype == b.dtype
        and (a.shape.rank is None or a.shape.rank == b.shape.rank)  # of unknown rank is text, of any shape
        and (
            a.shape.rank is None
            or all(size in {None, its} for size, its in zip(a.shape, b.shape, strict=True))
        )
        for a, b in zip(mine, theirs, strict=True)
    )


def _flat(concrete: Any, tf: Any) -> Any:
    structure = concrete.structured_input_signature
    args, kwargs = structure
    leaves = list(_leaves(structure))
    keyed = len(args) == 1 and not kwargs and isinstance(args[0], Mapping)
    constants = [None if isinstance(leaf, tf.TypeSpec) else leaf for _, leaf in leaves]
    specs = {}
    for index, (path, leaf) in enumerate(leaves):
        if isinstance(leaf, tf.TypeSpec):
            name = re.sub(r"\W", "_", "_".join(path[2:]) if keyed else leaf.name)
            specs[name] = (index, tf.TensorSpec(leaf.shape, leaf.dtype, name=name))
    outputs = [leaf for _, leaf in _leaves(concrete.structured_outputs) if leaf is not None]
    tensors = [leaf for _, leaf in leaves if isinstance(leaf, tf.TypeSpec)]
    plain = all(isinstance(tensor, tf.TensorSpec) for tensor in tensors)
    if not plain or len(specs) != len(tensors) or not outputs:
        return None  # a ragged or sparse one, or two of one name

    def serve(**given: Any) -> dict[str, Any]:
        flat = list(constants)
        for name, (index, _) in specs.items():
            flat[index] = given[name]
        args, kwargs = tf.nest.pack_sequence_as(structure, flat)
        return {
            _output_name(path): leaf for path, leaf in _leaves(concrete(*args, **kwargs)) if leaf is not None
        }

    function = tf.function(serve, autograph=False)
    return function.get_concrete_function(**{name: spec for name, (_, spec) in specs.items()})


def _leaves(structure: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves of a nested structure with the keys that lead to them, in ``tf.nest``'s order."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from _leaves(structure[key], (*path, str(key)))
    elif isinstance(structure, list | tuple):
        for index, item in enumerate(structure):
            yield from _leaves(item, (*path, str(index)))
    else:
        yield path, structure


def _output_name(path: tuple[str, ...]) -> str:
    name = "_".join(path or ("0",))
    return f"output_{name}" if name[0].isdigit() else name
