"""What a run is told at every step of a training: metrics, and how fast it goes."""

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
            metrics: Name to a number: Python's, numpy's, or an array, tensor or variable that holds one. A
                tensor that its device is still busy with is not waited for; it is logged by a later call, or
                at the run's end.
            step: By default the one after the highest that any of these metrics has.
            timestamp: Milliseconds since the epoch; by default now.

        Raises:
            Diverged: One is NaN or infinite, and the run's setting is ``nonfinite="stop"``.
        """
        if not isinstance(metrics, Mapping):  # an iterator may have no end
            raise TypeError(f"expected a mapping of names to numbers, not {type(metrics).__name__}.")
        self._recorder.metrics.log(metrics, step, timestamp)

    @handle_internal_errors
    def log_event_files(self, path: str | os.PathLike[str], *, prefix: str = "") -> None:
        """Log the scalars of TensorBoard event files, with their own steps and times; a point counts once.

        Args:
            path: An event file, or a folder: of a folder within it the names have its name before them, as
                ``train/epoch_loss``. Reading takes TensorFlow, which is imported for it.
            prefix: What stands before all names.
        """
        records = folder_metrics(Path(path))
        self._recorder.metrics.log_found(
            msgspec.structs.replace(record, values={f"{prefix}{n}": v for n, v in record.values.items()})
            for record in records
        )

    @never_raises(iter, ())
    def steps(self, n: int | None = None, *, every: float = 1.0) -> Iterator[int]:
        """The numbers of the next ``n`` steps of a training loop; logs how fast it goes.

        They go on from loop to loop: two loops of ten are steps 0 to 19. While the loop runs, and when it is
        through, ``steps_per_second`` (since it was last logged) and ``seconds_left`` (at the pace
        since the first step) are logged.

        Args:
            n: How many; ``None`` for no end, and no time left. For what is no number there is a warning, and
                no step.
            every: Seconds between two points.
        """
        endless = n is None or n == math.inf
        try:
            seconds = float(every)
        except Exception as error:  # noqa: BLE001 - how often it is logged ends no training
            warn(
                f"run {self._recorder.name!r}: steps() logs every second, not every={every!r}: "
                f"{describe_error(error)}"
            )
            seconds = 1.0
        return self._steps(None if endless else int(n), seconds)  # type: ignore[arg-type] # then it is no None

    def _steps(self, n: int | None, every: float) -> Iterator[int]:
        pace = Throughput(n)
        while n is None or pace.done < n:
            step, self._step = self._step, self._step + 1
            yield step
            pace.advance(1)
            if (pace.done == n or pace.elapsed(every)) and self._recorder.status == "RUNNING":
                self.log_metrics(pace.metrics("steps_per_second"), step=self._step - 1)


# What a loop calls at every step. It is what harmless() does, spelled out: to pass any arguments on costs a
# tenth of the time of a call. Whoever names the first arguments, or makes a mistake, goes the long way.


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
        except Exception as error:  # noqa: BLE001 - see harmless()
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
        except Exception as error:  # noqa: BLE001 - see harmless()
            warn_or_reraise(recorder, _log_metrics, error)


def _slowly(quick: Any, run: TrainingMethods, args: tuple[Any, ...], **kwargs: Any) -> None:
    quick.__wrapped__(run, *(arg for arg in args if arg is not _MISSING), **kwargs)


for _quick in (_log_metric, _log_metrics):
    _declared: Callable[..., Any] = getattr(TrainingMethods, _quick.__name__.removeprefix("_"))
    setattr(TrainingMethods, _declared.__name__, functools.update_wrapper(_quick, _declared))
