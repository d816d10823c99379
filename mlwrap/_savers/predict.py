"""What a model makes of an example: asked before it is saved, and again where it was loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlwrap._journal.input_example import Example
from mlwrap._savers.identify import has_class, imported

_KERAS = ("keras", "tf_keras")
# Another process, perhaps without the training's GPU, adds the same numbers in another order.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4


def predict(model: Any, example: Example) -> dict[str, Any] | None:
    """What ``model`` predicts for ``example``, by name; ``None`` if it is of a kind that is not simply fed.

    Raises:
        Exception: Whatever the model raises.
    """
    if has_class(model, "Estimator", packages=("tensorflow_estimator",)):
        return None
    if has_class(model, "Model", packages=_KERAS):
        return arrays(model.predict(_for_keras(model, example), verbose=0))
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
    tf = sys.modules.get("tensorflow")  # Keras 3 takes no text of numpy's

    def tensor(array: Any) -> Any:
        return tf.constant(array) if tf is not None and array.dtype.kind == "U" else array

    fed = {name: tensor(array) for name, array in example.inputs.items()}
    result = layer(fed if example.kind != "array" else fed[""])
    if isinstance(result, Mapping):
        return {name: _to_array(part) for name, part in result.items()}
    return _to_array(result)


def _to_array(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy() if hasattr(tensor, "detach") else tensor  # PyTorch's


def _for_keras(model: Any, example: Example) -> Any:
    if example.kind != "frame":
        return example.value()
    one = len(getattr(model, "inputs", None) or ()) == 1
    return example.value().to_numpy() if one else dict(example.inputs)


def arrays(result: Any) -> dict[str, Any]:
    """A prediction as arrays by name: of a mapping or a frame its keys, of a sequence its positions.

    Raises:
        TypeError: It holds something that is neither numbers nor text.
    """
    import numpy as np  # noqa: PLC0415 - only where something is predicted

    if has_class(result, "DataFrame", packages=("pandas",)):
        is_one = list(result.columns) == list(range(len(result.columns)))  # an array, as MLflow makes one
        result = result.to_numpy() if is_one else {name: result[name].to_numpy() for name in result.columns}
    if isinstance(result, list | tuple):
        result = {str(position): part for position, part in enumerate(result)}
    if not isinstance(result, Mapping):
        result = {"": result}
    found = {str(name): np.asarray(part) for name, part in result.items()}
    for name, array in found.items():
        if array.dtype == object or array.dtype.kind == "S":
            texts = [text.decode() if isinstance(text, bytes) else text for text in array.ravel().tolist()]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(f"the prediction {name!r} is neither numbers nor text.")
            found[name] = np.array(texts, dtype=str).reshape(array.shape)
    return found


def difference(expected: Mapping[str, Any], got: Mapping[str, Any]) -> str | None:
    """Say in what two predictions differ; ``None`` if they are the same but for rounding."""
    import numpy as np  # noqa: PLC0415 - likewise

    if len(expected) == len(got) == 1:  # what a single output is called is the loader's choice
        got = dict(zip(expected, got.values(), strict=True))
    if set(expected) != set(got):
        return f"expected outputs called {sorted(expected)}, got {sorted(got)}"
    for name, wanted in expected.items():
        array = got[name]
        what = f"of the output {name!r} " if name else ""
        if wanted.shape != array.shape:
            return f"the shape {what}is {array.shape}, and was {wanted.shape}"
        if wanted.dtype.kind in "US" or array.dtype.kind in "US":
            same = np.array_equal(wanted, array)
        else:
            same = np.allclose(array, wanted, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        if not same:
            before, now = (some.ravel()[:3].tolist() for some in (wanted, array))
            return f"the values {what}differ: {now} …, and were {before} …"
    return None
