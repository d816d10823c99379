"""Write the serving form of a Keras model: a SavedModel that predicts without the training's code.

A ``.keras`` file names the classes and functions of the model, and a process without them can't open it.
A SavedModel contains the graph of what they compute instead. It is written only if it is needed::

    serving/model/           the SavedModel
    serving/MLmodel          Keras 3: what MLflow's loader reads beside it; the model's own MLmodel, one
                             folder up, describes the .keras file
    serving/keras_module.txt, save_format.txt
                             Keras 2 and tf_keras: the same, for ``mlflow.tensorflow``

MLflow has two loaders that return what a model with one output returns:

* one input: ``tf2-module`` calls the object with a tensor;
* several inputs, one output: ``mlflow.keras`` calls ``serve`` with a dictionary;
* one input that is a frame: ``mlflow.keras`` again, with the frame's values; it returns a frame.

MLflow has none for several outputs, nor for several inputs without Keras 3. In these cases mlwrap copies
its own loader into the model (:mod:`mlwrap._shipped.loader`).

Sources: ``mlflow/tensorflow/__init__.py`` and ``mlflow/keras/load.py`` of MLflow 3.
"""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from mlwrap._journal.records import Signature, TensorSpec
from mlwrap._savers.history.fit_inputs import fed_by
from mlwrap._savers.history.fits import fed_to
from mlwrap._savers.identify import has_class, imported
from mlwrap._savers.keras_checks.packages import is_keras_3
from mlwrap._savers.keras_serving.inputs import is_layer, layers_of, serving_inputs
from mlwrap._savers.signature import as_fed, columns_of, of_keras, specs
from mlwrap._savers.tensorflow.functions import serving
from mlwrap._savers.tensorflow.saved_model_proto import Contents, read_saved_model
from mlwrap._shipped.loader import ship_loader
from mlwrap.errors import SaveError, describe_error

FOLDER = "serving"
_MODEL = "model"  # MLflow's own name for the model in a data folder
_TEXT = "str"
_SIGNATURE = "serving_default"  # TensorFlow's own name for it


class ServingForm(NamedTuple):
    """The description of a serving form for stock loaders.

    Attributes:
        pyfunc: Configuration of MLflow's generic flavor.
        flavors: Flavors for a model that has no other form.
        signature: Inputs and outputs.
        unsafe: What the form does beyond computing; ``load_model`` refuses that without trust.
    """

    pyfunc: dict[str, Any]
    flavors: dict[str, dict[str, Any]]
    signature: Signature | None
    unsafe: tuple[str, ...]


def write_serving(model: Any, folder: Path, package: str, example: Any = None) -> ServingForm:
    """Write the serving form of a model.

    Args:
        model: A Keras model or layer on TensorFlow.
        folder: The folder of the logged model.
        package: The Keras package of the model.
        example: An input example, which gives the input types of a subclassed model.

    Raises:
        SaveError: It can't be written: says why.
    """
    target = folder / FOLDER / _MODEL
    try:
        if imported(package).__version__.startswith("2.") and not is_layer(model):
            form = _write_keras_2(model, target, package, example)
        else:
            form = _write_graph(model, target, example, package)
    except Exception as error:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        if isinstance(error, OSError | MemoryError | SaveError):
            raise
        raise SaveError(f"TensorFlow can't export it: {describe_error(error)}", model) from error
    return form


def has_serving_form(folder: Path) -> bool:
    """Return whether the logged model in ``folder`` has a serving form."""
    return (folder / FOLDER).is_dir()


def _exported_contents(target: Path, model: Any) -> Contents:
    contents = read_saved_model(target)
    if contents.python:
        raise SaveError(
            f"{', '.join(contents.python)} runs Python code (tf.py_function or tf.numpy_function), which no "
            "other process has",
            model,
        )
    return contents


# ── Keras 2 and tf_keras ────────────────────────────────────────────────────────────────────────


def _write_keras_2(model: Any, target: Path, package: str, example: Any) -> ServingForm:
    """Write a SavedModel that Keras rebuilds without the model's classes, as ``mlflow.tensorflow`` does."""
    if not model.built:
        raise SaveError("it was never called on data", model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the old format and uncompiled metrics
        # Without the optimizer: MLflow compiles what it loads, and lacks the script's own losses.
        model.save(str(target), save_format="tf", include_optimizer=False)
    contents = _exported_contents(target, model)
    (target.parent / "keras_module.txt").write_text(package)
    (target.parent / "save_format.txt").write_text("tf")
    signature = of_keras(model)
    if signature is not None:
        inputs = as_fed(model, signature.inputs, example)
        columns = columns_of(fed_by(example), inputs) if example is not None else signature.columns
        signature = replace(signature, inputs=inputs, columns=columns)
    signature = signature or contents.signatures.get(str(contents.default_signature))
    config = {"model_type": "keras", "keras_module": package, "data": FOLDER, "save_format": "tf"}
    return ServingForm(
        {"loader_module": "mlflow.tensorflow", "data": FOLDER},
        {"tensorflow": config},
        signature,
        contents.unsafe,
    )


# ── Keras 3, and layers of every Keras ──────────────────────────────────────────────────────────


def _write_graph(model: Any, target: Path, example: Any, package: str) -> ServingForm:
    tf: Any = imported("tensorflow")
    structure = serving_inputs(model, example)
    inputs = as_fed(model, specs(structure, getattr(model, "input_names", None)), example)
    module, function = tf.Module(), _serving_function(model, structure, inputs, tf)
    several_out = len(function.get_concrete_function().outputs) > 1
    is_new = is_keras_3(package, str(imported(package).__version__))  # mlflow.keras imports Keras 3
    columns = columns_of(fed_by(example) or fed_to(model), inputs) if is_new and not several_out else ()
    by_serve = len(inputs) > 1 or bool(columns)
    setattr(module, "serve" if by_serve else "__call__", function)
    # The graph's variables must be attributes of the saved object. The model would add its optimizer.
    module.variables_ = list(function.get_concrete_function().graph.variables)
    module.layers_ = layers_of(model)
    module.resources_ = [part for part in vars(model).values() if _is_resource(part)]
    signature_function = serving(module, tf)
    tf.saved_model.save(
        module,
        str(target),
        signatures={_SIGNATURE: signature_function} if signature_function is not None else None,
    )
    contents = _exported_contents(target, model)
    signature = Signature(inputs=inputs, outputs=_output_specs(model, contents), columns=columns)
    if signature_function is not None and (several_out or (by_serve and not is_new)):
        pyfunc = ship_loader(target.parents[1], f"{FOLDER}/{_MODEL}", _SIGNATURE)
        _, flavors = _stock_loader(by_serve=False, saved_model=f"{FOLDER}/{_MODEL}", data=FOLDER)
        if len(inputs) > 1:  # the input names are those that TensorFlow could make of them
            signature = contents.signatures.get(_SIGNATURE) or signature
        return ServingForm(pyfunc, flavors, signature, contents.unsafe)
    pyfunc, flavors = _stock_loader(by_serve=by_serve, saved_model=f"{FOLDER}/{_MODEL}", data=FOLDER)
    _, serving_flavors = _stock_loader(by_serve=by_serve, saved_model=_MODEL, data=".")
    # This file is YAML, which includes JSON; so no YAML parser needs to be imported.
    (target.parent / "MLmodel").write_text(json.dumps({"flavors": serving_flavors, "artifact_path": FOLDER}))
    return ServingForm(pyfunc, flavors, signature, contents.unsafe)


def _stock_loader(
    *, by_serve: bool, saved_model: str, data: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return MLflow's loader for a model, and the flavor that it reads."""
    if by_serve:
        exported = {"data": data, "save_exported_model": True}
        return {"loader_module": "mlflow.keras", "data": FOLDER}, {"keras": exported}
    config = {"model_type": "tf2-module", "saved_model_dir": saved_model}
    return {"loader_module": "mlflow.tensorflow", "data": FOLDER}, {"tensorflow": config}


def _serving_function(model: Any, structure: Any, inputs: tuple[TensorSpec, ...], tf: Any) -> Any:
    """Return the model as a function of one tensor, or of a dictionary of tensors by name."""
    tensor_specs = [_tensor_spec(spec, tf) for spec in inputs]

    def call(tensors: list[Any]) -> Any:
        shaped = (_restore_shape(tensor, spec, tf) for tensor, spec in zip(tensors, inputs, strict=True))
        structured = _pack(structure, shaped)
        if is_layer(model) and not _takes_training(model):
            return _flat_outputs(model(structured), model)
        return _flat_outputs(model(structured, training=False), model)

    def one(x: Any) -> Any:
        return call([x])

    def several(x: Mapping[str, Any]) -> Any:
        return call([x[str(spec.name)] for spec in inputs])

    if len(inputs) == 1:
        return tf.function(one, input_signature=tensor_specs, autograph=False)
    specs_by_name = {
        str(spec.name): tensor_spec for spec, tensor_spec in zip(inputs, tensor_specs, strict=True)
    }
    return tf.function(several, input_signature=[specs_by_name], autograph=False)


def _tensor_spec(spec: TensorSpec, tf: Any) -> Any:
    if spec.dtype == _TEXT:
        return tf.TensorSpec(None, tf.string)  # takes (n,) and (n, 1): MLflow passes text without its axes
    return tf.TensorSpec([None if size < 0 else size for size in spec.shape], spec.dtype)


def _restore_shape(tensor: Any, spec: TensorSpec, tf: Any) -> Any:
    if spec.dtype != _TEXT:
        return tensor
    free = [number for number, size in enumerate(spec.shape) if size < 0]
    if len(free) == 1:
        return tf.reshape(tensor, spec.shape)
    return tf.ensure_shape(tensor, [None if size < 0 else size for size in spec.shape])


def _pack(structure: Any, tensors: Iterator[Any]) -> Any:
    """Return the tensors in the model's structure of inputs, in the order of :func:`specs`."""
    if isinstance(structure, Mapping):
        return {key: _pack(item, tensors) for key, item in structure.items()}
    if isinstance(structure, list | tuple):
        return [_pack(item, tensors) for item in structure]
    return next(tensors)


def _flat_outputs(result: Any, model: Any) -> Any:
    """Return a single output as it is; several in one flat dictionary by name."""
    while isinstance(result, list | tuple) and len(result) == 1:
        result = result[0]
    if isinstance(result, list | tuple):
        names = list(getattr(model, "output_names", None) or ())
        if len(names) != len(result) or len(set(names)) < len(names):
            names = [f"output_{number}" for number in range(len(result))]
        result = dict(zip(names, result, strict=True))
    if not isinstance(result, Mapping):
        return result
    flat: dict[str, Any] = {}
    for name, part in result.items():
        inner = _flat_outputs(part, None)
        if isinstance(inner, Mapping):
            flat.update({f"{name}_{key}": tensor for key, tensor in inner.items()})
        else:
            flat[str(name)] = inner
    return flat


def _output_specs(model: Any, contents: Contents) -> tuple[TensorSpec, ...]:
    declared = of_keras(model)
    if declared is not None and declared.outputs:
        return declared.outputs
    signature = contents.signatures.get(_SIGNATURE)
    outputs = signature.outputs if signature is not None else ()
    return (TensorSpec(dtype=outputs[0].dtype, shape=outputs[0].shape),) if len(outputs) == 1 else outputs


def _is_resource(part: Any) -> bool:
    return has_class(part, "TrackableResource", "CapturableResource", packages=("tensorflow",))


def _takes_training(layer: Any) -> bool:
    """Return whether a layer has a ``training`` argument; most preprocessing layers have none."""
    return "training" in inspect.signature(layer.call).parameters
