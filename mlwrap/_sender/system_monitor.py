"""What does the machine do while a run lasts? MLflow's own monitors tell, and the run's journal is told.

So the numbers go the way of all metrics: batched, replayed, and kept while MLflow is away. The training
process pays nothing for it. A step is a number of intervals since the run began, so that a sender
that takes another one's place goes on counting.
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
        # Only those who ask for it wait for this.
        from mlwrap._mlflow.system_monitors import sample, take_values, working_monitors  # noqa: PLC0415 - loads MLflow

        monitors = working_monitors()
        prefix = f"system/{asked.node}/" if asked.node else "system/"
        look = math.floor((time.monotonic() - began) / asked.interval)
        step = look // asked.samples
        while True:
            # Where the machine slept, or a monitor takes its time, what was missed is left out.
            look = max(look + 1, math.floor((time.monotonic() - began) / asked.interval))
            if self._over.wait(began + look * asked.interval - time.monotonic()):
                return
            monitors = [monitor for monitor in monitors if sample(monitor)]
            if look // asked.samples > step:
                step = look // asked.samples
                self._write(take_values(monitors, prefix), step - 1)

    def _write(self, values: dict[str, float], step: int) -> None:
        with self._writing, contextlib.suppress(OSError):  # a full disk has no room for what is optional
            if self._writer is not None and values:
                self._writer.append(Metrics.of(values, step=step, time=now()))
