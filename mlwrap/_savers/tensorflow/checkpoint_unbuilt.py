"""Find the layers that a checkpoint has values for and that have no variables yet.

TensorFlow keeps such values and assigns them when a variable is created. Layers of Keras 3 do not take part
in that: they are built later with fresh weights, and ``restore()`` does not report it. (Keras 3 optimizers
do take part, and so do the layers of Keras 2 and tf_keras.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlwrap._savers.identify import class_name, has_class, imported

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # tf.train.Checkpoint's own key for its graph of objects
# Objects that compile() creates; a model that is restored only to predict needs no compile().
_OF_COMPILE = re.compile("optimizer|metric|tracker")


def unbuilt_layers(root: Any, prefix: str) -> list[str]:
    """Name the Keras 3 layers below ``root`` that must be built before the checkpoint is restored.

    Args:
        root: The ``tf.train.Checkpoint`` to restore into. It is not changed.
        prefix: The checkpoint's path, without the suffix of its files.

    Returns:
        ``path (class)`` for each of them, such as ``net.dense (keras.src.layers.core.dense.Dense)``.
    """
    train = imported("tensorflow").train
    graph: Any = imported("tensorflow.core.protobuf.trackable_object_graph_pb2").TrackableObjectGraph
    reader = train.load_checkpoint(prefix)
    if not reader.has_tensor(_GRAPH):  # a checkpoint of a TensorFlow 1 saver matches variables by name
        return []
    nodes = graph.FromString(reader.get_tensor(_GRAPH)).nodes
    unbuilt = []
    seen: set[int] = set()
    pending: list[tuple[str, Any, int]] = [("", root, 0)]
    while pending:
        path, value, number = pending.pop(0)
        if number in seen:  # a layer is shared, or refers to its owner
            continue
        seen.add(number)
        children = train.TrackableView.children(value)
        saved = {child.local_name: child.node_id for child in nodes[number].children}
        missing = [saved[name] for name in saved.keys() - children.keys() if not _OF_COMPILE.search(name)]
        if _is_unbuilt(value) and any(_has_values(nodes, child) for child in missing):
            unbuilt.append(f"{path.lstrip('.')} ({class_name(value)})")
        pending += [(f"{path}.{name}", children[name], saved[name]) for name in saved if name in children]
    return unbuilt


def _is_unbuilt(value: Any) -> bool:
    return has_class(value, "Layer", packages=("keras",)) and not _is_module(value) and not value.built


def _is_module(value: Any) -> bool:
    return has_class(value, "Module", packages=("tensorflow.python.module",))


def _has_values(nodes: Any, number: int) -> bool:
    return any(nodes[descendant].attributes for descendant in _descendants(nodes, number))


def _descendants(nodes: Any, number: int) -> Iterator[int]:
    seen, pending = {number}, [number]
    while pending:
        number = pending.pop()
        yield number
        unseen = {child.node_id for child in nodes[number].children} - seen
        seen |= unseen
        pending.extend(unseen)
