"""Live metrics from Keras's ``fit``: Keras 3 on TensorFlow, JAX and PyTorch, Keras 2 and tf_keras.

There is one class for all of them, and nothing of Keras is imported: Keras asks a callback for its methods
and not for its class, so one that several Kerases can call need not choose which of them to inherit from.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from typing import Any, Literal

from mlwrap._fit.best import BestTracker, check_mode, check_positive
from mlwrap._fit.fit_params import fit_params
from mlwrap._fit.keras_hook import hook
from mlwrap._fit.learning_rates import learning_rates
from mlwrap._fit.tuner_trial import tuner_trial
from mlwrap._journal.records import Metrics
from mlwrap._process.workers import role
from mlwrap._recording.metrics.metric_log import MetricLog
from mlwrap._recording.metrics.throughput import Throughput
from mlwrap._run.run import Run, check_run, current_run
from mlwrap._savers.history.fits import mark_logged_live
from mlwrap.errors import Diverged, describe_error, warn

__all__ = ["MetricsCallback"]


class MetricsCallback:
    """Logs a ``fit`` while it runs: ``model.fit(..., callbacks=[MetricsCallback()])``.

    After each epoch, with the epoch as the step: all that Keras reports (``loss``, ``val_loss``, …),
    ``learning_rate``, ``epoch_seconds``, ``batches_per_second`` and ``seconds_left``. A second ``fit`` in the
    same run goes on where the first stopped, whether it has this callback or one of its own.

    Args:
        run: The run to log to; by default the one around the ``fit``.
        prefix: What stands before the names of this model's metrics, as ``"generator/"``.
        every: Log Keras's running means, as ``batch/loss``, after every so many batches, too; the step is the
            number of batches so far in the run.
        every_seconds: The same after so many seconds.
        batch_size: With it ``samples_per_second`` is logged, too; Keras does not tell.
        checkpoint_every: Log the model as ``checkpoint`` after every so many epochs, with their metrics.
        best: Name of a metric, as ``"val_loss"``: log the model as ``best`` whenever that is a new best.
        mode: Whether the lowest or the highest is best. By default the metric tells: see
            ``docs/reference/metrics.md``.
        grace: Seconds that are left when ``run.preempted`` becomes true. The model is then logged as
            ``preempted``, unless the last time took more than a third of that, or several processes train
            it; 0 for never.

    Raises:
        OptionError: An option can't be used, or ``best`` needs a ``mode``.

    A copy by ``copy.deepcopy``, as tuners make, logs to the same run and starts afresh. Within a trial of
    KerasTuner the names of metrics and models begin with its id, as ``trial_0/``.
    """

    async_safe = True  # on JAX and PyTorch Keras calls it from threads of its own then, and goes on
    _supports_tf_logs = True  # Keras 2 hands over what it has then, and does not wait for the device

    def __init__(
        self,
        run: Run | None = None,
        *,
        prefix: str = "",
        every: int | None = None,
        every_seconds: float | None = None,
        batch_size: int | None = None,
        checkpoint_every: int | None = None,
        best: str | None = None,
        mode: Literal["min", "max"] | None = None,
        grace: float = 30.0,
    ) -> None:
        check_run(run)
        check_positive(
            every=every, every_seconds=every_seconds, batch_size=batch_size, checkpoint_every=checkpoint_every
        )
        self._given = run
        self._given_prefix = prefix
        self._set_prefix(prefix)
        self._every = every or math.inf
        self._every_seconds = every_seconds or math.inf
        self._batch_size = batch_size
        self._checkpoint_every = checkpoint_every
        check_mode(mode)
        self._best_name, self._mode = best, mode
        self._grace = grace
        self._start_afresh()

    def _set_prefix(self, prefix: str) -> None:
        self._prefix, self._batches = prefix, f"{prefix}batch"  # what they are counted as
        self._batch_names: dict[str, str] = {}

    def _start_afresh(self) -> None:
        """Forget every fit."""
        self._best = BestTracker(self._best_name, self._mode) if self._best_name else None
        self._save_seconds, self._rescued, self._alone = 0.0, False, True
        self._told: set[str] = set()
        self._run: Run | None = None
        self._points: MetricLog | None = None
        self._pace = Throughput()
        self._offset: int | None = None
        self._live_names: set[str] = set()
        self._epoch = self._before = self._done = self._last_told = 0
        self._epoch_began = self._batch_ended = self._last_time = 0.0
        self.model: Any = None
        self.params: Mapping[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> MetricsCallback:
        """The same options and the same run, whose connection can't be copied, and nothing of its fits."""
        memo[id(self)] = fresh = copy.copy(self)
        fresh._start_afresh()  # noqa: SLF001 - it is one of us
        for name in vars(self).keys() - vars(MetricsCallback()).keys():  # what a subclass has added
            setattr(fresh, name, copy.deepcopy(getattr(self, name), memo))
        return fresh

    def __getattr__(self, name: str) -> Any:
        """The hooks that Keras has and that nothing is to be done in."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def set_model(self, model: Any) -> None:
        """Keras says whose ``fit`` it is."""
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Keras says how many epochs there will be."""
        self.params = params or {}

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Find the run."""
        trial = tuner_trial()
        self._set_prefix(self._given_prefix if trial is None else f"{self._given_prefix}trial_{trial}/")
        run = self._given or current_run()
        self._run, self._points = None, None
        if run is None:
            warn(
                "MetricsCallback is used outside a run, and logs nothing. Call fit() within model_run() or a "
                "function with @tracked_training, or give it the run: MetricsCallback(run)."
            )
        elif run.status != "RUNNING":
            warn(f"MetricsCallback logs nothing, for run {run.name!r} has ended ({run.status}).")
        elif (recorder := run._recorder).recording:  # noqa: SLF001 - a worker that only takes part in saving, too
            self._run, self._points = run, recorder.metrics
        self._alone = role().source is None
        self._offset, self._rescued, self._epoch = None, False, 0
        if self._best is not None:
            self._best.begin_fit()

    @hook
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Find the epoch's place in the run."""
        counts = self._points.step_offsets  # type: ignore[union-attr] # see hook()
        if self._offset is None:  # the first; one that goes on from initial_epoch is where it should be
            self._offset = max(0, counts.get(self._prefix, 0) - epoch)
            self._pace = Throughput(int(self.params.get("epochs") or 0) - epoch or None)
            asked = fit_params(self.model, self.params, self._batch_size, self._prefix)
            self._run._recorder.params.log_missing(asked)  # type: ignore[union-attr] # noqa: SLF001 - see hook()
            history = getattr(self.model, "history", None)
            log = self._run and self._run._recorder.fits  # noqa: SLF001 - the run's own part
            if log and getattr(history, "epoch", None) in (None, []):  # else it is of an earlier fit
                self._live_names = mark_logged_live(history, self._offset, self._prefix, log)
        self._epoch = epoch + self._offset
        self._before = self._last_told = counts.get(self._batches, 0)
        self._done = 0
        self._epoch_began = self._batch_ended = self._last_time = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Look whether the process will end soon: here, for Keras calls this on the training's own thread."""
        if self._run is not None and self._run.preempted and not self._rescued:
            self._rescue(None)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Log a batch, if it is its turn."""
        points = self._points
        if points is None:
            return
        # What hook() does, spelled out: after each step the processor's caches are the framework's, and a
        # call of a function takes a microsecond.
        self._batch_ended = now = time.monotonic()
        step = self._before + batch + 1
        if batch >= self._done:
            self._done = batch + 1
            points.step_offsets[self._batches] = step
        if abs(step - self._last_told) >= self._every or now - self._last_time >= self._every_seconds:
            self._last_told, self._last_time = step, now
            known = self._batch_names.get
            try:
                values = {
                    known(name) or self._batch_name(name): value for name, value in (logs or {}).items()
                }
                points.log(values, step, ordered=False)
            except Exception as error:  # noqa: BLE001 - see hook()
                self._failed("on_train_batch_end", error)

    @hook
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Log an epoch, and the model if it is its turn."""
        now = time.monotonic()
        step = self._epoch
        self._points.step_offsets[self._prefix] = step + 1  # type: ignore[union-attr] # see hook()
        found = {**(logs or {}), **learning_rates(self.model), "epoch_seconds": now - self._epoch_began}
        if self._done and self._batch_ended > self._epoch_began:
            found["batches_per_second"] = self._done / (self._batch_ended - self._epoch_began)
            if self._batch_size:
                found["samples_per_second"] = found["batches_per_second"] * self._batch_size
        self._pace.advance(1)
        found |= self._pace.time_left()
        values = {f"{self._prefix}{name}": value for name, value in found.items()}
        record: Metrics | None = None
        try:
            record = self._points.log(values, step)  # type: ignore[union-attr] # see hook()
            self._live_names.update(found)
        finally:  # what has diverged is kept, too, if it was asked for
            if self._checkpoint_every and (step + 1) % self._checkpoint_every == 0:
                self._save("checkpoint", record, background=True)
            if record is not None and self._is_best(record):
                self._save("best", record, background=True)
            if self._run is not None and self._run.preempted and not self._rescued:
                self._rescue(record)

    @hook
    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Write down what still waits."""
        self._points.flush_pending()  # type: ignore[union-attr] # see hook()
        self._say(self._best.missed_for(1) if self._best else None)

    def _implements_train_batch_hooks(self) -> bool:
        """Keras 2 asks."""
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    _implements_predict_batch_hooks = _implements_test_batch_hooks

    def _batch_name(self, name: str) -> str:
        return self._batch_names.setdefault(name, f"{self._batches}/{name}")

    def _is_best(self, record: Metrics) -> bool:
        if self._best is None:
            return False
        is_best = self._best.is_in(record.numbers(), self._prefix, self.model)
        self._say(self._best.missed_for())
        return is_best

    @hook
    def _rescue(self, record: Metrics | None) -> None:
        """The process will be ended soon: save the model, if there is time for that."""
        self._rescued = True
        if self._points is None or self._run is None:
            return
        self._points.flush_pending()
        took = max(self._save_seconds, self._run._recorder.models.seconds)  # noqa: SLF001
        if self._alone and took < self._grace / 3:  # else all would have to save at one time
            self._save("preempted", record, background=False)

    def _save(self, name: str, record: Metrics | None, *, background: bool) -> None:
        if self._run is None:
            return
        began = time.monotonic()
        if sync := getattr(self.model, "jax_state_sync", None):  # within an epoch it lies elsewhere
            sync()
        called = f"{self._prefix.rstrip('/')}_{name}".lstrip("_").replace("/", "_")
        options: dict[str, Any] = {"background": background, "checkpoint": True}
        self._run.log_model(self.model, called, step=self._epoch, metrics=record, **options)
        self._save_seconds = time.monotonic() - began

    def _failed(self, hook: str, error: Exception) -> None:
        if not isinstance(error, Diverged):
            self._say(f"{hook}() of MetricsCallback failed, and training goes on: {describe_error(error)}")
            return
        if not self.model.stop_training:
            self._say(f"fit() was asked to stop: {error}")
        self.model.stop_training = True

    def _say(self, message: str | None) -> None:
        """Once: a training makes the same mistake at every step."""
        if message and message not in self._told:
            self._told.add(message)
            warn(message)


def _nothing(*_: Any, **__: Any) -> None:
    """What a hook does that nothing is to be done in."""
