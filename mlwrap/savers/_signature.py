"""Inputs and outputs of a model, without running it: what is known, or ``None``, never a guess.

The first axis of every input is the batch and is written as -1, as MLflow's own ``save_model``
demands; numpy's names are used for types. A model that takes or gives several tensors has them named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    inputs, once it was called; one of Keras 3 remembers their shapes but not their types, so that
    there is nothing to say.
    """
    return attempt(_of_keras, model)


def _of_keras(model: Any) -> Signature | None:
    inputs = _first(model, "_inputs_struct", "_nested_inputs", "inputs")
    if inputs is None:
        args, kwargs = model.save_spec() if hasattr(model, "save_spec") else ((), {})
        if len(args) != 1 or kwargs:
            return None
        inputs = args[0]
    outputs = _first(model, "_outputs_struct", "_nested_outputs", "outputs")
    return Signature(
        inputs=specs(inputs, getattr(model, "input_names", None)),
        outputs=() if outputs is None else specs(outputs, getattr(model, "output_names", None)),
    )


def _first(model: Any, *names: str) -> Any:
    # `inputs` is flat in every Keras; the structure that says which key feeds which input is kept beside it.
    return next((found for name in names if (found := getattr(model, name, None)) is not None), None)


def specs(structure: Any, names: Any = None) -> tuple[TensorSpec, ...]:
    """The tensors of one flat structure: a dictionary, a sequence, or a single tensor.

    Raises:
        Unknown: One of them is nested, ragged, or of a type or rank that can't be told.
    """
    if isinstance(structure, Mapping):
        return tuple(_spec(str(name), tensor) for name, tensor in structure.items())
    if not isinstance(structure, list | tuple):
        return (_spec(None, structure),)
    if len(structure) == 1:
        return (_spec(None, structure[0]),)
    known = names if names and len(names) == len(structure) else [tensor.name for tensor in structure]
    return tuple(_spec(str(name), tensor) for name, tensor in zip(known, structure, strict=True))


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
