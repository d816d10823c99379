"""Find out the inputs of a Keras model or layer, from itself or an example: names, types and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlwrap._savers.identify import has_class, imported
from mlwrap._savers.keras_checks.packages import PACKAGES
from mlwrap._savers.signature import input_structure
from mlwrap.errors import SaveError


def is_layer(value: Any) -> bool:
    """Return whether ``value`` is a layer and not a model."""
    return has_class(value, "Layer", packages=PACKAGES) and not has_class(value, "Model", packages=PACKAGES)


def layers_of(value: Any) -> list[Any]:
    """Return the layers that must be kept for the model's graph to have its variables and tables."""
    if has_class(value, "FeatureSpace", packages=PACKAGES):  # in Keras 2 not a subclass of Layer
        parts = (value.preprocessors, value.crossers, value.one_hot_encoders)
        return [layer for layers in parts for layer in layers.values()]
    return [value] if is_layer(value) else list(value.layers)


@dataclass(frozen=True)
class Input:
    """An input: its name, type and shape."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


def serving_inputs(model: Any, example: Any) -> Any:
    """Return the structure of a model's or layer's inputs.

    Args:
        model: The model or layer.
        example: An input example, or ``None``.

    Raises:
        SaveError: It is not known, because the model was never called.
    """
    if is_layer(model):
        return _inputs_of_layer(model, example)
    structure = input_structure(model)
    if structure is not None:
        return structure
    if example is not None:
        return _inputs_of_example(example)
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())
    if not shapes or not model.built:
        raise SaveError(
            "it was never called on data, which would tell its inputs. Call it on data once", model
        )
    if len(shapes) > 1:
        raise SaveError("its call() takes several arguments. Give it one: a list or a dictionary", model)
    return _inputs_of_shapes(shapes[0], model.input_dtype, "input")


def _inputs_of_example(example: Any) -> Any:
    """Return inputs with the types and sizes of an example and any number of rows."""
    if has_class(example, "DataFrame", packages=("pandas",)):
        example = example.to_numpy()
    if isinstance(example, Mapping):
        return {str(name): _input_of_array(str(name), part) for name, part in example.items()}
    return _input_of_array("input", example)


def _input_of_array(name: str, part: Any) -> Input:
    array = imported("numpy").asarray(part)
    is_text = array.dtype.kind in "OSU"
    return Input(name, "string" if is_text else array.dtype.name, (None, *array.shape[1:]))


def _inputs_of_shapes(shape: Any, dtype: str, name: str) -> Any:
    if isinstance(shape, Mapping):
        return {str(key): _inputs_of_shapes(item, dtype, str(key)) for key, item in shape.items()}
    if all(isinstance(size, int | None) for size in shape):
        return Input(name, dtype, (None, *shape[1:]))
    return [_inputs_of_shapes(item, dtype, f"{name}_{number}") for number, item in enumerate(shape)]


def _inputs_of_layer(layer: Any, example: Any) -> Any:
    """Return the inputs of a layer that is not part of a model.

    Raises:
        SaveError: They are not known, because the layer was never called.
    """
    if has_class(layer, "FeatureSpace", packages=PACKAGES):
        return {name: Input(name, str(feature.dtype), (None,)) for name, feature in layer.features.items()}
    if example is not None:
        return _inputs_of_example(example)
    if (inputs_spec := getattr(layer, "_saved_model_inputs_spec", None)) is not None:  # Keras 2
        return inputs_spec
    dtype = getattr(layer, "vocabulary_dtype", None) or getattr(layer, "input_dtype", layer.compute_dtype)
    dtype = str(getattr(dtype, "name", dtype))
    shapes = list((getattr(layer, "_build_shapes_dict", None) or {}).values())
    if (built_shape := getattr(layer, "_build_input_shape", None)) is not None:  # Keras 2
        shapes = [tuple(built_shape)]
    if len(shapes) == 1:
        return _inputs_of_shapes(shapes[0], dtype, "input")
    if not shapes and hasattr(layer, "adapt"):  # such a layer looks up or counts single values
        return Input("input", dtype, (None,))
    raise SaveError(
        "it was never called on data, which would tell its inputs. Call it on data once, or give an "
        "input_example",
        layer,
    )
