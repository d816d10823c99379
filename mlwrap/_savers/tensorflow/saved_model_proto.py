"""Read what a SavedModel on disk can do from its ``saved_model.pb``, without loading it.

The file describes what was really written: the signatures, how the object itself can be called, and what
will prevent it from working elsewhere. Formats:
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
_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")  # call Python code of the process that traced them
_MAX_NAMED = 5  # operations that need trust, in one message


class Contents(NamedTuple):
    """The contents of a SavedModel.

    Attributes:
        signatures: Names of its signatures, with inputs and outputs if these are known.
        calls: Whether the object itself can be called with a single tensor.
        call: Inputs and outputs of that call, if one traced form covers all others.
        gives_tensor: Whether that call returns a single tensor.
        functions: Names of the object's own functions that have a graph.
        untraced: Paths of the functions that have none (``encoder.predict``): calling one fails.
        python: Names of the graph functions that run Python code of the process that traced them.
        unsafe: Operations that write, read, run code or connect, so that it loads only with ``trust=True``.
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
        """The signature to serve: TensorFlow's default, ``predict``, ``serve``, or the only one."""
        for name in _PREFERRED:
            if name in self.signatures:
                return name
        return next(iter(self.signatures)) if len(self.signatures) == 1 else None


def read_saved_model(folder: Path) -> Contents:
    """Read ``folder``'s ``saved_model.pb``.

    Raises:
        ValueError: The file is missing or can't be read.
    """
    graphs = _meta_graphs(folder)
    graph = graphs[0]
    signatures = {
        name: attempt(_read_signature, definition)
        for name, definition in graph.signature_def.items()
        if not name.startswith("__")  # TensorFlow's own bookkeeping
    }
    functions = dict(_traced_functions(graph.object_graph_def))
    traced = [graph.object_graph_def.concrete_functions[name] for name in functions.get("__call__", ())]
    calls = [call for function in traced if (call := _single_tensor_call(function))]
    general = next(
        (call for call in calls if all(_covers_spec(call.tensor, other_call.tensor) for other_call in calls)),
        None,
    )
    return Contents(
        signatures,
        calls=bool(calls),
        call=attempt(_signature_of_call, general) if general else None,
        gives_tensor=all(call.result.WhichOneof("kind") == "tensor_spec_value" for call in calls),
        functions=tuple(name for name, forms in functions.items() if forms and "." not in name),
        untraced=tuple(name for name, forms in functions.items() if not forms),
        python=tuple(sorted(set(_with_python(graph.graph_def)))),
        unsafe=tuple(_needing_trust(graphs)),
    )


def check_saved_model(folder: Path, *, trust: bool) -> None:
    """Check the SavedModel in ``folder`` before TensorFlow opens it.

    Args:
        folder: The folder of the SavedModel.
        trust: Whether its graphs may do more than compute.

    Raises:
        LoadError: A file is missing, or an asset's name leads out of the folder; or, without ``trust``, it
            would write, read, run code or connect when loaded or called: names operation and function.
    """
    try:
        graphs = _meta_graphs(folder)
        damage = _missing_files(folder, graphs[0])
        outside = sorted({name for graph in graphs for name in _outside_assets(graph)})
        unsafe = [] if trust else _needing_trust(graphs)
    except Exception as error:  # any program may have written the file
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
    if damage:
        raise _damaged(folder, damage)
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
    # TensorFlow loads a graph as objects only if it is the only one in its file.
    is_single = len(graphs) == 1 and graphs[0].HasField("object_graph_def")
    return list(
        dict.fromkeys(operation for graph in graphs for operation in needs_trust(graph, as_objects=is_single))
    )


def _outside_assets(graph: Any) -> Iterator[str]:
    for asset in assets(graph):
        path = PurePosixPath(asset.filename)
        if path.is_absolute() or ".." in path.parts or "\0" in asset.filename or not path.parts:
            yield asset.filename


def _missing_files(folder: Path, graph: Any) -> str | None:
    """Return which files are missing from the SavedModel in ``folder``; ``None`` if none are."""
    suffixes = suffixes_in(folder / "variables", "variables")
    has_variables = any(node.WhichOneof("kind") == "variable" for node in graph.object_graph_def.nodes)
    missing = (
        [f"variables/{name}" for name in missing_files("variables", suffixes)]
        if has_variables or suffixes
        else []
    )
    asset_paths = [f"assets/{asset.filename}" for asset in graph.asset_file_def]
    missing += [asset for asset in asset_paths if not (folder / asset).exists()]
    return f"{', '.join(sorted(set(missing)))} is missing" if missing else None


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
    """Yield functions by their path from the object itself, with the names of their traced forms.

    Keras's own objects are skipped, because their functions belong to Keras.
    """
    pending, seen = [(0, "")] if objects.nodes else [], {0}
    while pending:
        number, path = pending.pop(0)
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
                    pending.append((child.node_id, f"{path}{child.local_name}."))


def _with_python(graph: Any) -> Iterator[str]:
    for function in graph.library.function:
        if any(node.op in _PYTHON for node in function.node_def):
            yield function_name(str(function.signature.name))
    if any(node.op in _PYTHON for node in graph.node):  # the graph of TensorFlow 1 or of an Estimator
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


def _covers_spec(spec: Any, other_spec: Any) -> bool:
    """Return whether a graph that was traced for ``one`` accepts every tensor that ``other`` describes."""
    if spec.dtype != other_spec.dtype or other_spec.shape.unknown_rank or spec.shape.unknown_rank:
        return bool(spec.dtype == other_spec.dtype and spec.shape.unknown_rank)
    sizes, other_sizes = ([dim.size for dim in tensor.shape.dim] for tensor in (spec, other_spec))
    return len(sizes) == len(other_sizes) and all(
        a in {-1, b} for a, b in zip(sizes, other_sizes, strict=True)
    )


def _signature_of_call(call: _Call) -> Signature:
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


def _read_signature(definition: Any) -> Signature:
    return Signature(inputs=_tensor_specs(definition.inputs), outputs=_tensor_specs(definition.outputs))


def _tensor_specs(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(_traced_spec(name, tensors[name], tensors[name].tensor_shape) for name in sorted(tensors))


def _traced_spec(name: str | None, tensor: Any, shape: Any) -> TensorSpec:
    """Return a spec with the sizes that the graph was traced for; it accepts no others."""
    from tensorflow import dtypes  # noqa: PLC0415  # as above

    if shape.unknown_rank:
        raise Unknown(name)
    dtype = dtype_name(dtypes.as_dtype(tensor.dtype).name)
    return TensorSpec(name=name, dtype=dtype, shape=tuple(dim.size for dim in shape.dim))
