"""A model whose variables a strategy has cut into shards, as the one model that it is.

With ``tf.distribute.ParameterServerStrategy(variable_partitioner=…)`` Keras 2 and tf_keras write each shard
as a variable of its own, and no loader puts them together. So the model is built once more, outside of that,
and given the values of the shards, joined along their first axis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from mlwrap._savers.identify import class_name, imported, owner
from mlwrap._savers.saver import subject
from mlwrap.errors import SaveError, describe_error, warn

_PACKAGES = ("keras", "tf_keras")
_PART = re.compile(r"/part_\d+(?=/|:|$)")  # how TensorFlow names the shards of a variable


def joined(model: Any) -> Any:
    """A model like ``model`` with whole variables; ``model`` itself if none of its variables is cut.

    Raises:
        SaveError: It can't be built once more.
    """
    strategy = type(getattr(model, "distribute_strategy", None)).__name__
    if not strategy.startswith("ParameterServerStrategy") or not any(
        _PART.search(v.name) for v in model.weights
    ):
        return model
    tf: Any = imported("tensorflow")
    keras: Any = imported(owner(model, "Model", packages=_PACKAGES) or "keras")
    try:
        whole = _again(model, keras, tf)
        _assign(whole.weights, _joined(model.weights, tf))
    except Exception as error:
        raise SaveError(
            f"The variables of the Keras model {model.name!r} ({class_name(model)}) are cut into shards by "
            "its strategy's variable_partitioner, and it can't be built without that: "
            f"{describe_error(error)}. Build it of layers (functional or Sequential), or train "
            "without variable_partitioner.",
            model,
        ) from error
    if getattr(model, "optimizer", None) is not None:
        _compile(whole, model, tf)
    return whole


def _again(model: Any, keras: Any, tf: Any) -> Any:
    """The model, built outside the strategy."""
    if getattr(model, "_is_graph_network", False):
        return keras.models.clone_model(model)
    whole = type(model).from_config(model.get_config())
    args, kwargs = model.save_spec()  # with what it was called
    whole(*tf.nest.map_structure(lambda spec: _zeros(spec, tf), args), **kwargs)
    return whole


def _zeros(spec: Any, tf: Any) -> Any:
    return (
        tf.zeros([size or 1 for size in spec.shape], spec.dtype) if isinstance(spec, tf.TensorSpec) else spec
    )


def _compile(whole: Any, model: Any, tf: Any) -> None:
    """Compile as the model is, with the state of its optimizer; without that, a sentence says so."""
    try:
        whole.compile_from_config(model.get_compile_config())
        _assign(_variables(whole.optimizer), _joined(_variables(model.optimizer), tf))
    except Exception as error:  # noqa: BLE001  # the weights are what matters
        warn(
            f"{subject('The Keras model')} is saved without the state of its optimizer, whose variables the "
            f"strategy has cut into shards: {describe_error(error)}."
        )


def _joined(variables: Iterable[Any], tf: Any) -> list[Any]:
    """The values of whole variables, in the order in which their first shards come."""
    shards: dict[object, list[Any]] = {}
    for variable in variables:
        # An optimizer of tf_keras has its shards in one object each, and all of these have one name.
        is_whole = type(variable).__name__ == "ShardedVariable"
        key = id(variable) if is_whole else _PART.sub("", str(variable.name))
        shards.setdefault(key, []).append(tf.convert_to_tensor(variable).numpy())
    return [tf.concat(parts, axis=0).numpy() if len(parts) > 1 else parts[0] for parts in shards.values()]


def _assign(variables: list[Any], values: list[Any]) -> None:
    """Give variables their values.

    Raises:
        ValueError: They are others.
    """
    if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
        raise ValueError("built again it has other variables")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _variables(optimizer: Any) -> list[Any]:
    found = optimizer.variables
    return list(found() if callable(found) else found)
