"""Live metrics from an Estimator's training; importing it requires ``tf.estimator``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mlwrap._recording.metrics.metric_log import MetricLog
from mlwrap._run.callback_run import run_of_callback
from mlwrap._run.run import Run, check_run, recorder_of
from mlwrap.errors import Diverged, OptionError, describe_error, warn

__all__ = ["MetricsHook"]

if not hasattr(tf, "estimator"):
    raise ImportError(
        f"mlwrap.estimator needs tf.estimator, which left TensorFlow in 2.16; this is {tf.__version__}. "
        "For Keras models there is mlwrap.keras.MetricsCallback, for loops of your own run.log_metrics()."
    )


class MetricsHook(tf.estimator.SessionRunHook):  # type: ignore[misc] # TensorFlow has no types
    """Logs an Estimator's training while it runs: ``estimator.train(input_fn, hooks=[MetricsHook()])``.

    The step is TensorFlow's global step. A data point also in the Estimator's event files counts once.

    Args:
        run: The run to log to; by default the current one.
        every: Number of steps after which to log, default 100.
        tensors: Metric names and the tensors to log beside ``loss``: tensors of the graph, or their names.

    Raises:
        OptionError: ``run`` is not a run, or ``every`` is not a number of steps.
    """

    def __init__(
        self, run: Run | None = None, *, every: int = 100, tensors: Mapping[str, Any] | None = None
    ) -> None:
        check_run(run)
        if type(every) is not int or every < 1:
            raise OptionError(f"every={every!r} can't be used: expected a number of steps, 1 or more.")
        self._run_option = run
        self._every = every
        self._tensors = dict(tensors or {})
        self._metrics: MetricLog | None = None
        self._requested: dict[str, Any] = {}
        self._global_step: Any = None
        self._step = 0  # estimated between two reads of the global step
        self._last_logged: int | None = None  # step
        self._logs_this_step = True

    def begin(self) -> None:
        """Find the run, and the tensors in the graph."""
        run = run_of_callback(self._run_option, "MetricsHook", "Train")
        self._metrics = recorder_of(run).metrics if run is not None and run.recording else None
        self._last_logged = None
        self._global_step = tf.compat.v1.train.get_global_step()
        losses = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        self._requested = {"loss": losses[-1]} if losses else {}  # the last is the EstimatorSpec's own
        graph = tf.compat.v1.get_default_graph()
        for name, tensor in self._tensors.items():
            try:
                self._requested[name] = graph.as_graph_element(tensor)
            except (KeyError, ValueError, TypeError) as error:
                warn(f"MetricsHook does not log {name!r}, which is not in the graph: {describe_error(error)}")

    def before_run(self, run_context: Any) -> Any:  # noqa: ARG002 - TensorFlow's
        """Request the global step, and the tensors if this step is logged."""
        if self._metrics is None:
            return None
        self._logs_this_step = self._last_logged is None or self._step + 1 - self._last_logged >= self._every
        requested_tensors = self._requested if self._logs_this_step else {}
        return tf.estimator.SessionRunArgs({"step": self._global_step, "values": requested_tensors})

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Log the tensors with the step that they belong to."""
        if self._metrics is None:
            return
        try:
            # The returned step was read before or after its increment, depending on TensorFlow's threads. So
            # it is read again for logging; in between, each call counts as one step.
            self._step = max(self._step + 1, int(run_values.results["step"]))
            if self._logs_this_step:
                self._step = int(run_context.session.run(self._global_step))
                if self._last_logged is None or self._step - self._last_logged >= self._every:
                    self._last_logged = self._step
                    self._metrics.log(run_values.results["values"], self._step)
        except Diverged as error:
            warn(f"The training was asked to stop: {error}")
            run_context.request_stop()
        except Exception as error:  # noqa: BLE001 - an error in mlwrap must not end the training
            self._metrics = None
            warn(f"MetricsHook failed and logs no more, and training goes on: {describe_error(error)}")

    def end(self, session: Any) -> None:  # noqa: ARG002 - TensorFlow's
        """Write pending metrics to the journal."""
        if self._metrics is None:
            return
        try:
            self._metrics.flush_pending()
        except Exception as error:  # noqa: BLE001 - an error in mlwrap must not end the training
            warn(f"MetricsHook could not log what still waited: {describe_error(error)}")
