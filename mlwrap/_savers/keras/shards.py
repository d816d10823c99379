"""Join the shards that a strategy has cut a model's variables into.

With ``tf.distribute.ParameterServerStrategy(variable_partitioner=…)`` Keras 2 and tf_keras write each shard
as a separate variable, and no loader joins them. So the model is built again, outside the strategy, and gets
the values of the shards, joined along their first axis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mlwrap._savers.identify import class_name, imported, owner
from mlwrap._savers.saver_interface import subject
from mlwrap.errors import SaveError, describe_error, warn

_PACKAGES = ("keras", "tf_keras")
_PART = re.compile(r"/part_\d+(?=/|:|$)")  # how TensorFlow names the shards of a variable


def joined(model: Any) -> Any:
    """Return a model like ``model`` with unsharded variables; ``model`` itself if it has no shards.

    Raises:
        SaveError: It can't be built again.
    """
    strategy = type(getattr(model, "distribute_strategy", None)).__name__
    if not strategy.startswith("ParameterServerStrategy") or not any(
        _PART.search(variable.name) for variable in model.weights
    ):
        return model
    tf: Any = imported("tensorflow")
    keras: Any = imported(owner(model, "Model", packages=_PACKAGES) or "keras")
    try:
        unsharded = _build_unsharded(model, keras, tf)
        _assign(unsharded.weights, _joined_values(model.weights, tf))
    except Exception as error:
        raise SaveError(
            f"The variables of the Keras model {model.name!r} ({class_name(model)}) are cut into shards by "
            "its strategy's variable_partitioner, and it can't be built without that: "
            f"{describe_error(error)}. Build it of layers (functional or Sequential), or train "
            "without variable_partitioner.",
            model,
        ) from error
    if getattr(model, "optimizer", None) is not None:
        _compile(unsharded, model, tf)
    return unsharded


def _build_unsharded(model: Any, keras: Any, tf: Any) -> Any:
    """Return the model, built outside the strategy."""
    if getattr(model, "_is_graph_network", False):
        return keras.models.clone_model(model)
    unsharded = type(model).from_config(model.get_config())
    args, kwargs = model.save_spec()  # the arguments that the model was called with
    unsharded(*tf.nest.map_structure(lambda spec: _zeros(spec, tf), args), **kwargs)
    return unsharded


def _zeros(spec: Any, tf: Any) -> Any:
    return (
        tf.zeros([size or 1 for size in spec.shape], spec.dtype) if isinstance(spec, tf.TensorSpec) else spec
    )


def _compile(unsharded: Any, model: Any, tf: Any) -> None:
    """Compile the new model like ``model``, with its optimizer's state; warn if the state can't be kept."""
    try:
        unsharded.compile_from_config(model.get_compile_config())
        _assign(_variables(unsharded.optimizer), _joined_values(_variables(model.optimizer), tf))
    except Exception as error:  # noqa: BLE001  # the weights matter more
        warn(
            f"{subject('The Keras model')} is saved without the state of its optimizer, whose variables the "
            f"strategy has cut into shards: {describe_error(error)}."
        )


def _joined_values(variables: Iterable[Any], tf: Any) -> list[Any]:
    """Return the values of unsharded variables, in the order of their first shards."""
    shards: dict[object, list[Any]] = {}
    for variable in variables:
        # In tf_keras an optimizer has one object for all shards of a variable; those objects share one name.
        is_sharded = type(variable).__name__ == "ShardedVariable"
        key = id(variable) if is_sharded else _PART.sub("", str(variable.name))
        shards.setdefault(key, []).append(tf.convert_to_tensor(variable).numpy())
    return [tf.concat(parts, axis=0).numpy() if len(parts) > 1 else parts[0] for parts in shards.values()]


def _assign(variables: list[Any], values: list[Any]) -> None:
    """Assign values to variables.

    Raises:
        ValueError: The shapes differ.
    """
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ValueError("built again it has other variables")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _variables(optimizer: Any) -> list[Any]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)
