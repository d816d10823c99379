"""What does the machine do while a run lasts? MLflow's own monitors tell, and the run's journal is told.

So the numbers go the way of all metrics: batched, replayed, and kept while MLflow is away. The training
process pays nothing for it. A step is a number of intervals since the run began, so that a sender
that takes another one's place goes on counting.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from typing import Any, TypeAlias

from mlwrap._journal import Metrics, RunFolder, SystemMetrics, Writer, header, now
from mlwrap.errors import JournalError

_Monitor: TypeAlias = Any  # MLflow's ``BaseMetricsMonitor``, which has no types
_log = logging.getLogger(__name__)


class Watch:
    """Watches the machine for one run, if that was asked for, in a thread of its own.

    Args:
        folder: The run's folder; its journal is open.

    Attributes:
        period: Seconds from one point to the next; infinite where nothing was asked for.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.period = math.inf
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._writer: Writer | None = None
        with contextlib.suppress(JournalError, OSError):  # delivery will say what is wrong with it
            first = header(folder.journal)
            if first.system_metrics is not None:
                self._writer = Writer(folder.journal)
                self.period = first.system_metrics.interval * first.system_metrics.samples
                began = time.monotonic() - max(0, now() - first.time) / 1000
                threading.Thread(target=self._run, args=(first.system_metrics, began), daemon=True).start()

    def close(self) -> None:
        """Write nothing more: the run is over. A second call does nothing."""
        self.period = math.inf
        self._over.set()
        with self._writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _run(self, asked: SystemMetrics, began: float) -> None:
        monitors = _monitors()
        prefix = f"system/{asked.node}/" if asked.node else "system/"
        look = math.floor((time.monotonic() - began) / asked.interval)
        step = look // asked.samples
        while True:
            # Where the machine slept, or a monitor takes its time, what was missed is left out.
            look = max(look + 1, math.floor((time.monotonic() - began) / asked.interval))
            if self._over.wait(began + look * asked.interval - time.monotonic()):
                return
            monitors = [monitor for monitor in monitors if _look(monitor)]
            if look // asked.samples > step:
                step = look // asked.samples
                self._write(_values(monitors, prefix), step - 1)

    def _write(self, values: dict[str, float], step: int) -> None:
        with self._writing, contextlib.suppress(OSError):  # a full disk has no room for what is optional
            if self._writer is not None and values:
                self._writer.append(Metrics.of(values, step=step, time=now()))


def _monitors() -> list[_Monitor]:
    """Those of MLflow's that work on this machine."""
    from mlflow.system_metrics.metrics import (  # noqa: PLC0415 - only those who ask for it wait for this
        cpu_monitor,
        disk_monitor,
        gpu_monitor,
        network_monitor,
        rocm_monitor,
    )

    found: list[_Monitor] = []
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
    working = [monitor for monitor in found if _look(monitor)]
    _values(working, "")
    return working


def _look(monitor: _Monitor) -> bool:
    """Let a monitor take its sample; whether it could."""
    try:
        monitor.collect_metrics()
    except Exception:  # noqa: BLE001 - whatever a driver raises; the other monitors go on
        _log.debug("%s is left out from now on", type(monitor).__name__, exc_info=True)
        return False
    return True


def _values(monitors: list[_Monitor], prefix: str) -> dict[str, float]:
    """What the monitors have gathered, which they forget."""
    found: dict[str, float] = {}
    for monitor in monitors:
        found |= {prefix + name: float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return found
