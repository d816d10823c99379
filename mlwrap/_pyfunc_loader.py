"""Predicts with a SavedModel, for MLflow's generic flavor.

mlwrap copies this file into models of which MLflow's own loaders would not give back what they give: they
hand several outputs on as tensors, which ``mlflow models serve`` can't write, or drop the last axis of one
column. It needs TensorFlow and nothing of mlwrap's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def _load_pyfunc(path: str, model_config: dict[str, Any]) -> Predictor:
    """Load a model, as MLflow asks for it."""
    return Predictor(path, str(model_config["signature"]))


class Predictor:
    """A signature of a SavedModel, that takes and gives arrays."""

    def __init__(self, path: str, signature: str) -> None:
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
        tensors = {name: _tensor(data[name], spec) for name, spec in self._inputs.items()}
        return {name: tensor.numpy() for name, tensor in self._function(**tensors).items()}


def _tensor(part: Any, spec: Any) -> Any:
    if spec.dtype == tf.string:
        return tf.constant(np.asarray(part, dtype=object))
    return tf.constant(np.asarray(part, dtype=spec.dtype.as_numpy_dtype))
