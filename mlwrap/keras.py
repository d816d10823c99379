"""Live metrics from Keras's ``fit``: Keras 3 on TensorFlow, JAX and PyTorch, Keras 2 and tf_keras.

One class serves all of them without importing Keras: Keras checks a callback's methods and not its class, so
the callback need not choose a base class.
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
from mlwrap._recording.recorder import Recorder
from mlwrap._run.callback_run import run_of_callback
from mlwrap._run.run import Run, check_run, recorder_of
from mlwrap._savers.history.fits import mark_logged_live
from mlwrap.errors import Diverged, describe_error, warn

__all__ = ["MetricsCallback"]


class MetricsCallback:
    """Logs a ``fit`` while it runs: ``model.fit(..., callbacks=[MetricsCallback()])``.

    After each epoch, with the epoch as the step, it logs everything that Keras reports (``loss``,
    ``val_loss``, …), ``learning_rate``, ``epoch_seconds``, ``batches_per_second`` and ``seconds_left``. A
    second ``fit`` in the same run continues the steps of the first, with the same callback or another one.

    Args:
        run: The run to log to; by default the current one.
        prefix: Prefix of this model's metric names, for example ``"generator/"``.
        every: Number of batches after which Keras's running means are logged too, as ``batch/loss``; the step
            is the number of batches so far in the run.
        every_seconds: The same, as a number of seconds.
        batch_size: Samples per batch, to log ``samples_per_second`` too; Keras does not report it.
        checkpoint_every: Number of epochs after which the model is logged as ``checkpoint``, with the epoch's
            metrics.
        best: Name of a metric, for example ``"val_loss"``: log the model as ``best`` at each new best value.
        mode: Whether the lowest or the highest value is best. By default inferred from the metric: see
            ``docs/reference/metrics.md``.
        grace: Seconds left when ``run.preempted`` becomes true. The model is then logged as ``preempted``,
            unless the last save took more than a third of that, or several processes train the model; 0 for
            never.

    Raises:
        OptionError: An option can't be used, or ``best`` needs a ``mode``.

    A copy by ``copy.deepcopy``, as tuners make, logs to the same run and forgets earlier fits. Within a trial
    of KerasTuner the names of metrics and models begin with its id, as ``trial_0/``.
    """

    async_safe = True  # on JAX and PyTorch, Keras then calls it from its own threads without waiting
    _supports_tf_logs = True  # Keras 2 then passes the logs as they are, without waiting for the device

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
        self._run_option = run
        self._prefix_option = prefix
        self._set_prefix(prefix)
        self._every = every or math.inf
        self._every_seconds = every_seconds or math.inf
        self._batch_size = batch_size
        self._checkpoint_every = checkpoint_every
        check_mode(mode)
        self._best_name, self._mode = best, mode
        self._grace = grace
        self._reset()

    def _set_prefix(self, prefix: str) -> None:
        self._prefix, self._batches = prefix, f"{prefix}batch"  # keys of the step offsets
        self._batch_names: dict[str, str] = {}

    def _reset(self) -> None:
        """Forget all fits."""
        self._best = BestTracker(self._best_name, self._mode) if self._best_name else None
        self._save_seconds, self._preemption_handled, self._single_worker = 0.0, False, True
        self._warnings_shown: set[str] = set()
        self._run: Run | None = None
        self._recorder: Recorder | None = None
        self._metrics: MetricLog | None = None
        self._throughput = Throughput()
        self._offset: int | None = None
        self._live_names: set[str] = set()
        self._epoch = self._before = self._done = self._last_told = 0
        self._epoch_began = self._batch_ended = self._last_time = 0.0
        self.model: Any = None
        self.params: Mapping[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> MetricsCallback:
        """Copy the options and the run, whose connection can't be copied, but nothing of earlier fits."""
        memo[id(self)] = fresh = copy.copy(self)
        fresh._reset()  # noqa: SLF001 - an object of this class
        for name in vars(self).keys() - vars(MetricsCallback()).keys():  # attributes of a subclass
            setattr(fresh, name, copy.deepcopy(getattr(self, name), memo))
        return fresh

    def __getattr__(self, name: str) -> Any:
        """Return a no-op for Keras's other hooks."""
        if name.startswith("on_"):
            return _do_nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def set_model(self, model: Any) -> None:
        """Keep the model whose ``fit`` calls this callback."""
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Keep the parameters of the ``fit``, which include the number of epochs."""
        self.params = params or {}

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Find the run to log to."""
        trial = tuner_trial()
        self._set_prefix(self._prefix_option if trial is None else f"{self._prefix_option}trial_{trial}/")
        self._run = self._recorder = self._metrics = None
        run = run_of_callback(self._run_option, "MetricsCallback", "Call fit()")
        if run is not None and recorder_of(run).recording:  # a worker that only takes part in saving, too
            self._run, self._recorder = run, recorder_of(run)
            self._metrics = self._recorder.metrics
        self._single_worker = role().source is None
        self._offset, self._preemption_handled, self._epoch = None, False, 0
        if self._best is not None:
            self._best.begin_fit()

    @hook
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Compute the epoch's step in the run."""
        step_offsets = self._metrics.step_offsets  # type: ignore[union-attr] # see hook()
        if self._offset is None:  # first epoch; a fit from initial_epoch continues at that epoch
            self._offset = max(0, step_offsets.get(self._prefix, 0) - epoch)
            self._throughput = Throughput(int(self.params.get("epochs") or 0) - epoch or None)
            params = fit_params(self.model, self.params, self._batch_size, self._prefix)
            self._recorder.params.log_missing(params)  # type: ignore[union-attr] # see hook()
            history = getattr(self.model, "history", None)
            log = self._recorder.fits  # type: ignore[union-attr] # see hook()
            if getattr(history, "epoch", None) in (None, []):  # else the History is an earlier fit's
                self._live_names = mark_logged_live(history, self._offset, self._prefix, log)
        self._epoch = epoch + self._offset
        self._before = self._last_told = step_offsets.get(self._batches, 0)
        self._done = 0
        self._epoch_began = self._batch_ended = self._last_time = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Check for preemption; Keras calls this hook on the training's own thread."""
        if self._run is not None and self._run.preempted and not self._preemption_handled:
            self._save_on_preemption(None)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Log a batch when one is due."""
        points = self._metrics
        if points is None:
            return
        # hook() inlined: after each training step the CPU caches hold the framework's data, so a function
        # call takes a microsecond.
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
        """Log an epoch, and the model when it is due."""
        now = time.monotonic()
        step = self._epoch
        self._metrics.step_offsets[self._prefix] = step + 1  # type: ignore[union-attr] # see hook()
        metrics = {**(logs or {}), **learning_rates(self.model), "epoch_seconds": now - self._epoch_began}
        if self._done and self._batch_ended > self._epoch_began:
            metrics["batches_per_second"] = self._done / (self._batch_ended - self._epoch_began)
            if self._batch_size:
                metrics["samples_per_second"] = metrics["batches_per_second"] * self._batch_size
        self._throughput.advance(1)
        metrics |= self._throughput.time_left()
        values = {f"{self._prefix}{name}": value for name, value in metrics.items()}
        record: Metrics | None = None
        try:
            record = self._metrics.log(values, step)  # type: ignore[union-attr] # see hook()
            self._live_names.update(metrics)
        finally:  # a diverged model is also saved, if requested
            if self._checkpoint_every and (step + 1) % self._checkpoint_every == 0:
                self._save("checkpoint", record, background=True)
            if record is not None and self._is_best(record):
                self._save("best", record, background=True)
            if self._run is not None and self._run.preempted and not self._preemption_handled:
                self._save_on_preemption(record)

    @hook
    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's
        """Write pending metrics to the journal."""
        self._metrics.flush_pending()  # type: ignore[union-attr] # see hook()
        self._warn_once(self._best.missed_for(1) if self._best else None)

    def _implements_train_batch_hooks(self) -> bool:
        """Answer Keras 2, which asks whether to call the batch hooks."""
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
        self._warn_once(self._best.missed_for())
        return is_best

    @hook
    def _save_on_preemption(self, record: Metrics | None) -> None:
        """Save the model before the process is ended, if there is time."""
        self._preemption_handled = True
        if self._recorder is None:
            return
        self._recorder.metrics.flush_pending()
        save_seconds = max(self._save_seconds, self._recorder.models.seconds)
        # Several workers would have to save together.
        if self._single_worker and save_seconds < self._grace / 3:
            self._save("preempted", record, background=False)

    def _save(self, name: str, record: Metrics | None, *, background: bool) -> None:
        if self._run is None:
            return
        began = time.monotonic()
        if sync := getattr(self.model, "jax_state_sync", None):  # within an epoch the weights are elsewhere
            sync()
        model_name = f"{self._prefix.rstrip('/')}_{name}".lstrip("_").replace("/", "_")
        options: dict[str, Any] = {"background": background, "checkpoint": True}
        self._run.log_model(self.model, model_name, step=self._epoch, metrics=record, **options)
        self._save_seconds = time.monotonic() - began

    def _failed(self, hook: str, error: Exception) -> None:
        if not isinstance(error, Diverged):
            self._warn_once(
                f"{hook}() of MetricsCallback failed, and training goes on: {describe_error(error)}"
            )
            return
        if not self.model.stop_training:
            self._warn_once(f"fit() was asked to stop: {error}")
        self.model.stop_training = True

    def _warn_once(self, message: str | None) -> None:
        """Warn once: a training makes the same mistake at every step."""
        if message and message not in self._warnings_shown:
            self._warnings_shown.add(message)
            warn(message)


def _do_nothing(*_: Any, **__: Any) -> None:
    """Do nothing, as a hook."""
