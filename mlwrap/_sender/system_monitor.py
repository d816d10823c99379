"""Record the machine's system metrics while a run lasts, from MLflow's monitors to the run's journal.

So they are batched, replayed and kept during an outage like all metrics, at no cost to the training process.
The step is the number of intervals since the run began, so another sender that takes over goes on counting.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time

from mlwrap._journal.reader import header
from mlwrap._journal.records import Metrics, SystemMetrics, now
from mlwrap._journal.writer import Writer
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import JournalError


class SystemMonitor:
    """Monitors the machine for one run in a thread of its own, if the run's settings ask for it.

    Args:
        folder: The run's folder; its journal is open.

    Attributes:
        period: Seconds between two data points; infinite without monitoring.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.period = math.inf
        self._closed = threading.Event()
        self._writing = threading.Lock()
        self._writer: Writer | None = None
        with contextlib.suppress(JournalError, OSError):  # delivery reports what is wrong with it
            first = header(folder.journal)
            if first.system_metrics is not None:
                self._writer = Writer(folder.journal)
                self.period = first.system_metrics.interval * first.system_metrics.samples
                began = time.monotonic() - max(0, now() - first.time) / 1000
                threading.Thread(target=self._run, args=(first.system_metrics, began), daemon=True).start()

    def close(self) -> None:
        """Write nothing more, because the run is over. A second call does nothing."""
        self.period = math.inf
        self._closed.set()
        with self._writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _run(self, config: SystemMetrics, began: float) -> None:
        # Imported here, because only monitoring needs it.
        from mlwrap._mlflow.mlflow_monitors import sample, take_values, working_monitors  # noqa: PLC0415 - loads MLflow

        monitors = working_monitors()
        prefix = f"system/{config.node}/" if config.node else "system/"
        sample_number = math.floor((time.monotonic() - began) / config.interval)
        step = sample_number // config.samples
        while True:
            # Skip the samples that were missed while the machine slept or a monitor was slow.
            sample_number = max(sample_number + 1, math.floor((time.monotonic() - began) / config.interval))
            if self._closed.wait(began + sample_number * config.interval - time.monotonic()):
                return
            monitors = [monitor for monitor in monitors if sample(monitor)]
            if sample_number // config.samples > step:
                step = sample_number // config.samples
                self._write(take_values(monitors, prefix), step - 1)

    def _write(self, values: dict[str, float], step: int) -> None:
        with self._writing, contextlib.suppress(OSError):  # on a full disk, drop these optional metrics
            if self._writer is not None and values:
                self._writer.append(Metrics.of(values, step=step, time=now()))
