"""Predicts with a model of several outputs, for MLflow's generic flavor.

mlwrap copies this file into models of which MLflow's own loaders would not give back what they give: they
hand several outputs on as tensors, which ``mlflow models serve`` can't write, drop the last axis of one
column, or make one array of all. It needs the model's framework and nothing of mlwrap's.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def _load_pyfunc(path: str, model_config: dict[str, Any]) -> Any:
    """Load a model, as MLflow asks for it.

    Args:
        path: Of a SavedModel or a ``.keras`` file.
        model_config: Of a SavedModel ``signature``, the one that is to be served; of a ``.keras`` file
            ``framework``.
    """
    if "signature" not in model_config:
        return KerasPredictor(path)
    return SavedModelPredictor(path, str(model_config["signature"]))


class KerasPredictor:
    """A Keras model on any backend."""

    def __init__(self, path: str) -> None:
        import keras  # noqa: PLC0415  # only one of these frameworks need be here

        self._model = keras.saving.load_model(path)

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Predict what the model's own ``predict`` does: arrays, nested as the outputs are.

        Args:
            data: An array or a frame for a model of one input, else a mapping of names to arrays.
            params: Nothing: MLflow hands it to every model.
        """
        return self._model.predict(data if isinstance(data, dict) else np.asarray(data), verbose=0)


class SavedModelPredictor:
    """A signature of a SavedModel, that takes and gives arrays."""

    def __init__(self, path: str, signature: str) -> None:
        import tensorflow as tf  # noqa: PLC0415  # as above

        self._tf = tf
        self._model = tf.saved_model.load(path)  # its functions don't keep its variables alive
        self._function = self._model.signatures[signature]
        self._inputs = self._function.structured_input_signature[1]

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Predict.

        Args:
            data: An array or a frame for a model of one input, else a mapping of names to arrays, or a frame
                with a column for each.
            params: Nothing: MLflow hands it to every model.

        Returns:
            A mapping of names to arrays; TensorFlow's name for an output without one is ``output_0``.
        """
        if not isinstance(data, dict):
            is_frame = hasattr(data, "columns") and set(self._inputs) <= set(data.columns)
            parts = {name: np.stack(data[name].to_list()) for name in self._inputs} if is_frame else None
            data = parts or {next(iter(self._inputs)): np.asarray(data)}
        tensors = {name: self._tensor(data[name], spec) for name, spec in self._inputs.items()}
        return {name: tensor.numpy() for name, tensor in self._function(**tensors).items()}

    def _tensor(self, part: Any, spec: Any) -> Any:
        dtype = object if spec.dtype == self._tf.string else spec.dtype.as_numpy_dtype
        return self._tf.constant(np.asarray(part, dtype=dtype))
