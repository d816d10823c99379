"""Read a model's inputs and outputs without running it; return ``None`` rather than guess.

The first axis of every input is the batch, written as -1, as MLflow's own ``save_model`` requires. Types
have numpy's names. If a model takes or returns several tensors, each has a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlwrap._journal.records import Signature, TensorSpec
from mlwrap._savers.history.fit_inputs import FedArray, fed_by
from mlwrap._savers.history.fits import fed_to
from mlwrap._savers.identify import has_class

# The types that numpy can name: not bfloat16, float8, resources or variants.
_SAME = ["bool", "complex64", "complex128", *(f"float{bits}" for bits in (16, 32, 64))]
_SAME += [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
_DTYPES = {"string": "str", **{name: name for name in _SAME}}


class Unknown(Exception):
    """A tensor whose type or shape a signature can't express, or that has none."""


def of_keras(model: Any) -> Signature | None:
    """Return the inputs and outputs of a Keras model.

    A functional or sequential model declares both. A subclassed one of Keras 2 or tf_keras declares its
    inputs once it was called. One of Keras 3 records their shapes but not their types: those are read from
    the functions that TensorFlow traced for ``fit``, ``evaluate`` or ``predict``, if one was called.
    """
    return attempt(_of_keras, model)


def input_structure(model: Any) -> Any:
    """Return a Keras model's nested inputs, each with shape and type; ``None`` if they are not known."""
    inputs = _first_attribute(model, "_inputs_struct", "_nested_inputs")
    if inputs is None and (flat := getattr(model, "inputs", None)) is not None:
        inputs = flat[0] if len(flat) == 1 else flat  # a sequential model is called with the tensor itself
    return _inputs_of_calls(model) if inputs is None else inputs


def _of_keras(model: Any) -> Signature | None:
    inputs = _first_attribute(model, "_inputs_struct", "_nested_inputs", "inputs")
    if inputs is None:
        inputs = _inputs_of_calls(model)
        if inputs is None:
            return None
        inputs = as_fed(model, specs(inputs))
        return Signature(inputs=inputs, columns=columns_of(fed_to(model), inputs))
    outputs = _first_attribute(model, "_outputs_struct", "_nested_outputs", "outputs")
    inputs = as_fed(model, specs(inputs, getattr(model, "input_names", None)))
    return Signature(
        inputs=inputs,
        outputs=() if outputs is None else specs(outputs, getattr(model, "output_names", None)),
        columns=columns_of(fed_to(model), inputs),
    )


def as_fed(model: Any, declared: tuple[TensorSpec, ...], example: Any = None) -> tuple[TensorSpec, ...]:
    """Return the declared inputs, each with the type and rank that the model was fed with, if known.

    Keras casts numbers. For a functional or sequential model it also adds a missing last axis of 1.

    Args:
        model: The model.
        declared: The inputs that the model itself declares.
        example: Data that the model will be fed, if the user gave any; else the data of its ``fit`` counts.
    """
    # MLflow's own loaders bring a frame's columns to one type.
    example = None if has_class(example, "DataFrame", packages=("pandas",)) else example
    completes = _first_attribute(model, "_outputs_struct", "_nested_outputs", "outputs") is not None
    for fed in (fed_by(example), fed_to(model), _traced_like_fed(model)):
        if fed is None:
            continue
        by_name = [fed.get("" if spec.name is None else spec.name) for spec in declared]
        arrays = by_name if None not in by_name else list(fed.values())  # a list is in the model's order
        if len(arrays) == len(declared) == len(fed):
            pairs = zip(declared, arrays, strict=True)
            return tuple(_with_type_of(spec, array, completes=completes) for spec, array in pairs)
    return declared


def columns_of(fed: Mapping[str, FedArray] | None, inputs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """Return the column names of a model's only input, if the model was fed a frame of floats.

    MLflow then passes frames to the model as they are and returns a frame, which its evaluation needs.
    """
    frame = fed.get("") if fed is not None else None
    if frame is None or len(inputs) != 1 or inputs[0].name is not None or "float" not in inputs[0].dtype:
        return ()
    return frame.columns if inputs[0].shape == (-1, len(frame.columns)) else ()


def _with_type_of(spec: TensorSpec, array: Any, *, completes: bool) -> TensorSpec:
    if array.dtype not in _DTYPES.values() or (
        array.dtype != spec.dtype and "str" in {array.dtype, spec.dtype}
    ):
        return spec
    sizes, fed = spec.shape[1:], tuple(array.shape)[1:]
    if len(sizes) == len(fed):
        shape = spec.shape
    elif completes and len(fed) == len(sizes) - 1 and sizes[-1] == 1:
        shape = spec.shape[:-1]
    elif completes and len(fed) == len(sizes) + 1 and fed[-1] == 1:
        shape = (*spec.shape, 1)
    else:
        return spec
    return TensorSpec(name=spec.name, dtype=array.dtype, shape=shape)


def _traced_like_fed(model: Any) -> dict[str, FedArray] | None:
    """Return the inputs that TensorFlow traced a model's own loops for, if they were always the same."""
    try:
        (traced_specs,) = {specs(inputs) for inputs in _traced_inputs(model)}  # several would be ambiguous
    except Exception:  # noqa: BLE001  # as in attempt(): the declared inputs remain
        return None
    return {spec.name or "": FedArray(spec.dtype, spec.shape) for spec in traced_specs}


def _inputs_of_calls(model: Any) -> Any:
    """Return what a subclassed model was called with; ``None`` if unknown or not always the same."""
    if hasattr(model, "save_spec"):
        args, kwargs = model.save_spec()
        return args[0] if len(args) == 1 and not kwargs else None
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    fed = [
        inputs
        for inputs in _traced_inputs(model)
        if [_shapes(inputs)] == [_shapes(shape) for shape in shapes]
    ]
    # On JAX and PyTorch nothing is traced.
    if not fed and (fit_data := fed_to(model)) is not None and "0" not in fit_data:
        fed = [
            inputs
            for inputs in (fit_data.get("", fit_data),)
            if [_shapes(inputs)] == [_shapes(shape) for shape in shapes]
        ]
    types = {tuple((spec.name, spec.dtype) for spec in specs(inputs)) for inputs in fed}
    return fed[0] if len(types) == 1 else None


def _traced_inputs(model: Any) -> Iterator[Any]:
    """Yield the inputs that TensorFlow traced this Keras 3 model's own loops for."""
    for name in ("train_function", "test_function", "predict_function"):
        function = getattr(model, name, None)
        # Keras 3 wraps the traced function in a plain one, except for predict().
        cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        for traced in (function, *cells):
            if hasattr(traced, "_list_all_concrete_functions"):
                for concrete in traced._list_all_concrete_functions():  # noqa: SLF001
                    data = concrete.structured_input_signature[0][0]
                    # Elements of an iterator, or batches in a list: inputs alone, or (inputs, targets, …).
                    data = data[0] if isinstance(data, list) else data._element_spec  # noqa: SLF001
                    inputs = data[0] if isinstance(data, tuple) else data
                    if not isinstance(inputs, list | tuple):  # its members would have no names
                        yield inputs


def _shapes(structure: Any) -> Any:
    """Return a structure's sizes without the batch, for comparison: of tensors, or of Keras's own shapes."""
    if isinstance(structure, Mapping):
        return {str(key): _shapes(item) for key, item in structure.items()}
    if hasattr(structure, "shape"):
        return tuple(structure.shape)[1:]
    if isinstance(structure, list | tuple) and not all(isinstance(n, int | None) for n in structure):
        return [_shapes(item) for item in structure]
    return tuple(structure)[1:]


def _first_attribute(model: Any, *names: str) -> Any:
    # `inputs` is flat in every Keras; the nested structure is in another attribute.
    return next((value for name in names if (value := getattr(model, name, None)) is not None), None)


def specs(structure: Any, names: Any = None) -> tuple[TensorSpec, ...]:
    """Return the specs of a structure's tensors, each with its name.

    Args:
        structure: A tensor, or a dictionary or sequence of tensors, nested or not. A dictionary's tensors
            are named by their keys (``"image"``, and ``"image/left"`` if nested); a sequence's by their
            own names, or by their positions if nested.
        names: The names of a sequence's tensors, if they are known from elsewhere.

    Raises:
        Unknown: A tensor has no name, is ragged or sparse, or has an unknown type or rank.
    """
    if isinstance(structure, list | tuple):
        if len(structure) == 1:
            return specs(structure[0])
        tensor_names = names if names and len(names) == len(structure) else _names_of_items(structure)
        structure = dict(zip(tensor_names, structure, strict=True))
        if len(structure) < len(tensor_names) or None in structure:
            raise Unknown(tensor_names)
    if isinstance(structure, Mapping):
        return tuple(_spec_of_tensor("/".join(path), tensor) for path, tensor in _leaves(structure))
    return (_spec_of_tensor(None, structure),)


def _names_of_items(structure: Sequence[Any]) -> list[Any]:
    return [
        str(position) if isinstance(item, Mapping | list | tuple) else getattr(item, "name", None)
        for position, item in enumerate(structure)
    ]


def _leaves(structure: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(structure, Mapping | list | tuple):
        yield path, structure
        return
    items = structure.items() if isinstance(structure, Mapping) else enumerate(structure)
    for key, item in items:
        yield from _leaves(item, (*path, str(key)))


def _spec_of_tensor(name: str | None, tensor: Any) -> TensorSpec:
    dtype, shape = tensor.dtype, tensor.shape
    # Keras 3 has attributes for these; Keras 2 and TensorFlow classes: RaggedKerasTensor, SparseTensorSpec.
    kind = type(tensor).__name__.lower()
    odd = any(getattr(tensor, word, False) or word in kind for word in ("ragged", "sparse"))
    if odd or shape is None or getattr(shape, "rank", 0) is None:
        raise Unknown(tensor)
    return make_spec(name, getattr(dtype, "name", str(dtype)), shape)


def make_spec(name: str | None, dtype: str, shape: Any) -> TensorSpec:
    """Return the spec of a tensor whose first axis is the batch.

    Raises:
        Unknown: numpy has no name for its type, or it has no axis that could be the batch.
    """
    if not len(shape):
        raise Unknown(name)
    sizes = (-1 if size is None else int(size) for size in shape[1:])
    return TensorSpec(name=name, dtype=dtype_name(dtype), shape=(-1, *sizes))


def dtype_name(dtype: str) -> str:
    """Return numpy's name for a type of TensorFlow or Keras.

    Raises:
        Unknown: numpy has no such type.
    """
    if dtype not in _DTYPES:
        raise Unknown(dtype)
    return _DTYPES[dtype]


def attempt(read: Callable[[Any], Signature | None], source: Any) -> Signature | None:
    """Return ``read(source)``; ``None`` if it fails, because a signature is optional."""
    try:
        return read(source)
    except Exception:  # noqa: BLE001  # reads private attributes of three Keras packages
        return None
