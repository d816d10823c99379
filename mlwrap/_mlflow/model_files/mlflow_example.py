"""Write an input example in MLflow's own format, which its loaders, its UI and its servers read."""

from __future__ import annotations

import warnings
from pathlib import Path

from mlflow.models import Model as MLmodel
from mlflow.models import infer_signature

from mlwrap._journal.input_example import Example
from mlwrap._mlflow.undocumented import SAVE_EXAMPLE

EXAMPLE_FILES = ("input_example.json", "serving_input_example.json")


def add_example(mlmodel: MLmodel, staged: Path) -> str | None:
    """Write a model's staged example in MLflow's format; infer the inputs from it if no signature exists.

    Args:
        mlmodel: The model's description; updated here.
        staged: The model's staged folder.

    Returns:
        Why the example could not be written; ``None`` if it was written, or if the model has none.
    """
    try:
        example = Example.read(staged)
        if example is None:
            return None
        value = example.value()
        save_example = SAVE_EXAMPLE.find()
        if save_example is None:
            return f"its input_example was not written: this MLflow lacks {SAVE_EXAMPLE.name}()"
        save_example(mlmodel, value, str(staged))
        if mlmodel.signature is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's advice on integers that may be missing later
                mlmodel.signature = infer_signature(value)
    except Exception as error:  # noqa: BLE001 - a failed example must not lose the model
        for name in EXAMPLE_FILES:
            (staged / name).unlink(missing_ok=True)
        mlmodel.saved_input_example_info = None  # type: ignore[assignment] # the value in a new MLmodel
        return f"its input_example could not be written for MLflow: {type(error).__name__}: {error}"
    return None
