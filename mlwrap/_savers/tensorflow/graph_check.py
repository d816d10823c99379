"""Check what a SavedModel would do when loaded and called, from its graphs, before TensorFlow opens it.

``tf.saved_model.load`` runs functions of the file: those that create and initialize its resources and restore
its objects. For a SavedModel of TensorFlow 1 it runs the operations that restore its variables and initialize
it. So there are three rules, each with a list of allowed operations
(:mod:`mlwrap._savers.tensorflow.graph_operations`):

* Operations that run at loading create tables and variables, and read only the SavedModel's own files.
* Operations that can be called later only compute.
* Operations that nothing runs, which are the saver's part of the graph, may also read and write checkpoints.

The formats are those of ``tensorflow/core/protobuf/{meta_graph,saved_object_graph}.proto`` and
``tensorflow/core/framework/{graph,function,node_def}.proto``; the code that runs them is in
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
_RESOURCE = ("_create_resource", "_initialize", "_destroy_resource")  # functions that a resource runs itself
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_INITIALIZERS = ("__saved_model_init_op", "saved_model_main_op", "legacy_init_op", "table_initializer")
# Streams that PrintV2 may print to; any other text names a file.
_STREAMS = (b"", b"stderr", b"stdout", b"log(info)", b"log(warning)", b"log(error)")


def function_name(name: str) -> str:
    """Return a function's Python name from the name that TensorFlow gave to its graph."""
    match = _INFERENCE.fullmatch(name)
    return match[1] if match else name


def needs_trust(graph: Any, *, as_objects: bool) -> list[str]:
    """Return the operations of a graph that write, read, run code or connect, in words.

    The list is empty if the graph may be loaded without trust.

    Args:
        graph: A ``MetaGraphDef``.
        as_objects: Whether TensorFlow loads it as objects, or as a graph of TensorFlow 1.
    """
    return list(dict.fromkeys(_GraphCheck(graph).troubles(as_objects=as_objects)))


class _GraphCheck:
    """Checks one graph and its functions; remembers the functions that it has checked."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.graph_def.node}
        self._functions = {function.signature.name: function for function in graph.graph_def.library.function}
        self._loaded: set[tuple[str, tuple[bool, ...]]] = set()

    def troubles(self, *, as_objects: bool) -> Iterator[str]:
        """Yield a description of each operation that is not allowed where it is."""
        if len(self._nodes) < len(self._graph.graph_def.node):
            yield "two operations in its graph have one name"
        if len(self._functions) < len(self._graph.graph_def.library.function):
            yield "two functions have one name"
        idle = set(self._nodes)  # nodes that nothing runs: for objects TensorFlow loads only functions
        if as_objects:
            yield from self._of_objects()
        else:
            run_at_loading = self._behind([*self._initializers(), self._graph.saver_def.restore_op_name])
            idle -= run_at_loading | self._behind(self._outputs())
            yield from self._of_graph(run_at_loading)
            for name in self._nodes.keys() - run_at_loading:
                yield from self._called(self._nodes[name], "its graph", idle=name in idle)
        yield from self._of_functions(self._idle_functions(idle))
        for node in self._nodes.values():
            yield from bloated_constants(node, "its graph")

    # Operations that run at loading.

    def _of_objects(self) -> Iterator[str]:
        objects = self._graph.object_graph_def
        for name in self._run_by_objects():
            if (function := self._functions.get(name)) is None:
                continue
            bound_inputs = (
                objects.concrete_functions[name].bound_inputs if name in objects.concrete_functions else ()
            )
            unbound_count = len(function.signature.input_arg) - len(bound_inputs)
            own_path_flags = [False] * max(unbound_count, 0)
            for number in bound_inputs:
                own_path_flags.append(
                    number < len(objects.nodes) and objects.nodes[number].WhichOneof("kind") == "asset"
                )
            yield from self._function_at_loading(name, tuple(own_path_flags))

    def _run_by_objects(self) -> Iterator[str]:
        nodes = self._graph.object_graph_def.nodes
        for node in nodes:
            is_resource = node.WhichOneof("kind") == "resource" or bool(node.registered_name)
            node_ids = [
                child.node_id for child in node.children if is_resource or child.local_name in _RESOURCE
            ]
            node_ids += [saveable.restore_function for saveable in node.saveable_objects.values()]
            for number in node_ids:
                if number < len(nodes):
                    yield from nodes[number].function.concrete_functions
                    yield nodes[number].bare_concrete_function.concrete_function_name

    def _of_graph(self, names: Iterable[str]) -> Iterator[str]:
        asset_tensors = [asset.tensor_info.name for asset in assets(self._graph)]
        own_paths = {
            _node_name(name) for name in (*asset_tensors, self._graph.saver_def.filename_tensor_name)
        }

        def is_own_path(tensor: str) -> bool:
            return source(tensor, self._nodes) in own_paths

        for name in names:
            yield from self._at_loading(self._nodes[name], "its graph", is_own_path, self._nodes)

    def _function_at_loading(self, name: str, own_path_flags: tuple[bool, ...]) -> Iterator[str]:
        """Yield the operations that are not allowed in a function that runs at loading.

        Args:
            name: The function's name.
            own_path_flags: For each of its arguments, whether it is the path of a file of the SavedModel.
        """
        function = self._functions[name]
        if (name, own_path_flags) in self._loaded:
            return
        self._loaded.add((name, own_path_flags))
        arguments = dict(
            zip((arg.name for arg in function.signature.input_arg), own_path_flags, strict=False)
        )
        nodes = {node.name: node for node in function.node_def}

        def is_own_path(tensor: str) -> bool:
            name = source(tensor, nodes)
            return name not in nodes and bool(arguments.get(name, False))

        for node in function.node_def:
            yield from self._at_loading(node, function_name(name), is_own_path, nodes)

    def _at_loading(
        self, node: Any, where: str, is_own_path: Callable[[str], bool], nodes: Mapping[str, Any]
    ) -> Iterator[str]:
        inputs = [name for name in node.input if not name.startswith("^")]
        function = node.attr["f"].func.name if node.op in _CALLS else node.op
        if function in self._functions:
            yield from self._function_at_loading(function, tuple(map(is_own_path, inputs)))
        elif node.op in READING:
            position = READING[node.op]
            if position >= len(inputs) or not is_own_path(inputs[position]):
                yield f"{node.op} in {where} reads a file that is not the SavedModel's own when it is loaded"
        elif node.op not in LOADING:
            yield f"{node.op} in {where} {REASONS.get(node.op, 'runs')} when it is loaded"
        elif not is_bounded(node, [nodes.get(source(name, nodes)) for name in inputs]):
            yield f"{node.op} in {where} makes more than {MOST_VALUES:,} values when it is loaded"

    # Operations that can be called later.

    def _of_functions(self, idle: set[str]) -> Iterator[str]:
        """Yield the operations that are not allowed in functions that run only when the user calls them."""
        at_loading = {name for name, _ in self._loaded}
        # A function that may read an asset at loading would read any file that its caller names.
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

    # Dependencies between nodes and functions.

    def _initializers(self) -> list[str]:
        """Return the operations that ``load_v1_in_v2`` runs, or would run if the others were missing."""
        from tensorflow.core.framework.variable_pb2 import VariableDef  # noqa: PLC0415  # heavy

        graph = self._graph
        names = []
        for key in _INITIALIZERS:
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
        """Return the nodes that these outputs depend on, by data or by control."""
        pending, visited = [_node_name(name) for name in names if name], set()
        while pending:
            name = pending.pop()
            if name not in visited and name in self._nodes:
                visited.add(name)
                pending += map(_node_name, self._nodes[name].input)
        return visited

    def _mentions(self, node: Any) -> set[str]:
        """Return the functions that a node names: as its operation, as a function, or as text."""
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
        """Return the functions that only idle nodes use: those of the saver."""
        used_by_idle = self._reached({name for node in idle for name in self._mentions(self._nodes[node])})
        return used_by_idle - self._reached(self._used_elsewhere(idle, used_by_idle))

    def _reached(self, names: Iterable[str]) -> set[str]:
        """Return these functions and all functions that they use."""
        pending, visited = list(names), set()
        while pending:
            name = pending.pop()
            if name not in visited:
                visited.add(name)
                for node in self._functions[name].node_def:
                    pending += self._mentions(node)
        return visited

    def _used_elsewhere(self, idle: set[str], excluded: set[str]) -> set[str]:
        """Return the functions that anything other than idle nodes uses."""
        names = set(self._graph.object_graph_def.concrete_functions)
        library = self._graph.graph_def.library
        names |= {
            name for gradient in library.gradient for name in (gradient.function_name, gradient.gradient_func)
        }
        names |= {gradient.gradient_func for gradient in library.registered_gradients}
        for name, node in self._nodes.items():
            if name not in idle:
                names |= self._mentions(node)
        for name, function in self._functions.items():
            if name not in excluded:
                for node in function.node_def:
                    names |= self._mentions(node)
            for value in function.attr.values():
                names.add(value.s.decode(errors="replace"))
        return names & self._functions.keys()


def _node_name(tensor: str) -> str:
    """Return the name of a tensor's node: for ``node:0``, a function's ``node:output:0``, or ``^node``."""
    return tensor.removeprefix("^").partition(":")[0]


def source(tensor: str, nodes: Mapping[str, Any]) -> str:
    """Return the node or argument that a tensor comes from, passing over ``Identity`` nodes."""
    name = _node_name(tensor)
    for _ in range(len(nodes)):
        node = nodes.get(name)
        if node is None or node.op != "Identity" or not node.input:
            break
        name = _node_name(node.input[0])
    return name
