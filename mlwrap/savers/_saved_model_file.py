"""What a SavedModel on disk can do, read from its ``saved_model.pb`` without loading it.

The file says what was really written: which signatures there are, and how the object itself can be
called. Formats: ``tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph,struct}.proto``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mlwrap._journal import Signature, TensorSpec
from mlwrap.savers._signature import Unknown, attempt, make_spec

_PREFERRED = ("serving_default", "predict")
_PLAIN = ("none_value", "float64_value", "int64_value", "string_value", "bool_value")


class Contents(NamedTuple):
    """What a SavedModel offers.

    Attributes:
        signatures: Names of its signatures, with inputs and outputs where these can be told.
        calls: Whether the object itself is callable with a single tensor.
        call: Inputs and outputs of that call, if it was traced for batches of any size.
    """

    signatures: dict[str, Signature | None]
    calls: bool
    call: Signature | None

    @property
    def default_signature(self) -> str | None:
        """The signature to serve: TensorFlow's default one, ``predict``, or the only one there is."""
        for name in _PREFERRED:
            if name in self.signatures:
                return name
        return next(iter(self.signatures)) if len(self.signatures) == 1 else None


def read(folder: Path) -> Contents:
    """Read ``folder``'s ``saved_model.pb``."""
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415  # it wrote the file: it is imported

    graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]
    signatures = {
        name: attempt(_of_signature, definition)
        for name, definition in graph.signature_def.items()
        if not name.startswith("__")  # TensorFlow's own bookkeeping
    }
    functions = _call_functions(graph.object_graph_def)
    calls = [call for function in functions if (call := _single_tensor_call(function))]
    # One call traced with several values of `training` has one form; two real forms have no one signature.
    forms = {call.args: attempt(_of_call, call) for call in calls}
    return Contents(signatures, bool(calls), next(iter(forms.values())) if len(forms) == 1 else None)


class _Call(NamedTuple):
    args: str
    tensor: Any
    result: Any


def _call_functions(objects: Any) -> list[Any]:
    """The traced forms of the root object's ``__call__``."""
    if not objects.nodes:
        return []
    for child in objects.nodes[0].children:
        if child.local_name == "__call__":
            names = objects.nodes[child.node_id].function.concrete_functions
            return [objects.concrete_functions[name] for name in names]
    return []


def _single_tensor_call(function: Any) -> _Call | None:
    args, kwargs = function.canonicalized_input_signature.tuple_value.values
    tensors = [arg for arg in args.tuple_value.values if _has_tensors(arg)]
    first = args.tuple_value.values[:1]
    if len(tensors) != 1 or tensors != list(first) or tensors[0].WhichOneof("kind") != "tensor_spec_value":
        return None
    if any(_has_tensors(value) for value in kwargs.dict_value.fields.values()):
        return None
    tensor = tensors[0].tensor_spec_value
    form = f"{tensor.dtype} {tensor.shape}"
    return _Call(form, tensor, function.output_signature)


def _has_tensors(value: Any) -> bool:
    return value.WhichOneof("kind") not in _PLAIN


def _of_call(call: _Call) -> Signature | None:
    if call.tensor.shape.dim[0].size != -1:
        return None  # traced for one size of batch: MLflow's -1 would promise what it can't keep
    return Signature(inputs=(_spec(None, call.tensor, call.tensor.shape),), outputs=_outputs(call.result))


def _outputs(result: Any) -> tuple[TensorSpec, ...]:
    kind = result.WhichOneof("kind")
    if kind == "tensor_spec_value":
        tensor = result.tensor_spec_value
        return (_spec(None, tensor, tensor.shape),)
    if kind == "dict_value":
        fields = {name: item.tensor_spec_value for name, item in result.dict_value.fields.items()}
        return tuple(_spec(name, fields[name], fields[name].shape) for name in sorted(fields))
    return ()


def _of_signature(definition: Any) -> Signature:
    return Signature(inputs=_named(definition.inputs), outputs=_named(definition.outputs))


def _named(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(_spec(name, tensors[name], tensors[name].tensor_shape) for name in sorted(tensors))


def _spec(name: str | None, tensor: Any, shape: Any) -> TensorSpec:
    from tensorflow import dtypes  # noqa: PLC0415  # as above

    if shape.unknown_rank:
        raise Unknown(name)
    return make_spec(name, dtypes.as_dtype(tensor.dtype).name, [dim.size for dim in shape.dim])
