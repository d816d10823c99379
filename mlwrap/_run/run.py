"""``Run``: the object with which a training function logs to its run."""

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
from mlwrap._run.run_info import RunInfo
from mlwrap._run.training_methods import TrainingMethods
from mlwrap._savers import saver_registry
from mlwrap._savers.figures import write_figure
from mlwrap._savers.history.fits import FitLog
from mlwrap._savers.options_per_model import per_model
from mlwrap._savers.saver_interface import SaveOptions, Saver
from mlwrap.errors import Diverged, OptionError, SaveError, describe_error

_CLOCK_SKEW = 1.0  # seconds by which another file system's clock may be behind the spool's

current: ContextVar[Run | None] = ContextVar("mlwrap_current_run", default=None)


def current_run() -> Run | None:
    """Return the innermost open run that contains this code; ``None`` outside of runs."""
    run = current.get()
    # Ended out of order, as in generators, or by another thread.
    while run is not None and run.status != "RUNNING":
        run = run.parent
    return run


def current_fits() -> FitLog | None:
    """Return the log of the current run's fits."""
    run = current.get()
    return None if run is None else recorder_of(run).fits


def recorder_of(run: Run) -> Recorder:
    """Return the parts that record a run: metrics, parameters, models, fits."""
    return run._recorder  # noqa: SLF001 - the one door to a run's parts


def check_run(run: object) -> None:
    """Check that ``run`` is a run or ``None``.

    Raises:
        OptionError: It is neither.
    """
    if run is not None and not isinstance(run, Run):
        raise OptionError(
            f"run={run!r} can't be used: expected a run, as model_run() and current_run() give."
        )


class Run(TrainingMethods, RunInfo):
    """A run: log parameters, metrics, artifacts, tags and models to it while it is open.

    :func:`model_run` and the decorator create it; do not create one yourself. Its methods never end the
    training: an error in them, also a wrong call, becomes a :class:`~mlwrap.errors.MlwrapWarning`. After the
    run has ended, the methods that log raise :class:`~mlwrap.errors.RunStateError`.

    Attributes:
        parent: The run that was open in the same thread or task when this one began; ``None`` without one.
    """

    def __init__(
        self, recorder: Recorder, parent: Run | None = None, delivery: RunDelivery | None = None
    ) -> None:
        self._recorder = recorder
        self._delivery = delivery
        self.parent = parent

    @property
    def around(self) -> Run | None:
        """Return ``parent``; deprecated name."""
        warnings.warn("Run.around is deprecated: use Run.parent.", DeprecationWarning, stacklevel=2)
        return self.parent

    @handle_internal_errors
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters.

        Nested values are flattened, and secrets are removed. Values that are too long for MLflow are
        truncated; their full text is in the artifact ``params.json``. MLflow never changes a parameter: a
        second, different value is logged as ``<name>.2``, with a warning.
        """
        self._recorder.params.log(capture_params(params, redactor=self._recorder.redactor))

    @handle_internal_errors
    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values are converted to text, and secrets are removed."""
        self._recorder.tags(tags)

    @handle_internal_errors
    def log_artifact(self, path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Log a copy of a file or folder, under its own name, in the artifact folder ``artifact_path``."""
        self._recorder.artifacts.copy(Path(path), artifact_path)

    @handle_internal_errors
    def log_text(self, text: str, artifact_file: str) -> None:
        """Log text as the file ``artifact_file``; secrets are removed."""
        self._recorder.artifacts.text(text, artifact_file)

    @handle_internal_errors
    def log_figure(self, figure: Any, artifact_file: str) -> None:
        """Log a figure as the file ``artifact_file``, in the format of its suffix.

        Supported are figures of matplotlib, plotly (``.html``; images need the package kaleido), Altair and
        Bokeh (``.html``), images of Pillow, and any object with a method ``savefig``.
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
            model: A model of any supported kind: see ``docs/reference/savers.md``.
            name: The model's name in MLflow; by default that of its kind, such as ``keras_model``.
            step: The training step that the model belongs to; by default 0.
            metrics: Metrics of the model, name to number, logged at that step and shown with the model. By
                default the newest value of each metric of the run, without those of training speed.
            serving_input_receiver_fn: For an Estimator: builds the inputs for serving; with it, a SavedModel
                is exported in addition to the checkpoint.
            trust: Whether the model may be pickled if its framework has no safe format. Loading it then needs
                ``trust=True``, too.
            input_example: An example input: an array, a mapping of names to arrays, a pandas frame or a list.
                It is stored in MLflow's format, and gives the signature if the model has none.
            register_as: ``name`` or ``name@alias``: creates a version in MLflow's registry, with the alias.
            verify: With ``"load"``, a separate process loads the logged model, and with an ``input_example``
                compares a prediction; the end of the run waits for that. The default is the run's own
                setting; for a checkpoint it is ``"static"``.
            background: If the framework allows it, return at once and save the model's present state while
                the training continues; the end of the run waits for that. A newer model replaces one of the
                same name that still waits to be saved. See ``docs/how-to/metrics-while-training.md``.
            checkpoint: Whether the model is an intermediate state, as :class:`mlwrap.keras.MetricsCallback`
                logs them. ``run.model_uri`` and ``load_model(run)`` never mean a checkpoint if the run has
                any other model.

        Returns:
            The logged model; ``None`` if nothing is recorded, or, with a warning, if no saver knows it.

        Raises:
            SaveError: The run is strict, and this model, or an earlier one that was saved in the background,
                could not be saved; carries the model.
        """
        saver = saver_registry.find(model)
        if saver is None:
            kind = f"{type(model).__module__}.{type(model).__qualname__}"
            if isinstance(model, str | os.PathLike):
                kind = f"a model at {str(model)!r}, which is none or is not there"
            self._recorder.warn_unknown([("log_model()", kind)])
            return None
        name = str(name or saver.default_name)
        self._recorder.metrics.log_found(saver_registry.training_metrics(saver, model), name)
        self._log_params_of(model, name, saver)
        options = self._save_options(
            serving_input_receiver_fn=serving_input_receiver_fn,
            trust=trust,
            input_example=input_example,
            register_as=register_as,
            verify=verify or ("static" if checkpoint else self._recorder.verify),
        )
        (options,), problems = per_model(options, [name])
        for problem in problems:
            self._recorder.warn(problem)
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
        """Log everything in a value, as the decorator does with a returned value.

        ``docs/reference/savers.md`` lists what is logged as what. An item that can't be logged causes a
        warning; all other items are logged.

        Args:
            value: A model, ``(model, history)``, a dict of models, numbers, tables and figures, …; for
                ``None`` nothing is logged.
            serving_input_receiver_fn: As in :meth:`log_model`.
            trust: As in :meth:`log_model`.
            input_example: As in :meth:`log_model`; for several models, a mapping of their names to examples.
            register_as: As in :meth:`log_model`; for several models, a mapping of their names to such names.
            verify: As in :meth:`log_model`.

        Raises:
            SaveError: The run is strict, and a model could not be saved; carries ``value``.
        """
        recorder, failed = self._recorder, None
        began = recorder.folder.began() / 1e9 - _CLOCK_SKEW
        unpacked = unpack(value, since=began, fits=recorder.fits)
        recorder.metrics.log_found(unpacked.metrics)
        if unpacked.tags:
            recorder.tags(unpacked.tags)
        for output in unpacked.outputs:
            self._write(output)
        save_options = self._save_options(
            serving_input_receiver_fn=serving_input_receiver_fn,
            trust=trust,
            input_example=input_example,
            register_as=register_as,
            verify=verify or self._recorder.verify,
        )
        options_by_model, problems = per_model(save_options, [name for name, _, _ in unpacked.models])
        for problem in problems:
            recorder.warn(problem)
        if unpacked.models:
            with contextlib.suppress(Diverged):  # the training is over already
                recorder.metrics.flush_pending()  # each model gets the newest metrics
        call, names = recorder.models.next_call(), {name for name, _, _ in unpacked.models}
        for (name, model, saver), options in zip(unpacked.models, options_by_model, strict=True):
            self._log_params_of(model, name, saver)
            try:
                recorder.save_model(model, name, saver, options, call=call, others=names - {name})
            except SaveError as error:
                failed = failed or error
        if unpacked.unknown:
            recorder.warn_unknown(unpacked.unknown)
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
        except Exception as error:  # noqa: BLE001 - the other results are still written
            self._recorder.warn(f"{path!r} is not logged: {describe_error(error)}")

    def _save_options(self, **options: Any) -> SaveOptions:
        """Return the options for saving; if one is wrong, warn and log the model without it."""
        try:
            return SaveOptions(**options)
        except OptionError as error:
            self._recorder.warn(f"{error} The model is logged without that.")
            return SaveOptions(
                **{
                    option: value
                    for option, value in options.items()
                    if option not in {"register_as", "verify"}
                }
            )

    @handle_internal_errors
    def _log_params_of(self, model: Any, name: str, saver: Saver) -> None:
        """Log the parameters that a model was created with, if its saver provides them."""
        read_params = getattr(saver, "params", None)
        if read_params is not None and (params := read_params(model)):
            prefix = "params" if name == saver.default_name else f"{name}.params"
            self._recorder.params.log(capture_params({prefix: params}, redactor=self._recorder.redactor))
