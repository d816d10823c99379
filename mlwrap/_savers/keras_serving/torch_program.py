"""Write the serving form of a Keras model on PyTorch: a program that PyTorch exports, without its code.

MLflow's loader for PyTorch reads it, feeds it one array and returns one::

    serving/model.pt2        the program, without pickle

Source: ``mlflow/pytorch/__init__.py`` of MLflow 3.
"""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from mlwrap._journal.records import Signature
from mlwrap._savers.identify import imported
from mlwrap._savers.keras_serving.export import FOLDER, ServingForm
from mlwrap._savers.keras_serving.inputs import serving_inputs
from mlwrap._savers.signature import as_fed, of_keras, specs
from mlwrap.errors import SaveError, describe_error

PROGRAM = "model.pt2"


def write_program(model: Any, folder: Path, example: Any = None) -> ServingForm:
    """Write the serving form of a model.

    Args:
        model: A Keras 3 model on PyTorch.
        folder: The folder of the logged model.
        example: An input example, which gives the input types of a subclassed model.

    Raises:
        SaveError: It can't be exported, or MLflow's loader could not feed it: says why.
    """
    torch: Any = imported("torch")
    layers: Any = import_module("keras.layers")
    declared = of_keras(model)
    inputs = as_fed(model, specs(serving_inputs(model, example)), example)
    if len(inputs) != 1 or (declared is not None and len(declared.outputs) > 1):
        raise SaveError("MLflow's loader for PyTorch models feeds one array and takes one back", model)
    sizes = [None if size < 0 else size for size in inputs[0].shape]
    dynamic_axes = {axis: torch.export.Dim(f"axis_{axis}") for axis, size in enumerate(sizes) if size is None}
    target = folder / FOLDER / PROGRAM
    target.parent.mkdir()
    try:
        model.export(
            str(target),
            format="torch",
            verbose=False,
            input_signature=[layers.InputSpec(shape=sizes, dtype=inputs[0].dtype)],
            dynamic_shapes=dynamic_axes,
        )
    except Exception as error:
        shutil.rmtree(target.parent, ignore_errors=True)
        if isinstance(error, OSError | MemoryError):
            raise
        raise SaveError(f"PyTorch can't export it: {describe_error(error)}", model) from error
    outputs = declared.outputs if declared is not None else ()
    pyfunc = {"loader_module": "mlflow.pytorch", "data": FOLDER}
    return ServingForm(pyfunc, {}, Signature(inputs=inputs, outputs=outputs), ())
