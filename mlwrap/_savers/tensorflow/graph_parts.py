"""Read parts of a SavedModel's graphs: its assets, its outputs, and the sizes of its values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

MOST_VALUES = 100_000_000
_MAX_CONSTANT_BYTES = 256 << 20  # bytes of a constant that the file stores as one repeated value
_SIZED = {"Fill": (0,), "Range": (0, 1, 2)}  # the inputs that determine the size of the output
_MAX_AXES = 32


def assets(graph: Any) -> list[Any]:
    """Return the ``AssetFileDef`` of each asset, for SavedModels of any TensorFlow version."""
    from tensorflow.core.protobuf import meta_graph_pb2  # noqa: PLC0415  # heavy, and imported already

    asset_files = list(graph.asset_file_def)
    if "saved_model_assets" in graph.collection_def:
        for packed in graph.collection_def["saved_model_assets"].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            asset_files.append(asset)
    return asset_files


def tensors_of(info: Any) -> list[Any]:
    """Return the tensors of a signature's input or output, as ``TensorInfo``."""
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
    """Yield a warning if a constant would be far larger in memory than in the file."""
    if node.op == "Const":
        value = node.attr["value"].tensor
        size = 8 * _element_count(value)
        if size > max(_MAX_CONSTANT_BYTES, 100 * value.ByteSize()):
            yield f"a constant in {where} would be {size:,} bytes in memory, and is not in the file"


def is_bounded(node: Any, inputs: Sequence[Any]) -> bool:
    """Return whether the file states the size of a node's output, and the size is small enough.

    Args:
        node: The node.
        inputs: The nodes that its inputs come from; ``None`` for an argument of the function.
    """
    if node.attr["initial_num_buckets"].i > MOST_VALUES:
        return False
    sizes = [inputs[position] for position in _SIZED.get(node.op, ()) if position < len(inputs)]
    return all(size is not None and _is_small(size) for size in sizes)


def _is_small(size: Any) -> bool:
    if size.op != "Const":
        return str(size.op) in ("Shape", "Size")  # the size of an existing value
    from tensorflow import make_ndarray  # noqa: PLC0415  # heavy, and imported already

    tensor = size.attr["value"].tensor
    if _element_count(tensor) > _MAX_AXES:
        return False
    values = [max(abs(int(value)), 1) for value in make_ndarray(tensor).ravel().tolist()]
    return math.prod(values) <= MOST_VALUES


def _element_count(tensor: Any) -> int:
    return math.prod(max(dim.size, 0) for dim in tensor.tensor_shape.dim)
