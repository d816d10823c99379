"""Predict with stock MLflow without running code that came with the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.models import Model as MLmodel

from mlwrap._shipped.loader import import_own_loader, is_shipped
from mlwrap.errors import LoadError

_PICKLES = (".cloudpickle", ".pickle", ".pkl", ".pth")
_KERAS = ("keras", "tf_keras", "tensorflow.keras")


def stock_predict(folder: Path, value: Any, *, trust: bool) -> Any:
    """Predict for an example with MLflow's generic loader; return ``None`` if the model has no pyfunc flavor.

    Args:
        folder: The model's files.
        value: The example, or ``None`` to only load the model.
        trust: Whether code that came with the model may run.

    Raises:
        LoadError: Loading would run code that came with the model, and ``trust`` is false.
        Exception: Whatever the loader or the model raises.
    """
    flavors = MLmodel.load(str(folder)).flavors
    if mlflow.pyfunc.FLAVOR_NAME not in flavors:
        return None
    if not trust:
        shipped = is_shipped(folder, flavors[mlflow.pyfunc.FLAVOR_NAME])
        _require_no_code(folder, flavors, shipped=shipped)
        if shipped:
            import_own_loader()
    model = mlflow.pyfunc.load_model(str(folder))
    return None if value is None else model.predict(value)


def _require_no_code(folder: Path, flavors: Mapping[str, Any], *, shipped: bool) -> None:
    """Check that stock MLflow, which trusts a model's description, would run no code of the model.

    Args:
        folder: The model's files.
        flavors: The flavors of its ``MLmodel``.
        shipped: Whether its code is mlwrap's own loader and nothing else.

    Raises:
        LoadError: The description names code or a loader other than MLflow's own, or the model has a pickle.
    """
    why, pyfunc = None, flavors[mlflow.pyfunc.FLAVOR_NAME]
    others = [config for config in flavors.values() if isinstance(config, dict) and config is not pyfunc]
    if any(config.get("code") for config in (others if shipped else [*others, pyfunc])):
        why = "it brings code of its own"
    elif not shipped and not str(pyfunc.get("loader_module", "mlflow.")).startswith("mlflow."):
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
