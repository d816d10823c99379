"""What a SavedModel on disk can do, read from its ``saved_model.pb`` without loading it.

The file says what was really written: which signatures there are, how the object itself can be called, and
what will keep it from working elsewhere. Formats:
``tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph,struct}.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mlwrap._journal.records import Signature, TensorSpec
from mlwrap._savers.signature import Unknown, attempt, dtype_name
from mlwrap._savers.tensorflow.checkpoint_files import missing_files, suffixes_in
from mlwrap._savers.tensorflow.graph_check import function_name, needs_trust
from mlwrap._savers.tensorflow.graph_parts import assets
from mlwrap.errors import LoadError, describe_error

_PREFERRED = ("serving_default", "predict", "serve")
_PLAIN = ("none_value", "float64_value", "int64_value", "string_value", "bool_value")
_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")  # call back into the process that traced them
_MAX_NAMED = 5  # of what needs trust, in one message


class Contents(NamedTuple):
    """What a SavedModel offers.

    Attributes:
        signatures: Names of its signatures, with inputs and outputs where these can be told.
        calls: Whether the object itself is callable with a single tensor.
        call: Inputs and outputs of that call, if one form of it covers all that were traced.
        gives_tensor: Whether that call gives a single tensor.
        functions: Names of the functions of the object itself that have a graph.
        untraced: Paths of the functions that have none (``encoder.predict``): calling one fails.
        python: Names of the graph functions that run Python code of the process that traced them.
        unsafe: What in it writes, reads, runs or connects, so that it loads only with ``trust=True``.
    """

    signatures: dict[str, Signature | None]
    calls: bool
    call: Signature | None
    gives_tensor: bool = False
    functions: tuple[str, ...] = ()
    untraced: tuple[str, ...] = ()
    python: tuple[str, ...] = ()
    unsafe: tuple[str, ...] = ()

    @property
    def default_signature(self) -> str | None:
        """The signature to serve: TensorFlow's default, ``predict``, ``serve``, or the only one there is."""
        for name in _PREFERRED:
            if name in self.signatures:
                return name
        return next(iter(self.signatures)) if len(self.signatures) == 1 else None


def read_saved_model(folder: Path) -> Contents:
    """Read ``folder``'s ``saved_model.pb``.

    Raises:
        ValueError: It is not there, or can't be read.
    """
    graphs = _meta_graphs(folder)
    graph = graphs[0]
    signatures = {
        name: attempt(_of_signature, definition)
        for name, definition in graph.signature_def.items()
        if not name.startswith("__")  # TensorFlow's own bookkeeping
    }
    functions = dict(_traced_functions(graph.object_graph_def))
    traced = [graph.object_graph_def.concrete_functions[name] for name in functions.get("__call__", ())]
    calls = [call for function in traced if (call := _single_tensor_call(function))]
    general = next((one for one in calls if all(_covers(one.tensor, other.tensor) for other in calls)), None)
    return Contents(
        signatures,
        calls=bool(calls),
        call=attempt(_of_call, general) if general else None,
        gives_tensor=all(call.result.WhichOneof("kind") == "tensor_spec_value" for call in calls),
        functions=tuple(name for name, forms in functions.items() if forms and "." not in name),
        untraced=tuple(name for name, forms in functions.items() if not forms),
        python=tuple(sorted(set(_with_python(graph.graph_def)))),
        unsafe=tuple(_needing_trust(graphs)),
    )


def check_saved_model(folder: Path, *, trust: bool) -> None:
    """Look at the SavedModel in ``folder`` before TensorFlow does.

    Args:
        folder: Where it is.
        trust: Whether its graphs may do more than compute.

    Raises:
        LoadError: A file is missing, an asset's name leads out of the folder, or, without ``trust``, it
            would write, read, run or connect when it is loaded or called: names operation and function.
    """
    try:
        graphs = _meta_graphs(folder)
        lost = _damage(folder, graphs[0])
        outside = sorted({name for graph in graphs for name in _outside(graph)})
        unsafe = [] if trust else _needing_trust(graphs)
    except Exception as error:  # anybody can have written the file
        raise _damaged(
            folder, str(error) if isinstance(error, ValueError) else describe_error(error)
        ) from error
    if outside:
        raise LoadError(
            f"The SavedModel {folder} is refused: its asset {outside[0]!r} lies outside of its folder. "
            "TensorFlow writes no such name: load only what a training wrote."
        )
    if (folder / "saved_model.cpb").exists() and not trust:
        raise LoadError(
            f"The SavedModel {folder} is refused: it has a saved_model.cpb beside its saved_model.pb, "
            "which mlwrap does not look at. Pass trust=True only if you trust where it comes from."
        )
    if lost:
        raise _damaged(folder, lost)
    if unsafe:
        more = f", and {len(unsafe) - _MAX_NAMED} more" if len(unsafe) > _MAX_NAMED else ""
        raise LoadError(
            f"The SavedModel {folder} was not loaded: {'; '.join(unsafe[:_MAX_NAMED])}{more}. Without "
            "trust a SavedModel may only compute, and read its own files. Pass trust=True only if you trust "
            "where it comes from."
        )


def _damaged(folder: Path, why: str) -> LoadError:
    return LoadError(f"The SavedModel {folder} can't be read: {why}. Download the whole model folder again.")


def _needing_trust(graphs: Any) -> list[str]:
    # As objects TensorFlow loads only what is alone in its file.
    alone = len(graphs) == 1 and graphs[0].HasField("object_graph_def")
    return list(dict.fromkeys(what for graph in graphs for what in needs_trust(graph, as_objects=alone)))


def _outside(graph: Any) -> Iterator[str]:
    for asset in assets(graph):
        path = PurePosixPath(asset.filename)
        if path.is_absolute() or ".." in path.parts or "\0" in asset.filename or not path.parts:
            yield asset.filename


def _damage(folder: Path, graph: Any) -> str | None:
    """What is missing of the SavedModel in ``folder``, in words; ``None`` where all of it is there."""
    here = suffixes_in(folder / "variables", "variables")
    holds = any(node.WhichOneof("kind") == "variable" for node in graph.object_graph_def.nodes)
    lost = [f"variables/{name}" for name in missing_files("variables", here)] if holds or here else []
    found = [f"assets/{asset.filename}" for asset in graph.asset_file_def]
    lost += [asset for asset in found if not (folder / asset).exists()]
    return f"{', '.join(sorted(set(lost)))} is missing" if lost else None


def _meta_graphs(folder: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415  # heavy, and needed only here

    try:
        graphs = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
    except OSError as error:
        raise ValueError(f"saved_model.pb is not there ({error.strerror})") from error
    except Exception as error:
        raise ValueError(f"saved_model.pb is damaged ({error})") from error
    if not graphs:
        raise ValueError("saved_model.pb is damaged (it holds no graph)")
    return graphs


def _traced_functions(objects: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Functions by their path from the object itself, with the names of their traced forms.

    Keras's own objects are passed over: what they hold of functions is Keras's business.
    """
    waiting, seen = [(0, "")] if objects.nodes else [], {0}
    while waiting:
        number, path = waiting.pop(0)
        for child in objects.nodes[number].children:
            node = objects.nodes[child.node_id]
            kind = node.WhichOneof("kind")
            if kind == "function":
                yield path + child.local_name, tuple(node.function.concrete_functions)
            elif kind == "bare_concrete_function":
                yield path + child.local_name, (node.bare_concrete_function.concrete_function_name,)
            elif kind == "user_object" and child.node_id not in seen and child.local_name != "signatures":
                seen.add(child.node_id)
                if not node.user_object.identifier.startswith("_tf_keras"):
                    waiting.append((child.node_id, f"{path}{child.local_name}."))


def _with_python(graph: Any) -> Iterator[str]:
    for function in graph.library.function:
        if any(node.op in _PYTHON for node in function.node_def):
            yield function_name(str(function.signature.name))
    if any(node.op in _PYTHON for node in graph.node):  # of a graph of TensorFlow 1, or of an Estimator
        yield "its graph"


class _Call(NamedTuple):
    tensor: Any
    result: Any


def _single_tensor_call(function: Any) -> _Call | None:
    args, kwargs = function.canonicalized_input_signature.tuple_value.values
    tensors = [arg for arg in args.tuple_value.values if _has_tensors(arg)]
    first = args.tuple_value.values[:1]
    if len(tensors) != 1 or tensors != list(first) or tensors[0].WhichOneof("kind") != "tensor_spec_value":
        return None
    if any(_has_tensors(value) for value in kwargs.dict_value.fields.values()):
        return None
    return _Call(tensors[0].tensor_spec_value, function.output_signature)


def _has_tensors(value: Any) -> bool:
    return value.WhichOneof("kind") not in _PLAIN


def _covers(one: Any, other: Any) -> bool:
    """Tell whether what was traced for ``one`` takes all that ``other`` was traced for."""
    if one.dtype != other.dtype or other.shape.unknown_rank or one.shape.unknown_rank:
        return bool(one.dtype == other.dtype and one.shape.unknown_rank)
    sizes, others = ([dim.size for dim in tensor.shape.dim] for tensor in (one, other))
    return len(sizes) == len(others) and all(a in {-1, b} for a, b in zip(sizes, others, strict=True))


def _of_call(call: _Call) -> Signature:
    return Signature(
        inputs=(_traced_spec(None, call.tensor, call.tensor.shape),), outputs=_returned_specs(call.result)
    )


def _returned_specs(result: Any) -> tuple[TensorSpec, ...]:
    kind = result.WhichOneof("kind")
    if kind == "tensor_spec_value":
        tensor = result.tensor_spec_value
        return (_traced_spec(None, tensor, tensor.shape),)
    if kind == "dict_value":
        fields = {name: item.tensor_spec_value for name, item in result.dict_value.fields.items()}
        return tuple(_traced_spec(name, fields[name], fields[name].shape) for name in sorted(fields))
    return ()


def _of_signature(definition: Any) -> Signature:
    return Signature(inputs=_tensor_specs(definition.inputs), outputs=_tensor_specs(definition.outputs))


def _tensor_specs(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(_traced_spec(name, tensors[name], tensors[name].tensor_shape) for name in sorted(tensors))


def _traced_spec(name: str | None, tensor: Any, shape: Any) -> TensorSpec:
    """A spec with the sizes that the graph was traced for: what has another one it does not take."""
    from tensorflow import dtypes  # noqa: PLC0415  # as above

    if shape.unknown_rank:
        raise Unknown(name)
    dtype = dtype_name(dtypes.as_dtype(tensor.dtype).name)
    return TensorSpec(name=name, dtype=dtype, shape=tuple(dim.size for dim in shape.dim))
