"""Find the layers that a checkpoint has values for and that have no variables yet.

TensorFlow keeps such values and assigns them when a variable is created. A layer of Keras 3 does not take
part in that: it is built later with fresh weights, and ``restore()`` says nothing. (Its optimizers do take
part, and so do the layers of Keras 2 and tf_keras.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlwrap._savers.identify import class_name, has_class, imported

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # tf.train.Checkpoint's own key for the objects it was made of
# What compile() makes. Whoever restores a model to predict with it need not compile it.
_OF_COMPILE = re.compile("optimizer|metric|tracker")


def unbuilt_layers(root: Any, prefix: str) -> list[str]:
    """Name the Keras 3 layers below ``root`` that are to be built before the checkpoint is restored.

    Args:
        root: The ``tf.train.Checkpoint`` to restore into. It is not changed.
        prefix: The checkpoint's path, without the suffix of its files.

    Returns:
        ``path (class)`` for each of them, such as ``net.dense (keras.src.layers.core.dense.Dense)``.
    """
    train = imported("tensorflow").train
    graph: Any = imported("tensorflow.core.protobuf.trackable_object_graph_pb2").TrackableObjectGraph
    reader = train.load_checkpoint(prefix)
    if not reader.has_tensor(_GRAPH):  # of a TensorFlow 1 saver: it matches variables by name
        return []
    nodes = graph.FromString(reader.get_tensor(_GRAPH)).nodes
    found = []
    seen: set[int] = set()
    waiting: list[tuple[str, Any, int]] = [("", root, 0)]
    while waiting:
        path, value, number = waiting.pop(0)
        if number in seen:  # a layer that two others share, or one that knows its owner
            continue
        seen.add(number)
        children = train.TrackableView.children(value)
        saved = {child.local_name: child.node_id for child in nodes[number].children}
        missing = [saved[name] for name in saved.keys() - children.keys() if not _OF_COMPILE.search(name)]
        if _is_unbuilt(value) and any(_has_values(nodes, child) for child in missing):
            found.append(f"{path.lstrip('.')} ({class_name(value)})")
        waiting += [(f"{path}.{name}", children[name], saved[name]) for name in saved if name in children]
    return found


def _is_unbuilt(value: Any) -> bool:
    return has_class(value, "Layer", packages=("keras",)) and not _is_module(value) and not value.built


def _is_module(value: Any) -> bool:
    return has_class(value, "Module", packages=("tensorflow.python.module",))


def _has_values(nodes: Any, number: int) -> bool:
    return any(nodes[below].attributes for below in _below(nodes, number))


def _below(nodes: Any, number: int) -> Iterator[int]:
    seen, waiting = {number}, [number]
    while waiting:
        number = waiting.pop()
        yield number
        fresh = {child.node_id for child in nodes[number].children} - seen
        seen |= fresh
        waiting.extend(fresh)
