"""Live metrics from an Estimator's training; can be imported where there is a ``tf.estimator``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mlwrap._recording.metrics.metric_log import MetricLog
from mlwrap._run.run import Run, check_run, current_run
from mlwrap.errors import Diverged, OptionError, describe_error, warn

__all__ = ["MetricsHook"]

if not hasattr(tf, "estimator"):
    raise ImportError(
        f"mlwrap.estimator needs tf.estimator, which left TensorFlow in 2.16; this is {tf.__version__}. "
        "For Keras models there is mlwrap.keras.MetricsCallback, for loops of your own run.log_metrics()."
    )


class MetricsHook(tf.estimator.SessionRunHook):  # type: ignore[misc] # TensorFlow has no types
    """Logs an Estimator's training while it runs: ``estimator.train(input_fn, hooks=[MetricsHook()])``.

    The step is TensorFlow's global step. A point that the Estimator's event files have, too, counts once.

    Args:
        run: The run to log to; by default the one around the training.
        every: Log after every so many steps.
        tensors: Metric names to what is logged beside ``loss``: tensors of the graph, or their names.

    Raises:
        OptionError: ``run`` is no run, or ``every`` no number of steps.
    """

    def __init__(
        self, run: Run | None = None, *, every: int = 100, tensors: Mapping[str, Any] | None = None
    ) -> None:
        check_run(run)
        if type(every) is not int or every < 1:
            raise OptionError(f"every={every!r} can't be used: expected a number of steps, 1 or more.")
        self._given = run
        self._every = every
        self._tensors = dict(tensors or {})
        self._points: MetricLog | None = None
        self._asked: dict[str, Any] = {}
        self._global_step: Any = None
        self._step = 0  # as far as it is known
        self._last: int | None = None  # the step that was logged last
        self._turn = True

    def begin(self) -> None:
        """Find the run, and the tensors in the graph."""
        run = self._given or current_run()
        self._points, self._last = None, None
        if run is None:
            warn(
                "MetricsHook is used outside a run, and logs nothing. Train within model_run() or a function "
                "with @tracked_training, or give it the run: MetricsHook(run)."
            )
        elif run.status != "RUNNING":
            warn(f"MetricsHook logs nothing, for run {run.name!r} has ended ({run.status}).")
        elif run.recording:
            self._points = run._recorder.metrics  # noqa: SLF001 - what a run is for us
        self._global_step = tf.compat.v1.train.get_global_step()
        losses = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.LOSSES)
        self._asked = {"loss": losses[-1]} if losses else {}  # the last is the EstimatorSpec's own
        graph = tf.compat.v1.get_default_graph()
        for name, tensor in self._tensors.items():
            try:
                self._asked[name] = graph.as_graph_element(tensor)
            except (KeyError, ValueError, TypeError) as error:
                warn(f"MetricsHook does not log {name!r}, which is not in the graph: {describe_error(error)}")

    def before_run(self, run_context: Any) -> Any:  # noqa: ARG002 - TensorFlow's
        """Ask for the step, and for the numbers if it is their turn."""
        if self._points is None:
            return None
        self._turn = self._last is None or self._step + 1 - self._last >= self._every
        asked = self._asked if self._turn else {}
        return tf.estimator.SessionRunArgs({"step": self._global_step, "values": asked})

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Log them, at the step that this was."""
        if self._points is None:
            return
        try:
            # What came along was read before the step was counted or after it, as TensorFlow's threads
            # went. Where it matters, the step is read again; in between, a call is a step.
            self._step = max(self._step + 1, int(run_values.results["step"]))
            if self._turn:
                self._step = int(run_context.session.run(self._global_step))
                if self._last is None or self._step - self._last >= self._every:
                    self._last = self._step
                    self._points.log(run_values.results["values"], self._step)
        except Diverged as error:
            warn(f"The training was asked to stop: {error}")
            run_context.request_stop()
        except Exception as error:  # noqa: BLE001 - nothing of ours may end the training
            self._points = None
            warn(f"MetricsHook failed and logs no more, and training goes on: {describe_error(error)}")

    def end(self, session: Any) -> None:  # noqa: ARG002 - TensorFlow's
        """Write down what still waits."""
        if self._points is None:
            return
        try:
            self._points.flush_pending()
        except Exception as error:  # noqa: BLE001 - nothing of ours may end the training
            warn(f"MetricsHook could not log what still waited: {describe_error(error)}")
