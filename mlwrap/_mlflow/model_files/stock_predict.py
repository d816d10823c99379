"""Stock MLflow loads a model, and predicts, without running code that came with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.models import Model as MLmodel

from mlwrap._shipped.loader import is_shipped
from mlwrap.errors import LoadError

_PICKLES = (".cloudpickle", ".pickle", ".pkl", ".pth")
_KERAS = ("keras", "tf_keras", "tensorflow.keras")


def stock_predict(folder: Path, value: Any, *, trust: bool) -> Any:
    """What MLflow's own generic loader predicts for an example; ``None`` where it has no loader for it.

    Args:
        folder: The model's files.
        value: The example, or ``None`` to load the model and no more.
        trust: Whether code may run that came with the model.

    Raises:
        LoadError: It would run code that came with the model, without ``trust``.
        Exception: Whatever the loader or the model raises.
    """
    if mlflow.pyfunc.FLAVOR_NAME not in MLmodel.load(str(folder)).flavors:
        return None
    if not trust:
        _require_no_code(folder)
    model = mlflow.pyfunc.load_model(str(folder))
    return None if value is None else model.predict(value)


def _require_no_code(folder: Path) -> None:
    """See that stock MLflow runs nothing that came with a model, whose description it trusts.

    Raises:
        LoadError: The description names code, or another loader than MLflow's own, or there is a pickle.
    """
    flavors = MLmodel.load(str(folder)).flavors
    pyfunc = flavors.get(mlflow.pyfunc.FLAVOR_NAME, {})
    why, known = None, is_shipped(folder, pyfunc)
    others = [config for config in flavors.values() if isinstance(config, dict) and config is not pyfunc]
    if any(config.get("code") for config in (others if known else [*others, pyfunc])):
        why = "it brings code of its own"
    elif not known and not str(pyfunc.get("loader_module", "mlflow.")).startswith("mlflow."):
        why = f"it is to be loaded by {pyfunc['loader_module']}, which is not MLflow's"
    elif pickles := sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES):
        why = f"{pickles[0]} in it is a pickle"
    else:
        for file in folder.rglob("keras_module.txt"):
            if (package := file.read_text(errors="replace").strip()) not in _KERAS:
                why = f"it is to be loaded by {package!r}, which is no Keras"
    if why is not None:
        raise LoadError(
            f"Stock MLflow was not asked to load this model: {why}. Pass --trust only if you trust where "
            "it comes from."
        )
