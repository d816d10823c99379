"""Inputs and outputs of a model, without running it: what is known, or ``None``, never a guess.

The first axis of every input is the batch and is written as -1, as MLflow's own ``save_model``
demands; numpy's names are used for types. A model that takes or gives several tensors has them named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlwrap._journal import Signature, TensorSpec

# What numpy can name. bfloat16, float8, strings of resources and variants it can't.
_SAME = ["bool", "complex64", "complex128", *(f"float{bits}" for bits in (16, 32, 64))]
_SAME += [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
_DTYPES = {"string": "str", **{name: name for name in _SAME}}


class Unknown(Exception):
    """A tensor does not tell its type or shape in words that a signature has."""


def of_keras(model: Any) -> Signature | None:
    """Inputs and outputs of a Keras model.

    A functional or sequential model tells all. A subclassed one of Keras 2 and tf_keras tells its
    inputs, once it was called. One of Keras 3 remembers their shapes but not their types: those stand in
    the functions that TensorFlow traced for ``fit``, ``evaluate`` or ``predict``, if one was called.
    """
    return attempt(_of_keras, model)


def input_structure(model: Any) -> Any:
    """The inputs of a Keras model as they are nested, each with shape and type; ``None`` if not known."""
    inputs = _first(model, "_inputs_struct", "_nested_inputs")
    if inputs is None and (flat := getattr(model, "inputs", None)) is not None:
        inputs = flat[0] if len(flat) == 1 else flat  # a sequential model is called with the tensor itself
    return _of_calls(model) if inputs is None else inputs


def _of_keras(model: Any) -> Signature | None:
    inputs = _first(model, "_inputs_struct", "_nested_inputs", "inputs")
    if inputs is None:
        inputs = _of_calls(model)
        return None if inputs is None else Signature(inputs=specs(inputs))
    outputs = _first(model, "_outputs_struct", "_nested_outputs", "outputs")
    return Signature(
        inputs=_as_fed(model, specs(inputs, getattr(model, "input_names", None))),
        outputs=() if outputs is None else specs(outputs, getattr(model, "output_names", None)),
    )


def _as_fed(model: Any, declared: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The one input that a model declares, with the type and rank that it was fed with if that is known.

    Keras casts numbers and completes a last axis of 1. Arrays of numpy it casts before anything is traced:
    what they were is not known.
    """
    if len(declared) != 1:
        return declared
    (spec,) = declared
    try:
        fed = {specs(inputs) for inputs in _traced(model)}
        ((own,),) = fed  # of several nobody knows which is meant
    except Exception:  # noqa: BLE001  # as in attempt(): what the model declares holds all the same
        return declared
    if "str" in {own.dtype, spec.dtype} and own.dtype != spec.dtype:
        return declared
    if len(own.shape) == len(spec.shape):
        shape = spec.shape
    elif (*own.shape, 1)[1:] == spec.shape[1:] or own.shape[1:] == (*spec.shape, 1)[1:]:
        shape = own.shape
    else:
        return declared
    return (TensorSpec(name=spec.name, dtype=own.dtype, shape=shape),)


def _of_calls(model: Any) -> Any:
    """What a subclassed model was called with; ``None`` if that is not known, or was not always the same."""
    if hasattr(model, "save_spec"):
        args, kwargs = model.save_spec()
        return args[0] if len(args) == 1 and not kwargs else None
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    fed = [inputs for inputs in _traced(model) if [_shapes(inputs)] == [_shapes(known) for known in shapes]]
    types = {tuple((spec.name, spec.dtype) for spec in specs(inputs)) for inputs in fed}
    return fed[0] if len(types) == 1 else None


def _traced(model: Any) -> Iterator[Any]:
    """The inputs that TensorFlow traced this Keras 3 model's own loops for."""
    for name in ("train_function", "test_function", "predict_function"):
        function = getattr(model, name, None)
        # Keras 3 wraps what it traced in a plain function, for all but predict().
        cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        for traced in (function, *cells):
            if hasattr(traced, "_list_all_concrete_functions"):
                for concrete in traced._list_all_concrete_functions():  # noqa: SLF001
                    data = concrete.structured_input_signature[0][0]
                    # An iterator's elements, or batches in a list: inputs alone, or (inputs, targets, …).
                    data = data[0] if isinstance(data, list) else data._element_spec  # noqa: SLF001
                    inputs = data[0] if isinstance(data, tuple) else data
                    if not isinstance(inputs, list | tuple):  # whose members would have no names
                        yield inputs


def _shapes(structure: Any) -> Any:
    """A structure's sizes without the batch, to be compared: of tensors, or of shapes as Keras keeps them."""
    if isinstance(structure, Mapping):
        return {str(key): _shapes(item) for key, item in structure.items()}
    if hasattr(structure, "shape"):
        return tuple(structure.shape)[1:]
    if isinstance(structure, list | tuple) and not all(isinstance(n, int | None) for n in structure):
        return [_shapes(item) for item in structure]
    return tuple(structure)[1:]


def _first(model: Any, *names: str) -> Any:
    # `inputs` is flat in every Keras; the structure that says which key feeds which input is kept beside it.
    return next((found for name in names if (found := getattr(model, name, None)) is not None), None)


def specs(structure: Any, names: Any = None) -> tuple[TensorSpec, ...]:
    """The tensors of a structure, each by its name.

    Args:
        structure: A tensor, or a dictionary or sequence of such, nested or not. A dictionary's tensors
            are named by their keys (``"image"``, and ``"image/left"`` if nested), a sequence's by their
            own names, or by their places if nested.
        names: Of a sequence's tensors, where they are known otherwise.

    Raises:
        Unknown: One of them has no name, is ragged, or of a type or rank that can't be told.
    """
    if isinstance(structure, list | tuple):
        if len(structure) == 1:
            return specs(structure[0])
        known = names if names and len(names) == len(structure) else _own_names(structure)
        structure = dict(zip(known, structure, strict=True))
        if len(structure) < len(known) or None in structure:
            raise Unknown(known)
    if isinstance(structure, Mapping):
        return tuple(_spec("/".join(path), tensor) for path, tensor in _leaves(structure))
    return (_spec(None, structure),)


def _own_names(structure: Sequence[Any]) -> list[Any]:
    return [
        str(place) if isinstance(item, Mapping | list | tuple) else getattr(item, "name", None)
        for place, item in enumerate(structure)
    ]


def _leaves(structure: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(structure, Mapping | list | tuple):
        yield path, structure
        return
    items = structure.items() if isinstance(structure, Mapping) else enumerate(structure)
    for key, item in items:
        yield from _leaves(item, (*path, str(key)))


def _spec(name: str | None, tensor: Any) -> TensorSpec:
    dtype, shape = tensor.dtype, tensor.shape
    # Keras 3 has flags for it, Keras 2 and TensorFlow have classes: RaggedKerasTensor, SparseTensorSpec.
    kind = type(tensor).__name__.lower()
    odd = any(getattr(tensor, word, False) or word in kind for word in ("ragged", "sparse"))
    if odd or shape is None or getattr(shape, "rank", 0) is None:
        raise Unknown(tensor)
    return make_spec(name, getattr(dtype, "name", str(dtype)), shape)


def make_spec(name: str | None, dtype: str, shape: Any) -> TensorSpec:
    """A spec of a tensor whose first axis is the batch.

    Raises:
        Unknown: It is of a type that numpy has no name for, or has no axis that could be the batch.
    """
    if not len(shape):
        raise Unknown(name)
    sizes = (-1 if size is None else int(size) for size in shape[1:])
    return TensorSpec(name=name, dtype=dtype_name(dtype), shape=(-1, *sizes))


def dtype_name(dtype: str) -> str:
    """The name that numpy has for a type of TensorFlow's or Keras's.

    Raises:
        Unknown: numpy has none.
    """
    if dtype not in _DTYPES:
        raise Unknown(dtype)
    return _DTYPES[dtype]


def attempt(read: Callable[[Any], Signature | None], source: Any) -> Signature | None:
    """What ``read`` makes of ``source``; ``None`` where that fails, because a signature is a bonus."""
    try:
        return read(source)
    except Exception:  # noqa: BLE001  # private corners of three Kerases are read: no signature, no harm
        return None
