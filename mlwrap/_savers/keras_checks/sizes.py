"""Count the weights that a Keras configuration declares, without building anything.

Keras creates weights before it reads their values, so a few lines of configuration can take all memory. The
layers that have the most weights are counted, by the formulas of Keras's own ``layers``. The size of their
input is in ``build_config``, which Keras writes for layers that have weights. If it is missing, the input is
assumed to be as wide as anything in the configuration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}
_WIDTHS = ("units", "filters", "output_dim")


def declared_weights(nodes: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of weights that a configuration's objects have; shared objects count once."""
    layers = [node for node in nodes if isinstance(node["config"], Mapping)]
    widest = max((_width(node["config"]) for node in layers), default=1)
    features: dict[int, int] = {}  # by the id of the description
    for node in layers:
        built = node.get("build_config")
        if isinstance(built, Mapping) and (shape := _as_list(built.get("input_shape"))) != [None]:
            features[id(node)] = _as_size(shape[-1]) or 1
            # Keras 2 writes it for a wrapper, but not for the layer inside.
            for inner in node["config"].values():
                features.setdefault(id(inner), features[id(node)])
    shared: dict[Any, int] = {}
    for position, node in enumerate(layers):
        number = _weights(node, features.get(id(node), widest))
        shared[node.get("shared_object_id") or (position,)] = number
    return sum(shared.values())


def _weights(node: Mapping[str, Any], features: int) -> int:
    config, kind = node["config"], node["class_name"]
    units = _as_size(config.get("units"))
    if kind == "Dense":
        return features * units
    if kind == "EinsumDense":
        return features * _as_size(_as_list(config.get("output_shape"))[-1])
    if kind == "Embedding":
        return _as_size(config.get("input_dim")) * _as_size(config.get("output_dim"))
    if kind in _GATES:
        return _GATES[kind] * units * (features + units)
    if kind.startswith("Conv"):
        size = math.prod(map(_as_size, _as_list(config.get("kernel_size"))))
        return (
            size
            * _as_size(config.get("filters"))
            * max(features // max(_as_size(config.get("groups")), 1), 1)
        )
    if kind in ("MultiHeadAttention", "GroupQueryAttention"):
        return _as_size(config.get("num_heads")) * _as_size(config.get("key_dim")) * features
    return 0


def _width(config: Mapping[str, Any]) -> int:
    """Return the largest possible width of a layer's output; for an input, the number of its values."""
    shape = config.get("batch_shape") or config.get("batch_input_shape") or ()
    values = math.prod(max(_as_size(size), 1) for size in _as_list(shape))
    return max(values, *(_as_size(config.get(key)) for key in _WIDTHS))


def _as_size(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _as_list(value: Any) -> list[Any]:
    return (list(value) or [None]) if isinstance(value, list | tuple) else [value]
