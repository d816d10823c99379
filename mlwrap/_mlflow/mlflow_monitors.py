"""Sample MLflow's own monitors of the machine: processors, memory, disk, network, GPUs."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, TypeAlias

from mlwrap._mlflow.undocumented import GPU_MONITORS, MONITORS

Monitor: TypeAlias = Any  # MLflow's ``BaseMetricsMonitor``, which has no types
_log = logging.getLogger(__name__)


def working_monitors() -> list[Monitor]:
    """Return MLflow's monitors that work on this machine."""
    monitors: list[Monitor] = []
    for monitor_type in filter(None, (monitor.find() for monitor in MONITORS)):
        with contextlib.suppress(Exception):  # for example a container without access
            monitors.append(monitor_type())
    for monitor_type in filter(None, (monitor.find() for monitor in GPU_MONITORS)):  # the first that works
        with contextlib.suppress(Exception):  # no such GPU, or its package is not installed
            monitors.append(monitor_type())
            break
    # The processors' load is measured since the previous sample, so take the first one now.
    working = [monitor for monitor in monitors if sample(monitor)]
    take_values(working, "")
    return working


def sample(monitor: Monitor) -> bool:
    """Let a monitor take its sample; return whether it succeeded."""
    try:
        monitor.collect_metrics()
    except Exception:  # noqa: BLE001 - drivers raise anything; the other monitors go on
        _log.debug("%s is left out from now on", type(monitor).__name__, exc_info=True)
        return False
    return True


def take_values(monitors: list[Monitor], prefix: str) -> dict[str, float]:
    """Return the values that the monitors gathered since the last call, and clear them."""
    values: dict[str, float] = {}
    for monitor in monitors:
        values |= {prefix + name: float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return values
