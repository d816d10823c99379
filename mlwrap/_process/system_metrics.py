"""Is the machine to be watched while a run lasts? As the user told mlwrap, else as MLflow was told."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._journal.records import SystemMetrics
from mlwrap.config import Settings
from mlwrap.errors import OptionError, warn

# MLflow's own; its functions that set these leave them in the environment.
_NUMBERS = {
    "interval": "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL",
    "samples": "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING",
}


def system_metrics(chosen: Settings) -> SystemMetrics | None:
    """What the sender is to be told; ``None`` where nobody asks for it, or no sender is there to do it.

    Raises:
        OptionError: One of MLflow's variables is no number, or not one that can be used.
    """
    asked = chosen.system_metrics
    if asked is None:
        asked = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").lower() in {"true", "1"}
    if not asked:
        return None
    if chosen.delivery != "sender":
        warn(
            f"system metrics are logged by the sender, and with delivery={chosen.delivery!r} there is none: "
            "the run will have no system metrics."
        )
        return None
    given: dict[str, Any] = {}
    for field, variable in _NUMBERS.items():
        text = os.environ.get(variable)
        if text and text != "0":  # to MLflow both are its default
            given[field] = text
            try:
                msgspec.convert(given, SystemMetrics, strict=False)
            except msgspec.ValidationError as error:
                expected = str(error).partition(" - at")[0].replace("`", "")
                raise OptionError(f"{variable}={text!r} can't be used: {expected}.") from None
    node = os.environ.get("MLFLOW_SYSTEM_METRICS_NODE_ID")
    return msgspec.convert(
        given | {"node": to_mlflow_name(node) if node else None}, SystemMetrics, strict=False
    )
