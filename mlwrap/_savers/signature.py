"""Inputs and outputs of a model, without running it: what is known, or ``None``, never a guess.

The first axis of every input is the batch and is written as -1, as MLflow's own ``save_model``
demands; numpy's names are used for types. A model that takes or gives several tensors has them named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mlwrap._journal.records import Signature, TensorSpec
from mlwrap._savers.history.fit_inputs import FedArray, fed_by
from mlwrap._savers.history.fits import fed_to
from mlwrap._savers.identify import has_class

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
    inputs = _first_attribute(model, "_inputs_struct", "_nested_inputs")
    if inputs is None and (flat := getattr(model, "inputs", None)) is not None:
        inputs = flat[0] if len(flat) == 1 else flat  # a sequential model is called with the tensor itself
    return _of_calls(model) if inputs is None else inputs


def _of_keras(model: Any) -> Signature | None:
    inputs = _first_attribute(model, "_inputs_struct", "_nested_inputs", "inputs")
    if inputs is None:
        inputs = _of_calls(model)
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
    """The inputs that a model declares, each with the type and rank that it was fed with if that is known.

    Keras casts numbers, and of a functional or sequential model it completes a last axis of 1.

    Args:
        model: The model.
        declared: What it says itself.
        example: What it is to be fed, where the user says so; else what its ``fit`` was fed.
    """
    # Of a frame MLflow's own loaders bring the columns together.
    example = None if has_class(example, "DataFrame", packages=("pandas",)) else example
    completes = _first_attribute(model, "_outputs_struct", "_nested_outputs", "outputs") is not None
    for fed in (fed_by(example), fed_to(model), _traced_once(model)):
        if fed is None:
            continue
        by_name = [fed.get("" if spec.name is None else spec.name) for spec in declared]
        owns = by_name if None not in by_name else list(fed.values())  # of a list, in the model's order
        if len(owns) == len(declared) == len(fed):
            pairs = zip(declared, owns, strict=True)
            return tuple(_with_type_of(spec, own, completes=completes) for spec, own in pairs)
    return declared


def columns_of(fed: Mapping[str, FedArray] | None, inputs: tuple[TensorSpec, ...]) -> tuple[str, ...]:
    """Names of the columns that a model's only input is made of, if it was fed a frame of floats.

    MLflow then hands frames to the model as they are, and gives back a frame, which its evaluation needs.
    """
    frame = fed.get("") if fed is not None else None
    if frame is None or len(inputs) != 1 or inputs[0].name is not None or "float" not in inputs[0].dtype:
        return ()
    return frame.columns if inputs[0].shape == (-1, len(frame.columns)) else ()


def _with_type_of(spec: TensorSpec, own: Any, *, completes: bool) -> TensorSpec:
    if own.dtype not in _DTYPES.values() or (own.dtype != spec.dtype and "str" in {own.dtype, spec.dtype}):
        return spec
    sizes, fed = spec.shape[1:], tuple(own.shape)[1:]
    if len(sizes) == len(fed):
        shape = spec.shape
    elif completes and len(fed) == len(sizes) - 1 and sizes[-1] == 1:
        shape = spec.shape[:-1]
    elif completes and len(fed) == len(sizes) + 1 and fed[-1] == 1:
        shape = (*spec.shape, 1)
    else:
        return spec
    return TensorSpec(name=spec.name, dtype=own.dtype, shape=shape)


def _traced_once(model: Any) -> dict[str, FedArray] | None:
    """What TensorFlow traced a model's own loops for, where that was always the same."""
    try:
        (found,) = {specs(inputs) for inputs in _traced(model)}  # of several nobody knows which is meant
    except Exception:  # noqa: BLE001  # as in attempt(): what the model declares holds all the same
        return None
    return {spec.name or "": FedArray(spec.dtype, spec.shape) for spec in found}


def _of_calls(model: Any) -> Any:
    """What a subclassed model was called with; ``None`` if that is not known, or was not always the same."""
    if hasattr(model, "save_spec"):
        args, kwargs = model.save_spec()
        return args[0] if len(args) == 1 and not kwargs else None
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    fed = [inputs for inputs in _traced(model) if [_shapes(inputs)] == [_shapes(known) for known in shapes]]
    if (
        not fed and (own := fed_to(model)) is not None and "0" not in own
    ):  # on JAX and PyTorch nothing is traced
        fed = [inputs for inputs in (own.get("", own),) if [_shapes(inputs)] == [_shapes(s) for s in shapes]]
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


def _first_attribute(model: Any, *names: str) -> Any:
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
        return tuple(_spec_of_tensor("/".join(path), tensor) for path, tensor in _leaves(structure))
    return (_spec_of_tensor(None, structure),)


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


def _spec_of_tensor(name: str | None, tensor: Any) -> TensorSpec:
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
