"""Start, end and deliver a run: the context manager behind ``model_run`` and the decorator."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal

from mlwrap._capture.flatten import Captured
from mlwrap._capture.redact import Redactor
from mlwrap._journal.records import RunStarted, now
from mlwrap._journal.tags import TagName
from mlwrap._process import shutdown
from mlwrap._process.mlflow_settings import current_directory
from mlwrap._process.outcome import Outcome, outcome_of
from mlwrap._process.provenance import provenance
from mlwrap._process.run_in_thread import run_in_thread
from mlwrap._process.system_metrics_settings import system_metrics
from mlwrap._process.workers import Role, role
from mlwrap._recording.recorder import Recorder
from mlwrap._run import console
from mlwrap._run.flush import RunDelivery
from mlwrap._run.mlflow_active_run import ActiveRunBridge
from mlwrap._run.parent_run import existing_run, export_parent, parent_in_context, resolve_destination
from mlwrap._run.run import Run, current, current_fits, current_run
from mlwrap._savers.history.fits import watch_fits
from mlwrap._spool.spool import spool_root
from mlwrap.config import Settings
from mlwrap.errors import RunStateError, describe_error


class RunContext:
    """Context manager that starts a run when it is entered and ends the run when it is left.

    Args:
        name: The run's name in MLflow.
        chosen: The settings for this run.
        capture: Returns the parameters to log at the start; receives a redactor that removes secrets.
        tags: Tags for MLflow.
        function: The training function, if the decorator opens the run.
        run_id: MLflow's id of an existing run to continue.
        own_experiment: Whether the call itself names the experiment.
        verify: How the run's models are verified; see :func:`model_run`.
    """

    def __init__(
        self,
        name: str,
        chosen: Settings,
        *,
        capture: Callable[[Redactor], Captured],
        tags: Mapping[str, Any] | None = None,
        function: Callable[..., Any] | None = None,
        run_id: str | None = None,
        own_experiment: bool = True,
        verify: Literal["static", "load"] = "static",
    ) -> None:
        self._recorder = Recorder(name, strict=chosen.strict, nonfinite=chosen.nonfinite)
        self._recorder.verify = verify
        self._settings = chosen
        self._capture = capture
        self._tags, self._function = tags or {}, function
        self._run_id, self._has_own_experiment = run_id, own_experiment
        self._entered = False
        self._offline = chosen.delivery == "off"
        warning = chosen.preemption_signal
        self._preemption_signal = None if warning is None else shutdown.signal_number(warning)
        self._run: Run | None = None
        self._delivery = RunDelivery(self._recorder, wait=chosen.wait, deadline=chosen.deadline)
        self._is_delivering = False
        self._active_run_bridge: ActiveRunBridge | None = None
        self._exported = contextlib.ExitStack()
        self._on_end: Callable[[Recorder], None] | None = None

    def __enter__(self) -> Run:
        """Start the run.

        Raises:
            SpoolError: The spool can't be written; the run has not started.
            RunStateError: This context manager was entered before.
        """
        if self._entered:
            raise RunStateError("a model_run() can be entered once. Call model_run() again for another run.")
        self._entered = True
        self._began = time.monotonic()
        try:
            if not self._settings.disabled:
                self._start()
                watch_fits(current_fits)
            run = self._run = Run(self._recorder, current_run(), self._delivery)
            current.set(run)
        except BaseException as error:  # also Ctrl-C: close what was opened
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run with the status that ``error`` implies; the error propagates to the caller."""
        unsaved = self._recorder.finish_saves(error)
        if self._end(error or unsaved):
            self._deliver()
        if unsaved is not None:
            raise unsaved

    async def __aenter__(self) -> Run:
        """Start the run; see :meth:`__enter__`."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run; other tasks continue while it waits for delivery. See :meth:`__exit__`."""
        unsaved = None
        try:
            if self._recorder.is_saving:
                await run_in_thread(self._recorder.models.wait, error)
        except BaseException as cancelled:  # noqa: BLE001 - raised below, after the run is closed
            self._recorder.models.abandon_all(f"cut short by {describe_error(cancelled)}")
            unsaved = cancelled
        unsaved = unsaved or self._recorder.finish_saves(error)
        if self._end(error or unsaved):
            if self._delivery.blocks:
                await run_in_thread(self._deliver, error)
            else:
                self._deliver()
        if unsaved is not None:
            raise unsaved

    def _end(self, error: BaseException | None) -> bool:
        """End the run, and return whether it is to be delivered now."""
        if self._run is not None and current.get() is self._run:
            current.set(self._run.parent)
        self._exported.close()
        outcome = outcome_of(error, self._recorder.signal)
        if not self._recorder.recording:
            self._recorder.status = outcome.status
            return False
        if self._recorder.status != "RUNNING":  # on_exit() closed it already
            shutdown.unlisten(self)
            return False
        try:
            if self._active_run_bridge is not None:
                self._active_run_bridge.leave(outcome.status)
            if self._on_end is not None:
                self._on_end(self._recorder)
            self._recorder.close(outcome)
        finally:
            shutdown.unlisten(self)
        return True

    def on_signal(self, signal_name: str) -> None:
        """Note a signal that the user's own handler deals with."""
        self._recorder.signal = signal_name

    def on_preemption(self, signal_name: str) -> None:
        """Note that the process will be ended soon; the training function reads ``run.preempted``."""
        self._recorder.preempted = True
        self._recorder.tags({TagName.PREEMPTED: signal_name})

    def on_exit(self, signal_name: str | None) -> None:
        """Close and deliver the run, because the process ends, by a signal or by itself."""
        # While it is delivered, the run has ended already, and the spool keeps what is not delivered yet.
        if not self._is_delivering:
            self._recorder.signal = signal_name
            self._recorder.models.abandon_all(f"cut short by {signal_name or 'the end of the process'}")
            self._recorder.close(Outcome("KILLED", signal=signal_name))
            self._deliver()

    def _start(self) -> None:
        worker = role() if self._settings.chief is None else Role(chief=self._settings.chief)
        recorder, run_id = self._recorder, self._run_id or existing_run()
        if not worker.chief and not worker.saves:
            recorder.run_id = run_id  # the chief's run, if the launcher sets one run id for all workers
            return
        parent_run = parent_in_context()
        destination, parent_key, parent_run_id = resolve_destination(
            self._settings, parent_run, run_id, own_experiment=self._has_own_experiment
        )
        tags = dict(self._tags)
        if parent_run is not None:
            self._offline = self._offline or parent_run.offline
            self._on_end = parent_run.on_end
            tags |= parent_run.tags
        # Before any text is written, so that the redactor knows the secrets in it.
        captured = self._captured()
        first = RunStarted(
            key=recorder.key,
            name=recorder.name,
            time=now(),
            tracking_uri=destination.tracking_uri,
            experiment=destination.experiment,
            experiment_id=destination.experiment_id,
            parent_key=parent_key,
            parent_run_id=parent_run_id,
            run_id=run_id,
            folder=str(current_directory()),
            offline=self._offline,
            tags=provenance(self._function, recorder.redactor) | recorder.tag_texts(tags),
            thin_after=self._settings.thin_after,
            system_metrics=system_metrics(self._settings),
        )
        has_sender = self._settings.delivery == "sender" and not self._offline and worker.chief
        recorder.open(
            spool_root(self._settings.spool),
            first,
            linger=self._settings.linger if has_sender else None,
            is_discarded=not worker.chief,
        )
        shutdown.listen(self, self._preemption_signal)
        if not worker.chief:
            return
        self._exported.enter_context(export_parent(recorder.folder))
        if captured is not None:
            self._write_params(captured)
        if not self._offline:
            self._active_run_bridge = ActiveRunBridge(recorder, self._delivery, first.tracking_uri)
        if not self._settings.quiet:
            console.started(
                recorder.name,
                destination.experiment or destination.experiment_id,
                destination.tracking_uri,
                run_id,
            )

    def _captured(self) -> Captured | None:
        try:
            return self._capture(self._recorder.redactor)
        except Exception as error:  # noqa: BLE001 - an error of mlwrap's may not end the training
            self._recorder.warn(
                f"its parameters could not be read, and training goes on: {describe_error(error)}"
            )
            return None

    def _write_params(self, captured: Captured) -> None:
        try:
            self._recorder.params.log(captured)
        except Exception as error:  # noqa: BLE001 - as above
            self._recorder.warn(
                f"its parameters could not be written, and training goes on: {describe_error(error)}"
            )

    def _deliver(self) -> None:
        recorder, folder = self._recorder, self._recorder.folder
        if recorder.is_discarded:
            recorder.release()
            folder.remove()
            return
        self._is_delivering = True
        try:
            self._delivery.start()
        finally:
            self._is_delivering = False
        if not self._settings.quiet:
            models = [(m.label, m.uri, m.status, m.registered) for m in recorder.models.logged.values()]
            console.ended(
                recorder.name,
                status=recorder.status,
                seconds=time.monotonic() - self._began,
                run_id=recorder.run_id,
                models=models,
                folder=folder.path,
                delivering=self._delivery.is_deferred,
                lost=recorder.lost,
            )
