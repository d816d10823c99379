"""Hostile SavedModels: a good one, whose file is changed; and two that TensorFlow itself wrote."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

tf1 = tf.compat.v1

# Operations that write, read, run or connect, one of each kind; and one that TensorFlow does not have.
_HARMFUL = """
Abort CreateSummaryFileWriter DataServiceDatasetV4 DatasetFromGraph DebugIdentity DecodeProtoV2
EagerPyFunc FixedUnigramCandidateSampler GenerateVocabRemapping ImmutableConst LMDBDataset
LoadAndRemapMatrix MatchingFiles MergeV2Checkpoints MyOwnOperation PrintV2 PyFunc PyFuncStateless
ReadFile RemoteCall RestoreV2 RpcClient SaveDatasetV2 SaveV2 SqlDataset TFRecordDataset TextLineDataset
WholeFileReaderV2 WriteFile XlaCallModule _Send
"""
HARMFUL = _HARMFUL.split()


class Words(tf.Module):
    """A table that is read from a file, and a variable."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        read = tf.lookup.TextFileInitializer(
            str(file),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(read, -1)
        self.mutable = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
        self.scale = tf.Variable([2.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def __call__(self, word):
        """Where the words are in the file."""
        return tf.cast(self.table.lookup(word) + self.mutable.lookup(word), tf.float32) * self.scale


def save_words(folder: Path) -> Path:
    """A SavedModel of TensorFlow 2 with a table, an asset and a variable."""
    words = folder / "words.txt"
    words.write_text("a\nb\n")
    tf.saved_model.save(Words(words), str(folder / "words"))
    return folder / "words"


def save_words_of_tf1(folder: Path) -> Path:
    """A SavedModel of TensorFlow 1 with a table, an asset, a variable, and an operation that runs first."""
    words = folder / "words.txt"
    words.write_text("a\nb\n")
    with tf.Graph().as_default(), tf1.Session() as session:
        path = tf.constant(str(words))
        tf1.add_to_collection(tf1.GraphKeys.ASSET_FILEPATHS, path)
        read = tf.lookup.TextFileInitializer(
            path, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        word = tf1.placeholder(tf.string, [None], name="word")
        scale = tf1.get_variable("scale", initializer=[2.0], use_resource=True)
        found = tf.cast(tf.lookup.StaticHashTable(read, -1).lookup(word), tf.float32) * scale
        session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
        builder = tf1.saved_model.Builder(str(folder / "words1"))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": tf1.saved_model.predict_signature_def({"word": word}, {"found": found})},
            assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
            main_op=tf.group(tf1.tables_initializer()),
        )
        builder.save()
    return folder / "words1"


def save_writing(folder: Path, canary: Path) -> Path:
    """A SavedModel whose initializer writes a file: that of a resource, as TensorFlow saves any."""
    from tensorflow.python.trackable.resource import TrackableResource  # noqa: PLC0415  # there is no public one

    class Writes(TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="x")

        def _initialize(self):
            tf.io.write_file(str(canary), "written")

    class Holds(tf.Module):
        def __init__(self):
            super().__init__()
            self.resource = Writes()

        @tf.function(input_signature=[tf.TensorSpec([None])])
        def __call__(self, x):
            _ = self.resource.resource_handle
            return x + 0.0

    model = Holds()
    tf.saved_model.save(model, str(folder / "writing"))
    return folder / "writing"


def save_writing_of_tf1(folder: Path, canary: Path) -> Path:
    """A SavedModel of TensorFlow 1 whose ``main_op`` writes a file."""
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None], name="x")
        y = x + 0.0
        builder = tf1.saved_model.Builder(str(folder / "writing1"))
        signature = tf1.saved_model.predict_signature_def({"x": x}, {"y": y})
        main = tf.group(tf.io.write_file(str(canary), "written"))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=main)
        builder.save()
    return folder / "writing1"


def changed(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a SavedModel whose ``saved_model.pb`` was changed."""
    shutil.copytree(source, target)
    file = target / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())
    return target


def function(model: Any, part: str) -> Any:
    """The function of a graph whose name has a part in it."""
    return next(f for f in model.meta_graphs[0].graph_def.library.function if part in f.signature.name)


def in_function(part: str, operation: str) -> Callable[[Any], None]:
    """Add an operation to a function."""
    return lambda model: add(function(model, part).node_def, "harm", operation)


def add(nodes: Any, name: str, operation: str, *inputs: str) -> Any:
    """Add a node; ``PrintV2`` into a file."""
    node = nodes.add(name=name, op=operation, input=inputs)
    if operation == "PrintV2":
        node.attr["output_stream"].s = b"file:///tmp/x"
    return node


def _reads_words(model: Any) -> tuple[Any, Any]:
    """The function that reads the table's file, and its node that does."""
    return next(
        (f, node)
        for f in model.meta_graphs[0].graph_def.library.function
        for node in f.node_def
        if node.op == "InitializeTableFromTextFileV2"
    )


def _nested(model: Any) -> None:
    library = model.meta_graphs[0].graph_def.library
    inner = library.function.add()
    inner.signature.name = "inner"
    add(inner.node_def, "harm", "WriteFile")
    call = add(function(model, "__inference__initializer").node_def, "call", "StatefulPartitionedCall")
    call.attr["f"].func.name = "inner"


def _named_like_an_operation(model: Any) -> None:
    inner = model.meta_graphs[0].graph_def.library.function.add()
    inner.signature.name = "Identity"
    add(inner.node_def, "harm", "WriteFile")


def _branch(model: Any) -> None:
    inner = model.meta_graphs[0].graph_def.library.function.add()
    inner.signature.name = "branch"
    add(inner.node_def, "harm", "ReadFile")
    add(function(model, "__inference___call__").node_def, "if", "If").attr["then_branch"].func.name = "branch"


def _gradient(model: Any) -> None:
    library = model.meta_graphs[0].graph_def.library
    inner = library.function.add()
    inner.signature.name = "gradient"
    add(inner.node_def, "harm", "PyFunc")
    library.registered_gradients.add(gradient_func="gradient", registered_op_type="CustomGradient-1")


def _other_file(model: Any) -> None:
    body, node = _reads_words(model)
    path = body.node_def.add(name="path", op="Const")
    path.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/passwd"))
    node.input[1] = "path:output:0"


def _initializer_is_called(model: Any) -> None:
    call = add(
        function(model, "__inference___call__").node_def, "call", "StatefulPartitionedCall", "word", "word"
    )
    call.attr["f"].func.name = _reads_words(model)[0].signature.name


def _saver_is_called(model: Any) -> None:
    call = add(function(model, "__inference___call__").node_def, "call", "StatefulPartitionedCall", "word")
    call.attr["f"].func.name = function(model, "traced_save").signature.name


def _restored(model: Any) -> None:
    add(function(model, "restore_fn").node_def, "harm", "WriteFile")


def _twice(model: Any) -> None:
    model.meta_graphs.add().CopyFrom(model.meta_graphs[0])
    add(model.meta_graphs[1].graph_def.node, "harm", "WriteFile")


def _asset(name: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.meta_graphs[0].asset_file_def[0].filename = name

    return change


def _constant(model: Any) -> None:
    node = model.meta_graphs[0].graph_def.node.add(name="large", op="Const")
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.float32(1), shape=[1 << 20, 1 << 12]))


def _sized(operation: str, size: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        nodes = function(model, "__inference__initializer").node_def
        nodes.add(name="size", op="Const").attr["value"].tensor.CopyFrom(tf.make_tensor_proto(size))
        add(nodes, "large", operation, "size:output:0", "size:output:0", "size:output:0")

    return change


def _buckets(model: Any) -> None:
    nodes = function(model, "__inference__creator").node_def
    add(nodes, "large", "MutableDenseHashTableV2").attr["initial_num_buckets"].i = 1 << 40


def _endless_calls(model: Any) -> None:
    body = function(model, "__inference__initializer")
    library = model.meta_graphs[0].graph_def.library
    for number in range(3000):
        inner = library.function.add()
        inner.signature.name = f"f{number}"
        call = add(inner.node_def, "call", "PartitionedCall")
        call.attr["f"].func.name = f"f{number + 1}"
    add(body.node_def, "call", "PartitionedCall").attr["f"].func.name = "f0"


def _named_like_an_argument(model: Any) -> None:
    body, node = _reads_words(model)
    path = body.node_def.add(name=node.input[1], op="Const")
    path.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/etc/passwd"))


def _two_of_one_name(model: Any) -> None:
    library = model.meta_graphs[0].graph_def.library
    library.function.add().CopyFrom(library.function[0])
    add(library.function[0].node_def, "harm", "WriteFile")


HARM_IN_TF2: dict[str, Callable[[Any], None]] = {
    **{f"initializer runs {op}": in_function("__inference__initializer", op) for op in HARMFUL},
    **{f"call runs {op}": in_function("__inference___call__", op) for op in HARMFUL},
    "creator writes": in_function("__inference__creator", "WriteFile"),
    "destroyer writes": in_function("__inference__destroyer", "WriteFile"),
    "a loop at loading": in_function("__inference__initializer", "While"),
    "restoring writes": _restored,
    "nested calls": _nested,
    "a function named like an operation": _named_like_an_operation,
    "a branch": _branch,
    "a gradient": _gradient,
    "a table of another file": _other_file,
    "a file named like an argument": _named_like_an_argument,
    "two functions of one name": _two_of_one_name,
    "an initializer that is called": _initializer_is_called,
    "a saver that is called": _saver_is_called,
    "a second graph": _twice,
    "an asset outside": _asset("../../SECRET.txt"),
    "an absolute asset": _asset("/etc/passwd"),
    "an asset without a name": _asset(""),
    "a large constant": _constant,
    "a large value": _sized("Fill", [1 << 20, 1 << 20]),
    "a long range": _sized("Range", 1 << 40),
    "a large table": _buckets,
    "endless calls": _endless_calls,
    "no graph": lambda model: model.ClearField("meta_graphs"),
}


def _asset_of_tf1(model: Any) -> None:
    asset = meta_graph_pb2.AssetFileDef(filename="../../SECRET.txt")
    packed = model.meta_graphs[0].collection_def["saved_model_assets"].any_list.value
    del packed[:]
    packed.add().Pack(asset)


def _first(key: str) -> Callable[[Any], None]:
    """Let an operation that writes run first, as TensorFlow 1 named it over the years."""

    def change(model: Any) -> None:
        graph = model.meta_graphs[0]
        add(graph.graph_def.node, "harm", "WriteFile")
        for known in ("saved_model_main_op", "legacy_init_op"):
            graph.collection_def.pop(known, None)
        if key.startswith("__"):
            graph.signature_def[key].outputs[key].name = "harm"
        else:
            graph.collection_def[key].node_list.value.append("harm")

    return change


def _restoring_of_tf1(model: Any) -> None:
    add(model.meta_graphs[0].graph_def.node, "harm", "WriteFile")
    model.meta_graphs[0].saver_def.restore_op_name = "harm"


def _variables_of_another(model: Any) -> None:
    nodes = model.meta_graphs[0].graph_def.node
    path = nodes.add(name="path", op="Const")
    path.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/home/you/other"))
    next(node for node in nodes if node.op == "RestoreV2").input[0] = "path"


def _saving_when_called(model: Any) -> None:
    graph = model.meta_graphs[0]
    save = next(node.name for node in graph.graph_def.node if node.op == "SaveV2")
    name = graph.signature_def["serving_default"].outputs["found"].name.partition(":")[0]
    next(node for node in graph.graph_def.node if node.name == name).input.append(f"^{save}")


def _serving_of_tf1(operation: str) -> Callable[[Any], None]:
    return lambda model: add(model.meta_graphs[0].graph_def.node, "harm", operation)


HARM_IN_TF1: dict[str, Callable[[Any], None]] = {
    **{
        f"first runs {key}": _first(key)
        for key in ("saved_model_main_op", "legacy_init_op", "table_initializer", "__saved_model_init_op")
    },
    "restoring writes": _restoring_of_tf1,
    "variables of another": _variables_of_another,
    "a call that saves": _saving_when_called,
    **{
        f"graph runs {op}": _serving_of_tf1(op)
        for op in ("PyFunc", "ReadFile", "WriteFile", "MyOwnOperation")
    },
    "an asset outside": _asset_of_tf1,
}
