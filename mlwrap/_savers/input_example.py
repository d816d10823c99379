"""``input_example``: made of plain arrays, compared with what the model says of its inputs, written down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from mlwrap._journal.input_example import Example
from mlwrap._journal.records import Saved, Signature, TensorSpec
from mlwrap._savers.history.fit_inputs import fed_by
from mlwrap._savers.identify import class_name, has_class
from mlwrap._savers.predict import predict
from mlwrap._savers.saver import SaveOptions
from mlwrap._savers.signature import columns_of
from mlwrap.errors import describe_error, warn


class _Unfit(Exception):
    """The example is none, or is not one for this model: what was expected, and what came."""


def keep_example(model: Any, folder: Path, saved: Saved, options: SaveOptions) -> Saved:
    """Write the example that was given into the model's folder, with a prediction if one is to be compared.

    One that can't be written, or does not fit, is a warning.

    Args:
        model: The model as the user has it. It is run only for ``verify="load"``.
        folder: Where the saver has written it to.
        saved: What the saver said of it.
        options: What was asked.

    Returns:
        What the saver said. The example decides the types and shapes of its signature where a Keras model
        takes several: it casts numbers, and completes a last axis of 1.
    """
    if options.input_example is None:
        return saved
    is_keras = saved.details.get("keras") is not None
    try:
        example = _example(options.input_example, saved.signature)
        if saved.signature is not None:
            example = _fitted(example, options.input_example, saved.signature, is_keras=is_keras)
            if is_keras and "serving" not in saved.forms:  # which was made for the example's types already
                signature = _as_fed(saved.signature, example, options.input_example)
                saved = msgspec.structs.replace(saved, signature=signature)
    except Exception as error:  # noqa: BLE001 - an example is a bonus, and may be anything
        what = str(error) if isinstance(error, _Unfit) else describe_error(error)
        warn(f"The model is saved without its input_example: {what}")
        return saved
    if options.verify == "load":
        try:
            example = msgspec.structs.replace(example, predicted=predict(model, example))
        except Exception as error:  # noqa: BLE001 - likewise, and the model is the user's code
            warn(
                "No prediction will be compared, for the model could not predict its example: "
                f"{describe_error(error)}"
            )
    example.write(folder)
    return saved


def _example(given: Any, signature: Signature | None) -> Example:
    kind: Literal["array", "mapping", "frame"] = "mapping"
    if has_class(given, "DataFrame", packages=("pandas",)):
        if strange := [name for name in given.columns if not isinstance(name, str)]:
            raise _Unfit(f"expected columns named by text, got {strange[0]!r}. Rename them.")
        kind, given = "frame", {name: given[name].to_numpy() for name in given.columns}
    elif isinstance(given, list | tuple) and signature and 1 < len(signature.inputs) == len(given):
        given = {str(spec.name): part for spec, part in zip(signature.inputs, given, strict=True)}
    elif not isinstance(given, Mapping):
        kind, given = "array", {"": given}
    if not given:
        raise _Unfit("expected arrays, got an empty mapping.")
    return Example(kind=kind, inputs={str(name): _named_array(part) for name, part in given.items()})


def _named_array(given: Any) -> Any:
    """A numpy array of what it can name: numbers, booleans, text, times."""
    import numpy as np  # noqa: PLC0415 - only where there is an example

    if hasattr(given, "detach"):  # PyTorch's
        given = given.detach().cpu().numpy()
    array = np.asarray(given)
    if array.dtype == object or array.dtype.kind == "S":
        texts = [part.decode() if isinstance(part, bytes) else part for part in array.ravel().tolist()]
        if not all(isinstance(text, str) for text in texts):
            raise _Unfit(
                "expected an array, a mapping of names to arrays, a pandas frame or a list, of numbers or "
                f"text; got {class_name(given)} of Python objects."
            )
        array = np.array(texts, dtype=str).reshape(array.shape)
    if not array.ndim:
        raise _Unfit(f"expected a batch of examples, got the single value {array.item()!r}. Use [value].")
    return array


def _fitted(example: Example, given: Any, signature: Signature, *, is_keras: bool) -> Example:
    """The example, if it is one for this signature; a list has no type of its own, so it takes the model's.

    Raises:
        _Unfit: It is not: what was expected.
    """
    specs = signature.inputs
    if len(specs) == 1 and example.kind == "array":
        pairs = [("", specs[0])]
        if specs[0].name is not None:  # what has one input by a name is fed by it
            name, array = specs[0].name, example.inputs[""]
            example = Example(kind="mapping", inputs={name: array})
            pairs, given = [(name, specs[0])], {name: given}
    elif example.kind == "frame" and len(specs) == 1 and specs[0].name is None:
        return example  # columns that make one tensor: their types are MLflow's to bring together
    else:
        named = {str(spec.name): spec for spec in specs}
        if None in {spec.name for spec in specs} or set(named) != set(example.inputs):
            raise _misfit(specs, example)
        pairs = list(named.items())
    fitted = {}
    for name, spec in pairs:
        array = example.inputs[name]
        own = given.get(name) if isinstance(given, Mapping) else given
        if isinstance(own, list | tuple) and _castable(array, spec.dtype):
            array = array.astype(spec.dtype)
        # Keras tells its outputs only of models that complete their inputs: functional and sequential ones.
        if not (_is_taken(array, spec, completes=bool(signature.outputs)) if is_keras else _is(array, spec)):
            raise _misfit(specs, example)
        fitted[name] = array
    return msgspec.structs.replace(example, inputs=fitted)


def _castable(array: Any, dtype: str) -> bool:
    import numpy as np  # noqa: PLC0415 - only where there is an example

    return dtype != "str" and np.can_cast(array.dtype, dtype, "same_kind")


def _is(array: Any, spec: TensorSpec) -> bool:
    dtype = "str" if array.dtype.kind == "U" else array.dtype.name
    return (
        dtype == spec.dtype
        and array.ndim == len(spec.shape)
        and all(wanted in {-1, size} for wanted, size in zip(spec.shape, array.shape, strict=True))
    )


def _is_taken(array: Any, spec: TensorSpec, *, completes: bool) -> bool:
    """Whether Keras takes an array: it casts numbers, and may add or remove a last axis of 1."""
    castable = array.dtype.kind in "biuf" and spec.dtype != "str" and not spec.dtype.startswith("complex")
    cast = array.astype(spec.dtype) if castable else array
    shapes = [array.shape]
    if completes:
        shapes += [(*array.shape, 1), *([array.shape[:-1]] if array.shape[-1] == 1 else [])]
    return any(_is(cast.reshape(shape), spec) for shape in shapes)


def _as_fed(signature: Signature, example: Example, given: Any) -> Signature:
    """The signature with the example's types and ranks, or with the columns of a frame."""
    if example.kind == "frame":
        columns = columns_of(fed_by(given), signature.inputs)
        return msgspec.structs.replace(signature, columns=columns)
    inputs = []
    for spec in signature.inputs:
        array = example.inputs[spec.name or ""]
        dtype = spec.dtype if array.dtype.kind == "U" else array.dtype.name
        sizes = (*spec.shape, 1) if array.ndim > len(spec.shape) else spec.shape[: array.ndim]
        inputs.append(TensorSpec(name=spec.name, dtype=dtype, shape=sizes))
    return msgspec.structs.replace(signature, inputs=tuple(inputs), columns=())


def _misfit(specs: tuple[TensorSpec, ...], example: Example) -> _Unfit:
    expected = ", ".join(_describe_input(spec.name, spec.dtype, spec.shape) for spec in specs)
    got = ", ".join(
        _describe_input(name, array.dtype.name, array.shape) for name, array in example.inputs.items()
    )
    return _Unfit(f"the model takes {expected}, and the example is {got}.")


def _describe_input(name: str | None, dtype: str, shape: tuple[int, ...]) -> str:
    axes = ", ".join("any" if size < 0 else str(size) for size in shape)
    return (f"{name!r}: " if name else "") + f"{dtype} ({axes})"
