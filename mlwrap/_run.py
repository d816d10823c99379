"""A run's life from start to end: ``model_run``, and the ``Run`` that its body holds."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from mlwrap import _lifetime, _report
from mlwrap._capture import destination, provenance
from mlwrap._delivery import deliver
from mlwrap._journal import RunStarted, Status, spool_root
from mlwrap._recorder import LoggedModel, Recorder, now, told
from mlwrap.config import Settings, check_type, settings
from mlwrap.errors import DeliveryError, JournalError, RunStateError, SaveError
from mlwrap.savers import SaveOptions, find_saver, unpack

__all__ = ["LoggedModel", "Run", "RunContext", "current_run", "model_run"]

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Run | None] = ContextVar("mlwrap_current_run", default=None)


def current_run() -> Run | None:
    """The run around this code, or ``None``."""
    return _current.get()


def _harmless(method: Callable[Concatenate[Run, P], R]) -> Callable[Concatenate[Run, P], R | None]:
    """What breaks in a method of ours must not end the user's training: it is said in a warning."""

    @functools.wraps(method)
    def call(self: Run, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        recorder = self._recorder
        if recorder.status != "RUNNING":
            raise RunStateError(
                f"{method.__name__}() was called on run {self.name!r}, which has ended ({recorder.status}). "
                "Call it while the run is open."
            )
        if not recorder.recording:
            return None
        try:
            return method(self, *args, **kwargs)
        except SaveError:
            raise  # only where the user asked for it with strict=True
        except Exception as error:  # noqa: BLE001 - see above
            recorder.warn(f"{method.__name__}() failed, and training goes on: {told(error)}")
            return None

    return call


class Run:
    """What a training body holds: everything that can be said of it while it runs.

    Made by :func:`model_run` and by the decorator, not by hand. Its methods never end the training: what
    goes wrong in them is said in a :class:`~mlwrap.errors.MlwrapWarning`. Called after the run has ended
    they raise :class:`~mlwrap.errors.RunStateError`.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self.status} {self.run_id or self.key}>"

    @property
    def name(self) -> str:
        """The run's name in MLflow."""
        return self._recorder.name

    @property
    def key(self) -> str:
        """The run's own id, known from the start; the tag ``mlwrap.key`` in MLflow."""
        return self._recorder.key

    @property
    def status(self) -> str:
        """``RUNNING``, then ``FINISHED``, ``FAILED`` or ``KILLED``."""
        return self._recorder.status

    @property
    def recording(self) -> bool:
        """Whether this run writes anything down: not when disabled, nor in a child made by ``fork``."""
        return self._recorder.recording

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, once MLflow has it."""
        return self._recorder.run_id

    @property
    def models(self) -> list[LoggedModel]:
        """The models logged so far, in their order."""
        return list(self._recorder.models.values())

    @property
    def model_uri(self) -> str | None:
        """URI of the first model, once MLflow has it."""
        return next((model.uri for model in self.models), None)

    @property
    def url(self) -> str | None:
        """The run's page in MLflow's user interface; ``None`` where no server shows one."""
        return self._recorder.url

    @_harmless
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters: nested values are flattened, secrets left out, long values cut and kept whole.

        MLflow never changes a parameter: a second, different value is logged as ``<name>.2``, with a warning.
        """
        self._recorder.params(params)

    @_harmless
    def log_metric(self, name: str, value: float, *, step: int = 0) -> None:
        """Log one metric, a number or what ``float()`` makes one of, at a step."""
        self._recorder.metrics({name: value}, step)

    @_harmless
    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log the metrics of one step: numbers, or what ``float()`` makes one of."""
        self._recorder.metrics(metrics, step)

    @_harmless
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values become text, without secrets."""
        self._recorder.tags(tags)

    @_harmless
    def log_artifact(self, path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Log a file or folder as it is now, under its own name, in the artifact folder ``artifact_path``."""
        self._recorder.copy(Path(path), artifact_path)

    @_harmless
    def log_text(self, text: str, artifact_file: str) -> None:
        """Log text as the file ``artifact_file``, secrets left out."""
        self._recorder.text(text, artifact_file)

    @_harmless
    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """Log a matplotlib figure as the file ``artifact_file``, in the format that its ending names."""
        self._recorder.file(artifact_file, figure.savefig)

    @_harmless
    def log_model(
        self,
        model: Any,
        name: str | None = None,
        *,
        step: int = 0,
        serving_input_receiver_fn: Callable[[], Any] | None = None,
    ) -> LoggedModel | None:
        """Save a model and log it.

        Args:
            model: Anything that a saver knows: see ``docs/reference/savers.md``.
            name: Its name in MLflow; by default that of its kind, such as ``keras_model``.
            step: The training step that it belongs to.
            serving_input_receiver_fn: For an Estimator: how it is fed when served; with it, a SavedModel is
                exported beside the checkpoint.

        Returns:
            The logged model; ``None`` where nothing is recorded, or no saver knows it (with a warning).

        Raises:
            SaveError: It could not be saved and the run is strict; carries ``model``.
        """
        saver = find_saver(model)
        if saver is None:
            self._recorder.unknown([("log_model()", f"{type(model).__module__}.{type(model).__qualname__}")])
            return None
        options = SaveOptions(serving_input_receiver_fn=serving_input_receiver_fn)
        return self._recorder.model(model, name or saver.default_name, saver, options, step)

    @_harmless
    def record(self, value: Any, *, serving_input_receiver_fn: Callable[[], Any] | None = None) -> None:
        """Do for any value what the decorator does for a returned one: log the models and metrics in it.

        Args:
            value: A model, ``(model, history)``, a dict of models and numbers, …; ``None`` is nothing.
            serving_input_receiver_fn: As for :meth:`log_model`.

        Raises:
            SaveError: A model could not be saved and the run is strict; carries ``value``.
        """
        options = SaveOptions(serving_input_receiver_fn=serving_input_receiver_fn)
        found = unpack(value)
        for record in found.metrics:
            self._recorder.append(record)
        try:
            for name, model, saver in found.models:
                self._recorder.model(model, name, saver, options)
        except SaveError as error:
            error.value = value
            raise
        if found.unknown:
            self._recorder.unknown(found.unknown)


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
    return RunContext(name, settings(**options), params=params, tags=tags)


class RunContext:
    """Starts a run when it is entered and ends it when it is left; the decorator's and ``model_run``'s.

    Args:
        name: The run's name in MLflow.
        chosen: The settings for this run.
        params: Parameters to log at the start.
        tags: Tags for MLflow.
        function: The function that is the run's body, if it is one.
    """

    def __init__(
        self,
        name: str,
        chosen: Settings,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        function: Callable[..., Any] | None = None,
    ) -> None:
        self._recorder = Recorder(name, strict=chosen.strict)
        self._settings = chosen
        self._params = params or {}
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
        self._token = _current.set(run)
        if self._params:
            run.log_params(self._params)
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as ``error`` says; the error goes on to the caller."""
        if self._token is not None:
            _current.reset(self._token)
        status = self._status(error)
        if not self._recorder.recording:
            self._recorder.status = status
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
        around = _current.get()
        first = RunStarted(
            key=recorder.key,
            name=recorder.name,
            time=now(),
            tracking_uri=where.tracking_uri,
            experiment=where.experiment,
            experiment_id=where.experiment_id,
            parent_key=around.key if around is not None and around.recording else None,
            parent_run_id=where.parent_run_id,
            folder=str(Path.cwd()),
            tags=provenance(self._function) | recorder.tag_texts(self._tags),
        )
        recorder.open(spool_root(self._settings.spool), first)
        _lifetime.opened(self)
        if not self._settings.quiet:
            _report.started(recorder.name, where.experiment, where.tracking_uri)

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
        if self._settings.delivery == "inline":
            self._delivering = True
            try:
                recorder.delivered(deliver(folder))
            except (DeliveryError, JournalError, OSError) as failure:
                recorder.warn(
                    f"it could not be delivered and waits in {folder.path}; 'mlwrap sync' delivers it. "
                    f"{told(failure)}"
                )
            finally:
                self._delivering = False
        if not self._settings.quiet:
            _report.ended(recorder, folder.path)
