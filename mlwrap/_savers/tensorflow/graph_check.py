"""What a SavedModel would do when it is loaded and called, read from its graphs before TensorFlow opens it.

``tf.saved_model.load`` runs functions of the file: those that create and initialize its resources and restore
its objects; of a SavedModel of TensorFlow 1 the operations that restore its variables and initialize it. So
there are three rules, each of them a list of what is allowed
(:mod:`mlwrap._savers.tensorflow.graph_operations`):

* What runs at loading makes tables and variables, and reads no file but the SavedModel's own.
* What can be called later computes.
* What nothing runs, which is the saver's part of the graph, may read and write checkpoints too.

The formats are those of ``tensorflow/core/protobuf/{meta_graph,saved_object_graph}.proto`` and
``tensorflow/core/framework/{graph,function,node_def}.proto``; what runs is told by
``tensorflow/python/saved_model/{load,load_v1_in_v2}.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mlwrap._savers.tensorflow.graph_operations import ALLOWED, LOADING, READING, REASONS, SAVING
from mlwrap._savers.tensorflow.graph_parts import (
    MOST_VALUES,
    assets,
    bloated_constants,
    is_bounded,
    tensors_of,
)

_INFERENCE = re.compile(r"__inference_(.+)_\d+")
_RESOURCE = ("_create_resource", "_initialize", "_destroy_resource")  # what a resource runs by itself
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_FIRST = ("__saved_model_init_op", "saved_model_main_op", "legacy_init_op", "table_initializer")
# Where PrintV2 may print; else it writes a file.
_STREAMS = (b"", b"stderr", b"stdout", b"log(info)", b"log(warning)", b"log(error)")


def function_name(name: str) -> str:
    """The name that a function had in Python, of the name that TensorFlow gave to its graph."""
    found = _INFERENCE.fullmatch(name)
    return found[1] if found else name


def needs_trust(graph: Any, *, as_objects: bool) -> list[str]:
    """What in a graph writes, reads, runs or connects, in words; nothing, if it may be loaded without trust.

    Args:
        graph: A ``MetaGraphDef``.
        as_objects: Whether TensorFlow loads it as objects, or as a graph of TensorFlow 1.
    """
    return list(dict.fromkeys(_Check(graph).troubles(as_objects=as_objects)))


class _Check:
    """One graph, its functions, and what was looked at already."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.graph_def.node}
        self._functions = {function.signature.name: function for function in graph.graph_def.library.function}
        self._loaded: set[tuple[str, tuple[bool, ...]]] = set()

    def troubles(self, *, as_objects: bool) -> Iterator[str]:
        """Each operation that is not allowed where it is."""
        if len(self._nodes) < len(self._graph.graph_def.node):
            yield "two operations in its graph have one name"
        if len(self._functions) < len(self._graph.graph_def.library.function):
            yield "two functions have one name"
        idle = set(self._nodes)  # what nothing runs: of objects only functions are loaded
        if as_objects:
            yield from self._of_objects()
        else:
            at_loading = self._behind([*self._initializers(), self._graph.saver_def.restore_op_name])
            idle -= at_loading | self._behind(self._outputs())
            yield from self._of_graph(at_loading)
            for name in self._nodes.keys() - at_loading:
                yield from self._called(self._nodes[name], "its graph", idle=name in idle)
        yield from self._of_functions(self._idle_functions(idle))
        for node in self._nodes.values():
            yield from bloated_constants(node, "its graph")

    # What runs at loading.

    def _of_objects(self) -> Iterator[str]:
        objects = self._graph.object_graph_def
        for name in self._run_by_objects():
            if (function := self._functions.get(name)) is None:
                continue
            bound = (
                objects.concrete_functions[name].bound_inputs if name in objects.concrete_functions else ()
            )
            own = len(function.signature.input_arg) - len(bound)
            given = [False] * max(own, 0)
            for number in bound:
                given.append(
                    number < len(objects.nodes) and objects.nodes[number].WhichOneof("kind") == "asset"
                )
            yield from self._function_at_loading(name, tuple(given))

    def _run_by_objects(self) -> Iterator[str]:
        nodes = self._graph.object_graph_def.nodes
        for node in nodes:
            resource = node.WhichOneof("kind") == "resource" or bool(node.registered_name)
            run = [child.node_id for child in node.children if resource or child.local_name in _RESOURCE]
            run += [saveable.restore_function for saveable in node.saveable_objects.values()]
            for number in run:
                if number < len(nodes):
                    yield from nodes[number].function.concrete_functions
                    yield nodes[number].bare_concrete_function.concrete_function_name

    def _of_graph(self, names: Iterable[str]) -> Iterator[str]:
        paths = [asset.tensor_info.name for asset in assets(self._graph)]
        given = {_node(name) for name in (*paths, self._graph.saver_def.filename_tensor_name)}

        def is_given(tensor: str) -> bool:
            return source(tensor, self._nodes) in given

        for name in names:
            yield from self._at_loading(self._nodes[name], "its graph", is_given, self._nodes)

    def _function_at_loading(self, name: str, given: tuple[bool, ...]) -> Iterator[str]:
        """Operations in a function that is run when the SavedModel is loaded.

        Args:
            name: Of the function.
            given: For each of its arguments, whether it is the path of a file of the SavedModel's own.
        """
        function = self._functions[name]
        if (name, given) in self._loaded:
            return
        self._loaded.add((name, given))
        arguments = dict(zip((arg.name for arg in function.signature.input_arg), given, strict=False))
        nodes = {node.name: node for node in function.node_def}

        def is_given(tensor: str) -> bool:
            name = source(tensor, nodes)
            return name not in nodes and bool(arguments.get(name, False))

        for node in function.node_def:
            yield from self._at_loading(node, function_name(name), is_given, nodes)

    def _at_loading(
        self, node: Any, where: str, is_given: Callable[[str], bool], nodes: Mapping[str, Any]
    ) -> Iterator[str]:
        inputs = [name for name in node.input if not name.startswith("^")]
        called = node.attr["f"].func.name if node.op in _CALLS else node.op
        if called in self._functions:
            yield from self._function_at_loading(called, tuple(map(is_given, inputs)))
        elif node.op in READING:
            position = READING[node.op]
            if position >= len(inputs) or not is_given(inputs[position]):
                yield f"{node.op} in {where} reads a file that is not the SavedModel's own when it is loaded"
        elif node.op not in LOADING:
            yield f"{node.op} in {where} {REASONS.get(node.op, 'runs')} when it is loaded"
        elif not is_bounded(node, [nodes.get(source(name, nodes)) for name in inputs]):
            yield f"{node.op} in {where} makes more than {MOST_VALUES:,} values when it is loaded"

    # What can be called later.

    def _of_functions(self, idle: set[str]) -> Iterator[str]:
        """Operations in functions that run, if at all, when the user calls something."""
        at_loading = {name for name, _ in self._loaded}
        # A function that may read an asset at loading reads any file where its caller says which.
        reading = {
            name for name in at_loading if any(n.op in READING for n in self._functions[name].node_def)
        }
        for name, function in self._functions.items():
            where = function_name(name)
            for node in function.node_def:
                yield from bloated_constants(node, where)
                if name not in at_loading:
                    yield from self._called(node, where, idle=name in idle)
                    for used in sorted(self._mentions(node) & reading):
                        yield f"{function_name(used)}, which reads a file, is called by {where}"

    def _called(self, node: Any, where: str, *, idle: bool) -> Iterator[str]:
        if node.op in self._functions or node.op in ALLOWED or (idle and node.op in SAVING):
            return
        if node.op == "PrintV2" and node.attr["output_stream"].s in _STREAMS:
            return
        reason = REASONS.get(node.op, "is not among the operations that are known to do nothing but compute")
        yield f"{node.op} in {where} {reason}"

    # What is behind what.

    def _initializers(self) -> list[str]:
        """What ``load_v1_in_v2`` runs, or would if there were no other: names of operations."""
        from tensorflow.core.framework.variable_pb2 import VariableDef  # noqa: PLC0415  # heavy

        graph = self._graph
        names = []
        for key in _FIRST:
            if key in graph.signature_def:
                names += [output.name for output in graph.signature_def[key].outputs.values()]
            if key in graph.collection_def:
                names += graph.collection_def[key].node_list.value
        local = graph.collection_def.get("local_variables")
        texts = local.bytes_list.value if local is not None else ()
        return names + [VariableDef.FromString(text).initializer_name for text in texts]

    def _outputs(self) -> list[str]:
        return [
            tensor.name
            for key, signature in self._graph.signature_def.items()
            if not key.startswith("__")
            for output in signature.outputs.values()
            for tensor in tensors_of(output)
        ]

    def _behind(self, names: Iterable[str]) -> set[str]:
        """Nodes of the graph that these outputs take, by data or by order."""
        waiting, found = [_node(name) for name in names if name], set()
        while waiting:
            name = waiting.pop()
            if name not in found and name in self._nodes:
                found.add(name)
                waiting += map(_node, self._nodes[name].input)
        return found

    def _mentions(self, node: Any) -> set[str]:
        """Functions that a node names in any way: as its operation, as a function, or as text."""
        names = {node.op}
        for value in node.attr.values():
            kind = value.WhichOneof("value")
            if kind == "func":
                names.add(value.func.name)
            elif kind == "list":
                names |= {function.name for function in value.list.func}
                names |= {text.decode(errors="replace") for text in value.list.s}
            elif kind == "s":
                names.add(value.s.decode(errors="replace"))
        return names & self._functions.keys()

    def _idle_functions(self, idle: set[str]) -> set[str]:
        """Functions that idle nodes use, and nothing else does: the saver's."""
        own = self._reached({name for node in idle for name in self._mentions(self._nodes[node])})
        return own - self._reached(self._used_elsewhere(idle, own))

    def _reached(self, names: Iterable[str]) -> set[str]:
        """These functions, and all that they use."""
        waiting, found = list(names), set()
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                for node in self._functions[name].node_def:
                    waiting += self._mentions(node)
        return found

    def _used_elsewhere(self, idle: set[str], own: set[str]) -> set[str]:
        """Functions that are used by something else than idle nodes."""
        names = set(self._graph.object_graph_def.concrete_functions)
        library = self._graph.graph_def.library
        names |= {name for one in library.gradient for name in (one.function_name, one.gradient_func)}
        names |= {one.gradient_func for one in library.registered_gradients}
        for name, node in self._nodes.items():
            if name not in idle:
                names |= self._mentions(node)
        for name, function in self._functions.items():
            if name not in own:
                for node in function.node_def:
                    names |= self._mentions(node)
            for value in function.attr.values():
                names.add(value.s.decode(errors="replace"))
        return names & self._functions.keys()


def _node(tensor: str) -> str:
    """The node that a tensor is of: of ``node:0``, of a function's ``node:output:0``, of ``^node``."""
    return tensor.removeprefix("^").partition(":")[0]


def source(tensor: str, nodes: Mapping[str, Any]) -> str:
    """The node or argument that a tensor comes from, through nodes that hand it on."""
    name = _node(tensor)
    for _ in range(len(nodes)):
        node = nodes.get(name)
        if node is None or node.op != "Identity" or not node.input:
            break
        name = _node(node.input[0])
    return name
