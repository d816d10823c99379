"""What a Keras model or layer is fed, told by itself or by an example: names, types and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlwrap._savers.identify import has_class, imported
from mlwrap._savers.keras_checks.packages import PACKAGES
from mlwrap._savers.signature import input_structure
from mlwrap.errors import SaveError


def is_layer(value: Any) -> bool:
    """Tell whether ``value`` is a layer, and no model."""
    return has_class(value, "Layer", packages=PACKAGES) and not has_class(value, "Model", packages=PACKAGES)


def layers_of(value: Any) -> list[Any]:
    """What a model or layer is made of, which has to be kept for its graph to have variables and tables."""
    if has_class(value, "FeatureSpace", packages=PACKAGES):  # no layer of Keras 2's but by name
        parts = (value.preprocessors, value.crossers, value.one_hot_encoders)
        return [layer for layers in parts for layer in layers.values()]
    return [value] if is_layer(value) else list(value.layers)


@dataclass(frozen=True)
class Input:
    """An input of which only shape and type are known."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


def serving_inputs(model: Any, example: Any) -> Any:
    """The structure of the inputs of a model or layer.

    Args:
        model: The model or layer.
        example: An input example, or ``None``.

    Raises:
        SaveError: It is not known, for the model was never called.
    """
    if is_layer(model):
        return _inputs_of_layer(model, example)
    known = input_structure(model)
    if known is not None:
        return known
    if example is not None:
        return _of_example(example)
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    if not shapes or not model.built:
        raise SaveError(
            "it was never called on data, which would tell its inputs. Call it on data once", model
        )
    if len(shapes) > 1:
        raise SaveError("its call() takes several arguments. Give it one: a list or a dictionary", model)
    return _of_shapes(shapes[0], model.input_dtype, "input")


def _of_example(example: Any) -> Any:
    """Inputs of the types and sizes of an example; any number of rows."""
    if has_class(example, "DataFrame", packages=("pandas",)):
        example = example.to_numpy()
    if isinstance(example, Mapping):
        return {str(name): _of_array(str(name), part) for name, part in example.items()}
    return _of_array("input", example)


def _of_array(name: str, part: Any) -> Input:
    array = imported("numpy").asarray(part)
    text = array.dtype.kind in "OSU"
    return Input(name, "string" if text else array.dtype.name, (None, *array.shape[1:]))


def _of_shapes(shape: Any, dtype: str, name: str) -> Any:
    if isinstance(shape, Mapping):
        return {str(key): _of_shapes(item, dtype, str(key)) for key, item in shape.items()}
    if all(isinstance(size, int | None) for size in shape):
        return Input(name, dtype, (None, *shape[1:]))
    return [_of_shapes(item, dtype, f"{name}_{number}") for number, item in enumerate(shape)]


def _inputs_of_layer(layer: Any, example: Any) -> Any:
    """The inputs of a layer that is not part of a model.

    Raises:
        SaveError: They are not known, for the layer was never called.
    """
    if has_class(layer, "FeatureSpace", packages=PACKAGES):
        return {name: Input(name, str(feature.dtype), (None,)) for name, feature in layer.features.items()}
    if example is not None:
        return _of_example(example)
    if (called := getattr(layer, "_saved_model_inputs_spec", None)) is not None:  # Keras 2
        return called
    dtype = getattr(layer, "vocabulary_dtype", None) or getattr(layer, "input_dtype", layer.compute_dtype)
    dtype = str(getattr(dtype, "name", dtype))
    shapes = list((getattr(layer, "_build_shapes_dict", None) or {}).values())
    if (built := getattr(layer, "_build_input_shape", None)) is not None:  # Keras 2
        shapes = [tuple(built)]
    if len(shapes) == 1:
        return _of_shapes(shapes[0], dtype, "input")
    if not shapes and hasattr(layer, "adapt"):  # it looks up or counts single values
        return Input("input", dtype, (None,))
    raise SaveError(
        "it was never called on data, which would tell its inputs. Call it on data once, or give an "
        "input_example",
        layer,
    )
