"""``input_example``: convert it to plain arrays, compare it with the model's signature, and write it."""

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
from mlwrap._savers.saver_interface import SaveOptions
from mlwrap._savers.signature import columns_of
from mlwrap.errors import describe_error, warn


class _DoesNotFit(Exception):
    """The example can't be used, or does not fit this model: says what was expected and what was passed."""


def keep_example(model: Any, folder: Path, saved: Saved, options: SaveOptions) -> Saved:
    """Write the input example into the model's folder, with a prediction if one will be compared.

    An example that can't be written, or does not fit, causes a warning.

    Args:
        model: The model as the user has it. It is run only for ``verify="load"``.
        folder: The folder that the saver wrote the model into.
        saved: The saver's description of the model.
        options: The options of the call.

    Returns:
        The saver's description. If a Keras model takes several types or ranks (it casts numbers, and adds a
        last axis of 1), its signature gets the example's.
    """
    if options.input_example is None:
        return saved
    is_keras = saved.details.get("keras") is not None
    try:
        example = _make_example(options.input_example, saved.signature)
        if saved.signature is not None:
            example = _fit_to_signature(example, options.input_example, saved.signature, is_keras=is_keras)
            if is_keras and "serving" not in saved.forms:  # the serving form has the example's types already
                signature = _with_example_types(saved.signature, example, options.input_example)
                saved = msgspec.structs.replace(saved, signature=signature)
    except Exception as error:  # noqa: BLE001 - an example is optional, and may be any object
        reason = str(error) if isinstance(error, _DoesNotFit) else describe_error(error)
        warn(f"The model is saved without its input_example: {reason}")
        return saved
    if options.verify == "load":
        try:
            example = msgspec.structs.replace(example, predicted=predict(model, example))
        except Exception as error:  # noqa: BLE001 - an example is optional, and the model is the user's code
            warn(
                "No prediction will be compared, for the model could not predict its example: "
                f"{describe_error(error)}"
            )
    example.write(folder)
    return saved


def _make_example(data: Any, signature: Signature | None) -> Example:
    kind: Literal["array", "mapping", "frame"] = "mapping"
    if has_class(data, "DataFrame", packages=("pandas",)):
        if non_text_names := [name for name in data.columns if not isinstance(name, str)]:
            raise _DoesNotFit(f"expected columns named by text, got {non_text_names[0]!r}. Rename them.")
        kind, data = "frame", {name: data[name].to_numpy() for name in data.columns}
    elif isinstance(data, list | tuple) and signature and 1 < len(signature.inputs) == len(data):
        data = {str(spec.name): part for spec, part in zip(signature.inputs, data, strict=True)}
    elif not isinstance(data, Mapping):
        kind, data = "array", {"": data}
    if not data:
        raise _DoesNotFit("expected arrays, got an empty mapping.")
    return Example(kind=kind, inputs={str(name): _named_array(part) for name, part in data.items()})


def _named_array(data: Any) -> Any:
    """Return a numpy array of numbers, booleans, text or times."""
    import numpy as np  # noqa: PLC0415 - only where there is an example

    if hasattr(data, "detach"):  # a tensor of PyTorch
        data = data.detach().cpu().numpy()
    array = np.asarray(data)
    if array.dtype == object or array.dtype.kind == "S":
        texts = [part.decode() if isinstance(part, bytes) else part for part in array.ravel().tolist()]
        if not all(isinstance(text, str) for text in texts):
            raise _DoesNotFit(
                "expected an array, a mapping of names to arrays, a pandas frame or a list, of numbers or "
                f"text; got {class_name(data)} of Python objects."
            )
        array = np.array(texts, dtype=str).reshape(array.shape)
    if not array.ndim:
        raise _DoesNotFit(
            f"expected a batch of examples, got the single value {array.item()!r}. Use [value]."
        )
    return array


def _fit_to_signature(example: Example, data: Any, signature: Signature, *, is_keras: bool) -> Example:
    """Return the example if it fits this signature; a list takes the model's type, because it has none.

    Raises:
        _DoesNotFit: It does not fit: says what was expected.
    """
    specs = signature.inputs
    if len(specs) == 1 and example.kind == "array":
        pairs = [("", specs[0])]
        if specs[0].name is not None:  # a model with one named input is fed by that name
            name, array = specs[0].name, example.inputs[""]
            example = Example(kind="mapping", inputs={name: array})
            pairs, data = [(name, specs[0])], {name: data}
    elif example.kind == "frame" and len(specs) == 1 and specs[0].name is None:
        return example  # columns that form one tensor: MLflow brings them to one type
    else:
        named = {str(spec.name): spec for spec in specs}
        if None in {spec.name for spec in specs} or set(named) != set(example.inputs):
            raise _misfit(specs, example)
        pairs = list(named.items())
    fitted = {}
    for name, spec in pairs:
        array = example.inputs[name]
        values = data.get(name) if isinstance(data, Mapping) else data
        if isinstance(values, list | tuple) and _castable(array, spec.dtype):
            array = array.astype(spec.dtype)
        # Only functional and sequential models declare outputs, and only they add a last axis.
        if not (
            _is_accepted(array, spec, completes=bool(signature.outputs))
            if is_keras
            else _matches_spec(array, spec)
        ):
            raise _misfit(specs, example)
        fitted[name] = array
    return msgspec.structs.replace(example, inputs=fitted)


def _castable(array: Any, dtype: str) -> bool:
    import numpy as np  # noqa: PLC0415 - only where there is an example

    return dtype != "str" and np.can_cast(array.dtype, dtype, "same_kind")


def _matches_spec(array: Any, spec: TensorSpec) -> bool:
    dtype = "str" if array.dtype.kind == "U" else array.dtype.name
    return (
        dtype == spec.dtype
        and array.ndim == len(spec.shape)
        and all(wanted in {-1, size} for wanted, size in zip(spec.shape, array.shape, strict=True))
    )


def _is_accepted(array: Any, spec: TensorSpec, *, completes: bool) -> bool:
    """Return whether Keras accepts an array: it casts numbers, and may add or remove a last axis of 1."""
    castable = array.dtype.kind in "biuf" and spec.dtype != "str" and not spec.dtype.startswith("complex")
    cast = array.astype(spec.dtype) if castable else array
    shapes = [array.shape]
    if completes:
        shapes += [(*array.shape, 1), *([array.shape[:-1]] if array.shape[-1] == 1 else [])]
    return any(_matches_spec(cast.reshape(shape), spec) for shape in shapes)


def _with_example_types(signature: Signature, example: Example, data: Any) -> Signature:
    """Return the signature with the example's types and ranks, or with the columns of a frame."""
    if example.kind == "frame":
        columns = columns_of(fed_by(data), signature.inputs)
        return msgspec.structs.replace(signature, columns=columns)
    inputs = []
    for spec in signature.inputs:
        array = example.inputs[spec.name or ""]
        dtype = spec.dtype if array.dtype.kind == "U" else array.dtype.name
        sizes = (*spec.shape, 1) if array.ndim > len(spec.shape) else spec.shape[: array.ndim]
        inputs.append(TensorSpec(name=spec.name, dtype=dtype, shape=sizes))
    return msgspec.structs.replace(signature, inputs=tuple(inputs), columns=())


def _misfit(specs: tuple[TensorSpec, ...], example: Example) -> _DoesNotFit:
    expected = ", ".join(_describe_input(spec.name, spec.dtype, spec.shape) for spec in specs)
    got = ", ".join(
        _describe_input(name, array.dtype.name, array.shape) for name, array in example.inputs.items()
    )
    return _DoesNotFit(f"the model takes {expected}, and the example is {got}.")


def _describe_input(name: str | None, dtype: str, shape: tuple[int, ...]) -> str:
    axes = ", ".join("any" if size < 0 else str(size) for size in shape)
    return (f"{name!r}: " if name else "") + f"{dtype} ({axes})"
