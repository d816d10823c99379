"""``TrainingMethods``: the methods of a run that log metrics and training speed at every step."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlwrap._recording.metrics.throughput import Throughput
from mlwrap._recording.recorder import Recorder
from mlwrap._run.internal_errors import check_open, handle_internal_errors, never_raises, warn_or_reraise
from mlwrap._savers.tensorflow.event_files import folder_metrics
from mlwrap.errors import describe_error, warn

_MISSING = object()


class TrainingMethods:
    """The part of a :class:`mlwrap.Run` that a training loop calls."""

    _recorder: Recorder
    _step = 0

    @handle_internal_errors
    def log_metric(
        self, name: str, value: Any, *, step: int | None = None, timestamp: float | None = None
    ) -> None:
        """Log one metric at a step; see :meth:`log_metrics`."""
        self._recorder.metrics.log({name: value}, step, timestamp)

    @handle_internal_errors
    def log_metrics(
        self, metrics: Mapping[str, Any], *, step: int | None = None, timestamp: float | None = None
    ) -> None:
        """Log the metrics of one step. The rules are in ``docs/reference/metrics.md``.

        Args:
            metrics: Name to number: a Python or numpy number, or an array, tensor or variable with one
                element. The call never blocks on a device: a tensor that is not ready is logged by a later
                call, or at the end of the run.
            step: The step; by default the highest step of any of these metrics plus one.
            timestamp: Milliseconds since the epoch; by default now.

        Raises:
            Diverged: A value is NaN or infinite, and the run's setting is ``nonfinite="stop"``.
        """
        if not isinstance(metrics, Mapping):  # an iterator may have no end
            raise TypeError(f"expected a mapping of names to numbers, not {type(metrics).__name__}.")
        self._recorder.metrics.log(metrics, step, timestamp)

    @handle_internal_errors
    def log_event_files(self, path: str | os.PathLike[str], *, prefix: str = "") -> None:
        """Log the scalars of TensorBoard event files, with their own steps and times.

        A data point that is found more than once is logged once. Reading event files imports TensorFlow.

        Args:
            path: An event file or a folder. The name of a subfolder is a prefix, as in ``train/epoch_loss``.
            prefix: Text to put before all names; by default none.
        """
        records = folder_metrics(Path(path))
        self._recorder.metrics.log_found(
            msgspec.structs.replace(record, values={f"{prefix}{n}": v for n, v in record.values.items()})
            for record in records
        )

    @never_raises(iter, ())
    def steps(self, n: int | None = None, *, every: float = 1.0) -> Iterator[int]:
        """Yield the numbers of the next ``n`` steps of a training loop, and log its speed.

        The numbers continue from loop to loop: two loops of ten are steps 0 to 19. During the loop and at its
        end, two metrics are logged: ``steps_per_second`` (since it was last logged) and ``seconds_left`` (at
        the average speed since the first step).

        Args:
            n: Number of steps; ``None`` for an endless loop, without ``seconds_left``. Any other value that
                is not a number causes a warning, and no step.
            every: Seconds between two data points; by default 1.
        """
        endless = n is None or n == math.inf
        try:
            seconds = float(every)
        except Exception as error:  # noqa: BLE001 - a wrong interval may not end the training
            warn(
                f"run {self._recorder.name!r}: steps() logs every second, not every={every!r}: "
                f"{describe_error(error)}"
            )
            seconds = 1.0
        return self._steps(None if endless else int(n), seconds)  # type: ignore[arg-type] # n is not None here

    def _steps(self, n: int | None, every: float) -> Iterator[int]:
        throughput = Throughput(n)
        while n is None or throughput.done < n:
            step, self._step = self._step, self._step + 1
            yield step
            throughput.advance(1)
            if (throughput.done == n or throughput.elapsed(every)) and self._recorder.status == "RUNNING":
                self.log_metrics(throughput.metrics("steps_per_second"), step=self._step - 1)


# Fast versions of log_metric() and log_metrics(), which a loop calls at every step. They inline
# handle_internal_errors(), because passing on arbitrary arguments takes a tenth of the time of a call. Calls
# with the first arguments as keywords, and wrong calls, take the slow path.


def _log_metric(
    self: TrainingMethods,
    name: Any = _MISSING,
    value: Any = _MISSING,
    /,
    *more: Any,
    step: Any = None,
    timestamp: Any = None,
    **unknown: Any,
) -> None:
    if value is _MISSING or more or unknown:
        _slowly(_log_metric, self, (name, value, *more), step=step, timestamp=timestamp, **unknown)
        return
    recorder = self._recorder
    if recorder.ready or check_open(recorder, "log_metric"):
        try:
            recorder.metrics.log({name: value}, step, timestamp)
        except Exception as error:  # noqa: BLE001 - see handle_internal_errors()
            warn_or_reraise(recorder, _log_metric, error)


def _log_metrics(
    self: TrainingMethods,
    metrics: Any = _MISSING,
    /,
    *more: Any,
    step: Any = None,
    timestamp: Any = None,
    **unknown: Any,
) -> None:
    if type(metrics) is not dict or more or unknown:
        _slowly(_log_metrics, self, (metrics, *more), step=step, timestamp=timestamp, **unknown)
        return
    recorder = self._recorder
    if recorder.ready or check_open(recorder, "log_metrics"):
        try:
            recorder.metrics.log(metrics, step, timestamp)
        except Exception as error:  # noqa: BLE001 - see handle_internal_errors()
            warn_or_reraise(recorder, _log_metrics, error)


def _slowly(quick: Any, run: TrainingMethods, args: tuple[Any, ...], **kwargs: Any) -> None:
    quick.__wrapped__(run, *(arg for arg in args if arg is not _MISSING), **kwargs)


for _quick in (_log_metric, _log_metrics):
    _declared: Callable[..., Any] = getattr(TrainingMethods, _quick.__name__.removeprefix("_"))
    setattr(TrainingMethods, _declared.__name__, functools.update_wrapper(_quick, _declared))
