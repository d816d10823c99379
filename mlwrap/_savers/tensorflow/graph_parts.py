"""Parts of a SavedModel's graphs: its assets, its outputs, and how large its values become."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

MOST_VALUES = 100_000_000
_MAX_CONSTANT_BYTES = 256 << 20  # bytes of a constant that the file does not hold: of one value, repeated
_SIZED = {"Fill": (0,), "Range": (0, 1, 2)}  # the inputs that say how large a value becomes
_MAX_AXES = 32


def assets(graph: Any) -> list[Any]:
    """The ``AssetFileDef`` of each asset, wherever a SavedModel of any age keeps them."""
    from tensorflow.core.protobuf import meta_graph_pb2  # noqa: PLC0415  # heavy, and here already

    found = list(graph.asset_file_def)
    if "saved_model_assets" in graph.collection_def:
        for packed in graph.collection_def["saved_model_assets"].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            found.append(asset)
    return found


def tensors_of(info: Any) -> list[Any]:
    """The tensors that an input or output of a signature consists of, as ``TensorInfo``."""
    if info.WhichOneof("encoding") == "coo_sparse":
        sparse = info.coo_sparse
        return [
            type(info)(name=name)
            for name in (
                sparse.values_tensor_name,
                sparse.indices_tensor_name,
                sparse.dense_shape_tensor_name,
            )
        ]
    if info.WhichOneof("encoding") == "composite_tensor":
        return list(info.composite_tensor.components)
    return [info]


def bloated_constants(node: Any, where: str) -> Iterator[str]:
    """Say of a constant that it would be far larger in memory than it is in the file."""
    if node.op == "Const":
        value = node.attr["value"].tensor
        size = 8 * _count(value)
        if size > max(_MAX_CONSTANT_BYTES, 100 * value.ByteSize()):
            yield f"a constant in {where} would be {size:,} bytes in memory, and is not in the file"


def is_bounded(node: Any, inputs: Sequence[Any]) -> bool:
    """Whether what a node makes is of a size that the file states, and small enough.

    Args:
        node: What makes a value.
        inputs: The nodes that its inputs come from; ``None`` for an argument of the function.
    """
    if node.attr["initial_num_buckets"].i > MOST_VALUES:
        return False
    sizes = [inputs[position] for position in _SIZED.get(node.op, ()) if position < len(inputs)]
    return all(size is not None and _is_small(size) for size in sizes)


def _is_small(size: Any) -> bool:
    if size.op != "Const":
        return str(size.op) in ("Shape", "Size")  # of what is there
    from tensorflow import make_ndarray  # noqa: PLC0415  # heavy, and here already

    tensor = size.attr["value"].tensor
    if _count(tensor) > _MAX_AXES:
        return False
    values = [max(abs(int(value)), 1) for value in make_ndarray(tensor).ravel().tolist()]
    return math.prod(values) <= MOST_VALUES


def _count(tensor: Any) -> int:
    return math.prod(max(dim.size, 0) for dim in tensor.tensor_shape.dim)
