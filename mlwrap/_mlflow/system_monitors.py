"""MLflow's own monitors of the machine: processors, memory, disk, network, GPUs."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, TypeAlias

from mlflow.system_metrics.metrics import (
    cpu_monitor,
    disk_monitor,
    gpu_monitor,
    network_monitor,
    rocm_monitor,
)

Monitor: TypeAlias = Any  # MLflow's ``BaseMetricsMonitor``, which has no types
_log = logging.getLogger(__name__)


def working_monitors() -> list[Monitor]:
    """Those of MLflow's that work on this machine."""
    found: list[Monitor] = []
    kinds: tuple[Any, ...] = (
        cpu_monitor.CPUMonitor,
        disk_monitor.DiskMonitor,
        network_monitor.NetworkMonitor,
    )
    for kind in kinds:
        with contextlib.suppress(Exception):  # as in a container that may not look
            found.append(kind())
    for kind in (gpu_monitor.GPUMonitor, rocm_monitor.ROCMMonitor):  # one of them, as MLflow does
        with contextlib.suppress(Exception):  # no such GPU, or the package for it is not installed
            found.append(kind())
            break
    # The load of the processors is that since one looked last: so one looks now.
    working = [monitor for monitor in found if sample(monitor)]
    take_values(working, "")
    return working


def sample(monitor: Monitor) -> bool:
    """Let a monitor take its sample; whether it could."""
    try:
        monitor.collect_metrics()
    except Exception:  # noqa: BLE001 - whatever a driver raises; the other monitors go on
        _log.debug("%s is left out from now on", type(monitor).__name__, exc_info=True)
        return False
    return True


def take_values(monitors: list[Monitor], prefix: str) -> dict[str, float]:
    """What the monitors have gathered, which they forget."""
    found: dict[str, float] = {}
    for monitor in monitors:
        found |= {prefix + name: float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return found
