"""Log metrics at the steps of a training, in a few microseconds per call.

A number is written at once. A tensor that is not ready yet is kept for a later call; reading it would block.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, NamedTuple

from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._journal.records import Metrics, Number
from mlwrap._journal.tags import TagName
from mlwrap._recording.metrics.clock import Clock
from mlwrap._recording.metrics.metric_values import is_ready, to_number
from mlwrap._recording.metrics.seen_points import SeenPoints, first_nonfinite, newest
from mlwrap._recording.run_log import RunLog
from mlwrap.config import Nonfinite
from mlwrap.errors import Diverged, describe_error

_MAX_PENDING_SECONDS = 1.0  # after which a call writes a tensor that is not ready; the run's end writes all
_MAX_RECENT = 5_000  # records of one stream, to recognize points that a history contains, too
_MAX_STREAMS = 256  # sets of names; a training logs the same few at every step
_MAX_STEP = 2**63 - 1  # the limit of MLflow's database
_number_types: set[type] = {float, int, bool}  # numpy's scalar types are added when they first occur


class _Stream:
    """The metrics that are logged together under one set of names.

    Attributes:
        raw_names: The names, as the caller gave them.
        names: The names, as MLflow accepts them.
        is_valid: Whether MLflow accepts the caller's names unchanged.
        last: The highest step so far; -1 before the first.
        recent: The latest records, at most ``_MAX_RECENT``.
        overlapping: All streams that share a name with this one, including itself.
    """

    __slots__ = ("is_valid", "last", "names", "overlapping", "raw_names", "recent")

    def __init__(self, names: tuple[Any, ...]) -> None:
        self.raw_names = names
        self.names = tuple(to_mlflow_name(str(name)) for name in names)
        self.is_valid = self.names == names and {str}.issuperset(map(type, names))
        self.last = -1
        self.recent: deque[Metrics] = deque(maxlen=_MAX_RECENT)
        self.overlapping: list[_Stream] = [self]


class _PendingTensors(NamedTuple):
    """Tensors of one call that are not ready."""

    stream: _Stream
    values: dict[str, Any]
    step: int
    time: int
    since: float


class MetricLog:
    """The metrics of one run.

    Args:
        run: The run.
        nonfinite: How NaN and infinite values are handled: ``"tag"`` logs them and tags the run; ``"skip"``
            omits them and tags the run; ``"stop"`` logs them, tags the run and raises ``Diverged``.

    Attributes:
        write: Writes a record.
        step_offsets: Step offsets that continue over several fits, by prefix.
    """

    def __init__(self, run: RunLog, nonfinite: Nonfinite) -> None:
        self.write: Callable[[Metrics], object] = run.append
        self._run = run
        self._nonfinite = nonfinite
        self._clock = Clock()
        self._streams: dict[tuple[str, ...], _Stream] = {}
        self._last = _Stream(())
        self._pending: deque[_PendingTensors] = deque()
        self._lock = threading.RLock()  # reentrant, because a signal handler may log, too
        self._seen = SeenPoints()
        self._warned: set[str] = set()
        self.step_offsets: dict[str, int] = {}

    def log(
        self, values: Mapping[str, Any], step: Any = None, timestamp: Any = None, *, ordered: bool = True
    ) -> Metrics | None:
        """Write the metrics of one step; a value that is not a number is omitted with a warning.

        Args:
            values: Name to number, or to an object that holds one number.
            step: The step; ``None`` for the highest step of these names plus one.
            timestamp: Milliseconds since the epoch; ``None`` for now.
            ordered: Whether to warn if the step decreases; ``False`` if several threads log in turn.

        Returns:
            The written record; ``None`` if nothing was written.

        Raises:
            Diverged: A value is not finite, and ``nonfinite`` is ``"stop"``. It is written before.
        """
        if self._pending:
            self.flush_pending(_MAX_PENDING_SECONDS)
        names, stream = tuple(values), self._last
        if names != stream.raw_names:  # rarely: a training logs the same names again and again
            stream = self._last = self._streams.get(names) or self._stream(names)
        if type(step) is int and stream.last < step <= _MAX_STEP:
            stream.last = step
        else:
            step = self._step(stream, step, ordered=ordered)
        time = self._clock.time(step) if timestamp is None else self._time(step, timestamp)
        total = 0.0
        for value in values.values():
            if type(value) is not float:
                numbers = self._numbers(stream, values, step, time)
                total = sum(numbers.values())
                break
            total += value
        else:  # all values are floats: the usual case
            numbers = {**values} if stream.is_valid else dict(zip(stream.names, values.values(), strict=True))
            if numbers and total - total == 0.0:  # finite: same as _log(), without the call
                record = Metrics(values=numbers, step=step, time=time)  # type: ignore[arg-type] # floats are Numbers
                stream.recent.append(record)
                self.write(record)
                return record
        return self._log(stream, numbers, total, step, time) if numbers else None

    def flush_pending(self, patience: float = 0.0) -> None:
        """Write the pending tensors that are ready, or have waited for longer than ``patience`` seconds."""
        with self._lock:
            while self._pending:
                stream, values, step, when, since = first = self._pending[0]
                if time.monotonic() - since < patience and not all(map(is_ready, values.values())):
                    return
                numbers = self._resolved(values)
                if self._pending and self._pending[0] is first:  # else a signal handler wrote it
                    self._pending.popleft()
                    if numbers:
                        self._log(stream, numbers, sum(numbers.values()), step, when)

    def log_found(self, records: Iterable[Metrics], prefix: str = "") -> None:
        """Write metrics that were found in a model or a history, without points that are logged already.

        Args:
            records: The metrics.
            prefix: Put before the name of a metric that has another value at that step already.
        """
        records = list(records)
        names = {to_mlflow_name(name) for record in records for name in record.values}
        live = {
            (name, record.step): value
            for stream in (list(self._streams.values()) if names else ())
            if not names.isdisjoint(stream.names)
            for record in list(stream.recent)
            for name, value in record.values.items()
        }
        for record in records:
            if fresh := self._apply_nonfinite_policy(self._seen.fresh(record, prefix, live), record.step):
                self.write(self._seen.noted(Metrics(values=fresh, step=record.step, time=record.time)))

    def newest(self) -> tuple[Metrics, ...]:
        """Return the newest point of each metric so far; tensors of one call may be in several records."""
        recent = (list(stream.recent)[-100:] for stream in list(self._streams.values()))
        return newest(itertools.chain(self._seen.newest.values(), *recent))

    def _log(
        self, stream: _Stream, numbers: dict[str, float], total: float, step: int, time: int
    ) -> Metrics | None:
        if math.isfinite(total):  # then all numbers are finite
            record = Metrics(values=numbers, step=step, time=time)  # type: ignore[arg-type] # floats are Numbers
            stream.recent.append(record)
            self.write(record)
            return record
        encoded = Metrics.of(numbers, step=step, time=time).values
        written = None
        if values := self._apply_nonfinite_policy(encoded, step):
            written = Metrics(values=values, step=step, time=time)
            stream.recent.append(written)
            self.write(written)
        if self._nonfinite == "stop" and (bad := first_nonfinite(encoded)):
            raise Diverged(
                f"metric {bad!r} is {numbers[bad]} at step {step}, and nonfinite='stop' says that the "
                "training ends then. All points are logged."
            )
        return written

    def _apply_nonfinite_policy(self, values: dict[str, Number], step: int) -> dict[str, Number]:
        """Return the values to write, and tag the run with its first value that is not finite."""
        nonfinite_name = first_nonfinite(values)
        if nonfinite_name is None:
            return values
        if "nonfinite" not in self._warned:
            self._warned.add("nonfinite")
            self._run.tags(
                {
                    TagName.DIVERGED: "true",
                    TagName.FIRST_NONFINITE_STEP: step,
                    TagName.FIRST_NONFINITE_METRIC: nonfinite_name,
                }
            )
        if self._nonfinite != "skip":
            return values
        return {name: value for name, value in values.items() if not isinstance(value, str)}

    def _numbers(self, stream: _Stream, values: Mapping[str, Any], step: int, time: int) -> dict[str, float]:
        """Return the values as numbers; those that are not ready become pending."""
        if not _number_types.issuperset(map(type, values.values())):
            return self._ready(stream, values, step, time)
        try:
            return dict(zip(stream.names, map(float, values.values()), strict=True))
        except OverflowError:  # an integer is larger than any float
            return self._resolved(dict(zip(stream.names, values.values(), strict=True)))

    def _ready(self, stream: _Stream, values: Mapping[str, Any], step: int, time_: int) -> dict[str, float]:
        """Return the numbers that are ready; the others become pending."""
        ready: dict[str, Any] = {}
        pending: dict[str, Any] = {}
        for name, value in zip(stream.names, values.values(), strict=True):
            if isinstance(value, Real):
                _number_types.add(type(value))
            try:
                (ready if is_ready(value) else pending)[name] = value
            except Exception:  # noqa: BLE001 - a symbolic tensor; _resolved() warns about it
                ready[name] = value
        if pending:
            self._pending.append(_PendingTensors(stream, pending, step, time_, time.monotonic()))
        return self._resolved(ready)

    def _resolved(self, values: Mapping[str, Any]) -> dict[str, float]:
        numbers = {}
        for name, value in values.items():
            try:
                numbers[name] = to_number(value)
            except Exception as error:  # noqa: BLE001 - whatever a value's own __float__ raises
                self._warn_once(
                    name, f"metric {name!r} is no number, and is left out: {describe_error(error)}"
                )
        return numbers

    def _stream(self, names: tuple[str, ...]) -> _Stream:
        stream = _Stream(names)
        with self._lock:
            if len(self._streams) >= _MAX_STREAMS:
                self._streams.pop(next(iter(self._streams)))
            for other in self._streams.values():
                if not set(stream.names).isdisjoint(other.names):
                    stream.overlapping.append(other)
                    other.overlapping.append(stream)
            return self._streams.setdefault(names, stream)

    def _step(self, stream: _Stream, step: Any, *, ordered: bool) -> int:
        """Return ``step`` as an integer; the next step if it is ``None`` or not an integer."""
        if step is not None:
            try:
                if abs(number := int(step)) <= _MAX_STEP:
                    if number < stream.last and ordered:
                        self._warn_step_decreased(stream, number)
                    stream.last = max(number, stream.last)
                    return number
                why = "it is too large"
            except Exception as error:  # noqa: BLE001 - whatever a step's own __int__ raises
                why = describe_error(error)
            self._warn_once("a step", f"a step is no whole number, and the next one is taken for it: {why}")
        with self._lock:
            stream.last = min(max(other.last for other in stream.overlapping) + 1, _MAX_STEP)
            return stream.last

    def _warn_step_decreased(self, stream: _Stream, step: int) -> None:
        self._warn_once(
            "step",
            f"{stream.names[0]!r} went back from step {stream.last} to {step}. Both points are kept; MLflow "
            "shows the highest step as the latest. Without a step= it is the next one, and run.steps() "
            "counts on over several loops.",
        )

    def _time(self, step: int, timestamp: Any) -> int:
        try:
            if 0 <= (number := int(timestamp)) <= _MAX_STEP:
                return number
            why = "it is negative, or too large"
        except Exception as error:  # noqa: BLE001 - whatever a timestamp's own __int__ raises
            why = describe_error(error)
        self._warn_once(
            "a timestamp", f"a timestamp is no number of milliseconds, and is taken for now: {why}"
        )
        return self._clock.time(step)

    def _warn_once(self, topic: str, message: str) -> None:
        """Warn once in a run about one topic, because a training makes the same mistake at every step."""
        if topic not in self._warned:
            self._warned.add(topic)
            self._run.warn(message)
