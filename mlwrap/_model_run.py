"""A run's life from start to end: ``model_run``, which the decorator is, too."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from contextvars import Token
from pathlib import Path
from types import TracebackType
from typing import Any

from mlwrap import _lifetime, _report
from mlwrap._capture import Captured, Redactor, destination, provenance
from mlwrap._capture import params as capture_params
from mlwrap._delivery import Line, deliver
from mlwrap._journal import RunFolder, RunStarted, Status, spool_root
from mlwrap._recorder import Recorder, now
from mlwrap._run import Run, current
from mlwrap.config import Settings, check_type, settings
from mlwrap.errors import DeliveryError, JournalError, RunStateError, told


def model_run(
    name: str = "run",
    *,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    **options: Any,
) -> RunContext:
    """Track what happens inside a ``with`` block as an MLflow run.

    Args:
        name: The run's name in MLflow.
        params: Parameters to log at the start; nested values are flattened.
        tags: Tags for MLflow.
        **options: Any of :class:`mlwrap.config.Settings`, for this run alone: ``experiment``,
            ``tracking_uri``, ``delivery``, ``spool``, ``strict``, ``quiet``, ``disabled``.

    Returns:
        A context manager; entering it starts the run and gives the :class:`Run`.

    Raises:
        OptionError: An option that there is not, or one of the wrong type.
        SpoolError: On entering: the spool can't be written.
    """
    check_type("name", name, str)
    for option, value in (("params", params), ("tags", tags)):
        if value is not None:
            check_type(option, value, Mapping)
    given = dict(params or {})
    return RunContext(
        name,
        settings(**options),
        capture=lambda redactor: capture_params(given, redactor=redactor),
        tags=tags,
    )


class RunContext:
    """Starts a run when it is entered and ends it when it is left; the decorator's and ``model_run``'s.

    Args:
        name: The run's name in MLflow.
        chosen: The settings for this run.
        capture: Gives the parameters to log at the start, with a redactor to take secrets out.
        tags: Tags for MLflow.
        function: The function that is the run's body, if it is one.
    """

    def __init__(
        self,
        name: str,
        chosen: Settings,
        *,
        capture: Callable[[Redactor], Captured],
        tags: Mapping[str, Any] | None = None,
        function: Callable[..., Any] | None = None,
    ) -> None:
        self._recorder = Recorder(name, strict=chosen.strict)
        self._settings = chosen
        self._capture = capture
        self._tags = tags or {}
        self._function = function
        self._token: Token[Run | None] | None = None
        self._delivering = False

    def __enter__(self) -> Run:
        """Start the run.

        Raises:
            SpoolError: The spool can't be written; nothing has started.
            RunStateError: It was entered before.
        """
        if self._token is not None:
            raise RunStateError("a model_run() can be entered once. Call model_run() again for another run.")
        run = Run(self._recorder)
        if not self._settings.disabled:
            self._start()
        self._token = current.set(run)
        if self._recorder.recording:
            self._write_params()
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as ``error`` says; the error goes on to the caller."""
        if self._token is not None:
            current.reset(self._token)
        status = self._status(error)
        if not self._recorder.recording:
            self._recorder.status = status
            return
        if (
            self._recorder.status != "RUNNING"
        ):  # one signal ended the run, and another the waiting for delivery
            _lifetime.closed(self)
            return
        try:
            self._close(status, error)
        finally:
            _lifetime.closed(self)
        self._deliver()

    def interrupted(self, signal_name: str) -> None:
        """A signal came that a handler of the user's deals with."""
        self._recorder.signal = signal_name

    def cut_short(self, signal_name: str) -> None:
        """A signal came that ends the process: close the run while there is time."""
        if not self._delivering:  # else the run has ended, and what is not delivered yet waits in the spool
            self._recorder.signal = signal_name
            self._recorder.abandon_all(f"cut short by {signal_name}")
            self._close("KILLED", None)
            self._deliver()

    def _start(self) -> None:
        recorder, where = self._recorder, destination(self._settings)
        around = current.get()
        first = RunStarted(
            key=recorder.key,
            name=recorder.name,
            time=now(),
            tracking_uri=where.tracking_uri,
            experiment=where.experiment,
            experiment_id=where.experiment_id,
            parent_key=around.key if around is not None and around.recorded else None,
            parent_run_id=where.parent_run_id,
            folder=_working_folder(),
            offline=self._settings.delivery == "off",
            tags=provenance(self._function, recorder.redactor) | recorder.tag_texts(self._tags),
        )
        recorder.open(spool_root(self._settings.spool), first, line=self._settings.delivery == "sender")
        _lifetime.opened(self)
        if not self._settings.quiet:
            _report.started(recorder.name, where.experiment, where.tracking_uri)

    def _write_params(self) -> None:
        recorder = self._recorder
        try:
            recorder.params(self._capture(recorder.redactor))
        except Exception as error:  # noqa: BLE001 - nothing of ours may end the training
            recorder.warn(f"its parameters could not be written down, and training goes on: {told(error)}")

    def _status(self, error: BaseException | None) -> Status:
        if error is None:
            return "FINISHED"
        if isinstance(error, KeyboardInterrupt) or self._recorder.signal:
            return "KILLED"
        return "FINISHED" if isinstance(error, SystemExit) and error.code in {None, 0} else "FAILED"

    def _close(self, status: Status, error: BaseException | None) -> None:
        recorder = self._recorder
        tags = {"mlwrap.signal": recorder.signal} if recorder.signal else {}
        try:
            if error is not None and status != "FINISHED":
                tags |= {"mlwrap.error.type": type(error).__qualname__, "mlwrap.error.message": str(error)}
                recorder.text("".join(traceback.format_exception(error)), "traceback.txt")
            if tags:
                recorder.tags(tags)
        except Exception as failure:  # noqa: BLE001 - the user's own error goes before any of ours
            recorder.warn(f"why it ended could not be written down: {told(failure)}")
        finally:
            recorder.close(status, told(error) if error is not None else None)

    def _deliver(self) -> None:
        recorder, folder = self._recorder, self._recorder.journal.folder
        self._delivering = True
        try:
            if recorder.line is not None:
                self._wait(recorder.line)
            elif self._settings.delivery != "off":
                recorder.delivered(deliver(folder))
        except (DeliveryError, JournalError, OSError) as failure:
            recorder.warn(f"MLflow does not have all of it yet: {failure} {_waits(folder)}")
        finally:
            self._delivering = False
            recorder.release()
        if not self._settings.quiet:
            models = [(model.name, model.uri, model.status) for model in recorder.models.values()]
            _report.ended(
                recorder.name,
                status=recorder.status,
                seconds=recorder.seconds,
                run_id=recorder.run_id,
                models=models,
                folder=folder.path,
            )

    def _wait(self, line: Line) -> None:
        """Wait for the sender, which goes on without us if it takes too long."""
        told = line.wait(self._settings.deadline)
        if told is not None:
            self._recorder.delivered(told.progress)
        if told is None or not told.progress.ended:
            why = (told.error if told is not None else None) or "the sender is still at it."
            raise DeliveryError(why)


def _waits(folder: RunFolder) -> str:
    return f"It waits in {folder.path}; 'mlwrap sync' delivers it."


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it was removed
        return "/"
