"""``Run``: what a training body holds, to say things of its run."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

from mlwrap._capture.flatten import params as capture_params
from mlwrap._journal.records import Metrics
from mlwrap._recording.logged_model import LoggedModel
from mlwrap._recording.recorder import Recorder
from mlwrap._returned.results import Output
from mlwrap._returned.unpack import unpack
from mlwrap._run.flush import RunDelivery
from mlwrap._run.internal_errors import handle_internal_errors
from mlwrap._run.known import RunInfo
from mlwrap._run.training import TrainingMethods
from mlwrap._savers import registry
from mlwrap._savers.figures import write_figure
from mlwrap._savers.history.fits import FitLog
from mlwrap._savers.per_model import per_model
from mlwrap._savers.saver import SaveOptions, Saver
from mlwrap.errors import Diverged, OptionError, SaveError, describe_error

_CLOCK_SKEW = 1.0  # seconds by which another file system's clock may be behind the spool's

current: ContextVar[Run | None] = ContextVar("mlwrap_current_run", default=None)


def current_run() -> Run | None:
    """The run around this code, or ``None``."""
    run = current.get()
    while run is not None and run.status != "RUNNING":  # ended out of order, as generators do, or elsewhere
        run = run.parent
    return run


def current_fits() -> FitLog | None:
    """What was seen of the fits of the current run."""
    run = current.get()
    return None if run is None else recorder_of(run).fits


def recorder_of(run: Run) -> Recorder:
    """Return the parts that record a run: metrics, parameters, models, fits."""
    return run._recorder  # noqa: SLF001 - the one door to a run's parts


def check_run(run: object) -> None:
    """Make sure that it is a run, or ``None``.

    Raises:
        OptionError: It is neither.
    """
    if run is not None and not isinstance(run, Run):
        raise OptionError(
            f"run={run!r} can't be used: expected a run, as model_run() and current_run() give."
        )


class Run(TrainingMethods, RunInfo):
    """What a training body holds: everything that can be said of it while it runs.

    Made by :func:`model_run` and by the decorator, not by hand. Its methods never end the training: what
    goes wrong in them, a wrong call among it, is said in a :class:`~mlwrap.errors.MlwrapWarning`. Called
    after the run has ended, those that log raise :class:`~mlwrap.errors.RunStateError`.

    Attributes:
        parent: The run that was open around this one, in the same thread or task, when it began.
    """

    def __init__(
        self, recorder: Recorder, parent: Run | None = None, delivery: RunDelivery | None = None
    ) -> None:
        self._recorder = recorder
        self._delivery = delivery
        self.parent = parent

    @property
    def around(self) -> Run | None:
        """Deprecated name of ``parent``."""
        warnings.warn("Run.around is deprecated: use Run.parent.", DeprecationWarning, stacklevel=2)
        return self.parent

    @handle_internal_errors
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters: nested values are flattened, secrets left out, long values cut and kept whole.

        MLflow never changes a parameter: a second, different value is logged as ``<name>.2``, with a warning.
        """
        self._recorder.params.log(capture_params(params, redactor=self._recorder.redactor))

    @handle_internal_errors
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values become text, without secrets."""
        self._recorder.tags(tags)

    @handle_internal_errors
    def log_artifact(self, path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Log a file or folder as it is now, under its own name, in the artifact folder ``artifact_path``."""
        self._recorder.artifacts.copy(Path(path), artifact_path)

    @handle_internal_errors
    def log_text(self, text: str, artifact_file: str) -> None:
        """Log text as the file ``artifact_file``, secrets left out."""
        self._recorder.artifacts.text(text, artifact_file)

    @handle_internal_errors
    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """Log a figure as the file ``artifact_file``, in the format that its ending names.

        Figures are those of matplotlib, plotly (``.html``; pictures need its kaleido), Altair and Bokeh
        (``.html``), images of Pillow, and whatever has a ``savefig``.
        """
        self._recorder.artifacts.file(artifact_file, functools.partial(write_figure, figure))

    @handle_internal_errors
    def log_model(
        self,
        model: Any,
        name: str | None = None,
        *,
        step: int = 0,
        metrics: Mapping[str, Any] | Metrics | None = None,
        serving_input_receiver_fn: Callable[[], Any] | None = None,
        trust: bool = False,
        input_example: Any = None,
        register_as: str | None = None,
        verify: Literal["static", "load"] | None = None,
        background: bool = False,
        checkpoint: bool = False,
    ) -> LoggedModel | None:
        """Save a model and log it.

        Args:
            model: Anything that a saver knows: see ``docs/reference/savers.md``.
            name: Its name in MLflow; by default that of its kind, such as ``keras_model``.
            step: The training step that it belongs to.
            metrics: Numbers that tell how good it is: logged at that step, and shown beside the model; by
                default the newest of each metric of the run, without those that tell how fast it went.
            serving_input_receiver_fn: For an Estimator: how it is fed when served; with it, a SavedModel is
                exported beside the checkpoint.
            trust: Whether a model may be pickled that has no safe format, as some frameworks' have none.
                Loading it needs ``trust=True``, too.
            input_example: What the model can be fed: an array, a mapping of names to arrays, a pandas frame
                or a list. It is stored as MLflow stores it, and tells the signature where the model does not.
            register_as: ``name`` or ``name@alias``: makes a version in MLflow's registry, and sets the alias.
            verify: ``"load"``: once it is logged a process of its own loads it, and with an
                ``input_example`` compares a prediction; the run's end waits for that. By default as the
                run was told, for a checkpoint ``"static"``.
            background: Where its framework allows it, return at once and save the model, as it is now, while
                the training goes on; the run's end waits for that. One of the same name that still waits to
                be saved then is left out. See ``docs/how-to/metrics-while-training.md``.
            checkpoint: It is a state on the way, as :class:`mlwrap.keras.MetricsCallback` logs them: neither
                ``run.model_uri`` nor ``load_model(run)`` means it where the run has any other model.

        Returns:
            The logged model; ``None`` where nothing is recorded, or no saver knows it (with a warning).

        Raises:
            SaveError: It, or one that was saved in the background before, could not be saved and the run is
                strict; carries the model.
        """
        saver = registry.find(model)
        if saver is None:
            kind = f"{type(model).__module__}.{type(model).__qualname__}"
            if isinstance(model, str | os.PathLike):
                kind = f"a model at {str(model)!r}, which is none or is not there"
            self._recorder.warn_unknown([("log_model()", kind)])
            return None
        name = str(name or saver.default_name)
        self._recorder.metrics.log_found(registry.training_metrics(saver, model), name)
        self._log_params_of(model, name, saver)
        options = self._save_options(
            serving_input_receiver_fn=serving_input_receiver_fn,
            trust=trust,
            input_example=input_example,
            register_as=register_as,
            verify=verify or ("static" if checkpoint else self._recorder.verify),
        )
        (options,), troubles = per_model(options, [name])
        for trouble in troubles:
            self._recorder.warn(trouble)
        if metrics is not None and not isinstance(metrics, Metrics):
            metrics = self._recorder.metrics.log(metrics, step)
        return self._recorder.save_model(
            model,
            name,
            saver,
            options,
            step=int(step),
            metrics=metrics,
            background=background,
            checkpoint=checkpoint,
        )

    @handle_internal_errors
    def record(
        self,
        value: Any,
        *,
        serving_input_receiver_fn: Callable[[], Any] | None = None,
        trust: bool = False,
        input_example: Any = None,
        register_as: str | Mapping[str, str] | None = None,
        verify: Literal["static", "load"] | None = None,
    ) -> None:
        """Do for any value what the decorator does for a returned one: log what is in it.

        What becomes of what is told in ``docs/reference/savers.md``. One thing that can't be logged costs a
        warning, and none of the others.

        Args:
            value: A model, ``(model, history)``, a dict of models, numbers, tables and figures, …; ``None``
                is nothing.
            serving_input_receiver_fn: As for :meth:`log_model`.
            trust: Likewise.
            input_example: Likewise; for several models, a mapping of their names to examples.
            register_as: Likewise; for several models, a mapping of their names to those in the registry.
            verify: As for :meth:`log_model`.

        Raises:
            SaveError: A model could not be saved and the run is strict; carries ``value``.
        """
        recorder, failed = self._recorder, None
        began = recorder.folder.began() / 1e9 - _CLOCK_SKEW
        found = unpack(value, since=began, fits=recorder.fits)
        recorder.metrics.log_found(found.metrics)
        if found.tags:
            recorder.tags(found.tags)
        for output in found.outputs:
            self._write(output)
        asked = self._save_options(
            serving_input_receiver_fn=serving_input_receiver_fn,
            trust=trust,
            input_example=input_example,
            register_as=register_as,
            verify=verify or self._recorder.verify,
        )
        each, troubles = per_model(asked, [name for name, _, _ in found.models])
        for trouble in troubles:
            recorder.warn(trouble)
        if found.models:
            with contextlib.suppress(Diverged):  # what has come back was trained already
                recorder.metrics.flush_pending()  # for it carries the newest metrics
        call, names = recorder.models.next_call(), {name for name, _, _ in found.models}
        for (name, model, saver), options in zip(found.models, each, strict=True):
            self._log_params_of(model, name, saver)
            try:
                recorder.save_model(model, name, saver, options, call=call, others=names - {name})
            except SaveError as error:
                failed = failed or error
        if found.unknown:
            recorder.warn_unknown(found.unknown)
        if failed is not None:
            failed.value = value
            raise failed

    def _write(self, output: Output) -> None:
        path, content = output
        try:
            if isinstance(content, str):
                self._recorder.artifacts.text(content, path)
            else:
                self._recorder.artifacts.file(path, content)
        except Exception as error:  # noqa: BLE001 - one result that can't be written costs no other
            self._recorder.warn(f"{path!r} is not logged: {describe_error(error)}")

    def _save_options(self, **asked: Any) -> SaveOptions:
        """Options that there are not cost a warning and not the model."""
        try:
            return SaveOptions(**asked)
        except OptionError as error:
            self._recorder.warn(f"{error} The model is logged without that.")
            return SaveOptions(**{k: v for k, v in asked.items() if k not in {"register_as", "verify"}})

    @handle_internal_errors
    def _log_params_of(self, model: Any, name: str, saver: Saver) -> None:
        """Log the parameters that a model was made with, where its saver tells them."""
        tell = getattr(saver, "params", None)
        if tell is not None and (params := tell(model)):
            own = "params" if name == saver.default_name else f"{name}.params"
            self._recorder.params.log(capture_params({own: params}, redactor=self._recorder.redactor))
