"""Predict with an example before a model is saved and after it is loaded, and compare the predictions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlwrap._journal.input_example import Example
from mlwrap._savers.identify import has_class, imported

_KERAS = ("keras", "tf_keras")
# Relative and absolute tolerance: another process, perhaps without a GPU, adds numbers in another order.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4


def predict(model: Any, example: Example) -> dict[str, Any] | None:
    """Return the model's predictions for ``example``, by name; ``None`` if the model can't simply be fed.

    Raises:
        Exception: Any error of the model.
    """
    if has_class(model, "Estimator", packages=("tensorflow_estimator",)):
        return None
    if has_class(model, "Model", packages=_KERAS):
        return arrays(model.predict(_keras_inputs(model, example), verbose=0))
    if has_class(model, "Layer", packages=_KERAS):
        return arrays(_predict_with_layer(model, example))
    if has_class(model, "Module", "AutoTrackable", packages=("tensorflow.python",)) and callable(model):
        constant = imported("tensorflow").constant
        if example.kind == "array":
            return arrays(model(constant(example.value())))
        return arrays(model(**{name: constant(array) for name, array in example.inputs.items()}))
    if callable(getattr(model, "predict", None)):
        return arrays(model.predict(example.value()))
    return None


def _predict_with_layer(layer: Any, example: Example) -> Any:
    tf = sys.modules.get("tensorflow")  # Keras 3 does not accept numpy text

    def tensor(array: Any) -> Any:
        return tf.constant(array) if tf is not None and array.dtype.kind == "U" else array

    inputs = {name: tensor(array) for name, array in example.inputs.items()}
    result = layer(inputs if example.kind != "array" else inputs[""])
    if isinstance(result, Mapping):
        return {name: _to_array(part) for name, part in result.items()}
    return _to_array(result)


def _to_array(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor  # a tensor of PyTorch


def _keras_inputs(model: Any, example: Example) -> Any:
    if example.kind != "frame":
        return example.value()
    has_one_input = len(getattr(model, "inputs", None) or ()) == 1
    return example.value().to_numpy() if has_one_input else dict(example.inputs)


def arrays(result: Any) -> dict[str, Any]:
    """Return a prediction as arrays by name: a mapping or frame by its keys, a sequence by its positions.

    Raises:
        TypeError: It contains something that is neither numbers nor text.
    """
    import numpy as np  # noqa: PLC0415 - only needed for predictions

    if has_class(result, "DataFrame", packages=("pandas",)):
        is_array = list(result.columns) == list(range(len(result.columns)))  # MLflow makes this of an array
        result = result.to_numpy() if is_array else {name: result[name].to_numpy() for name in result.columns}
    if isinstance(result, list | tuple):
        result = {str(position): part for position, part in enumerate(result)}
    if not isinstance(result, Mapping):
        result = {"": result}
    arrays_by_name = {str(name): np.asarray(part) for name, part in result.items()}
    for name, array in arrays_by_name.items():
        if array.dtype == object or array.dtype.kind == "S":
            texts = [text.decode() if isinstance(text, bytes) else text for text in array.ravel().tolist()]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(f"the prediction {name!r} is neither numbers nor text.")
            arrays_by_name[name] = np.array(texts, dtype=str).reshape(array.shape)
    return arrays_by_name


def difference(expected: Mapping[str, Any], got: Mapping[str, Any]) -> str | None:
    """Return how two predictions differ; ``None`` if they are equal within the tolerance."""
    import numpy as np  # noqa: PLC0415 - only needed for predictions

    if len(expected) == len(got) == 1:  # the loader chooses the name of a single output
        got = dict(zip(expected, got.values(), strict=True))
    if set(expected) != set(got):
        return f"expected outputs called {sorted(expected)}, got {sorted(got)}"
    for name, expected_array in expected.items():
        array = got[name]
        subject = f"of the output {name!r} " if name else ""
        if expected_array.shape != array.shape:
            return f"the shape {subject}is {array.shape}, and was {expected_array.shape}"
        if expected_array.dtype.kind in "US" or array.dtype.kind in "US":
            is_equal = np.array_equal(expected_array, array)
        else:
            is_equal = np.allclose(array, expected_array, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        if not is_equal:
            before, now = (values.ravel()[:3].tolist() for values in (expected_array, array))
            return f"the values {subject}differ: {now} …, and were {before} …"
    return None
