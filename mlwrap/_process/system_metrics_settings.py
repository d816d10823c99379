"""Decide whether to log system metrics, from mlwrap's settings, or else from MLflow's."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._journal.records import SystemMetrics
from mlwrap.config import Settings
from mlwrap.errors import OptionError, warn

# MLflow's variables; MLflow's functions that set these values store them in the environment, too.
_NUMBERS = {
    "interval": "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL",
    "samples": "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING",
}


def system_metrics(chosen: Settings) -> SystemMetrics | None:
    """Return the request for the sender; ``None`` if system metrics are off, or no sender delivers the run.

    Raises:
        OptionError: One of MLflow's variables is not a number, or is out of range.
    """
    enabled = chosen.system_metrics
    if enabled is None:
        enabled = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").lower() in {"true", "1"}
    if not enabled:
        return None
    if chosen.delivery != "sender":
        warn(
            f"system metrics are logged by the sender, and with delivery={chosen.delivery!r} there is none: "
            "the run will have no system metrics."
        )
        return None
    numbers: dict[str, Any] = {}
    for field, variable in _NUMBERS.items():
        text = os.environ.get(variable)
        if text and text != "0":  # MLflow treats both as its default
            numbers[field] = text
            try:
                msgspec.convert(numbers, SystemMetrics, strict=False)
            except msgspec.ValidationError as error:
                expected = str(error).partition(" - at")[0].replace("`", "")
                raise OptionError(f"{variable}={text!r} can't be used: {expected}.") from None
    node = os.environ.get("MLFLOW_SYSTEM_METRICS_NODE_ID")
    return msgspec.convert(
        numbers | {"node": to_mlflow_name(node) if node else None}, SystemMetrics, strict=False
    )
