"""An input example in MLflow's own form, which its loaders, its pages and its servers read."""

from __future__ import annotations

import warnings
from pathlib import Path

from mlflow.models import Model as MLmodel
from mlflow.models import infer_signature
from mlflow.models.utils import _save_example  # as MLflow's flavors do: the form is its own

from mlwrap._journal.input_example import Example

EXAMPLE_FILES = ("input_example.json", "serving_input_example.json")


def add_example(mlmodel: MLmodel, staged: Path) -> str | None:
    """Write the example that is staged with a model as MLflow does; it tells the inputs if nobody else did.

    Args:
        mlmodel: The model's description, brought up to date here.
        staged: The model's folder.

    Returns:
        Why it could not be written; ``None`` if it was, or there is none.
    """
    try:
        example = Example.read(staged)
        if example is None:
            return None
        value = example.value()
        _save_example(mlmodel, value, str(staged))
        if mlmodel.signature is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # advice on integers that may be missing one day
                mlmodel.signature = infer_signature(value)
    except Exception as error:  # noqa: BLE001 - an example is a bonus: it must not cost the model
        for name in EXAMPLE_FILES:
            (staged / name).unlink(missing_ok=True)
        mlmodel.saved_input_example_info = None  # type: ignore[assignment] # as in a new one
        return f"its input_example could not be written for MLflow: {type(error).__name__}: {error}"
    return None
