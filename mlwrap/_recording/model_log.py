"""Save and record the models of one run; a model that can't be saved is recorded as failed.

If its framework allows it, a snapshot of the model is saved while the training continues.
"""

from __future__ import annotations

import platform
import shutil
import threading
import time
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mlwrap._journal.records import Metrics, Model, now
from mlwrap._process.delivery_environment import search_path
from mlwrap._process.provenance import pins
from mlwrap._recording.background_work import BackgroundWork
from mlwrap._recording.logged_model import LoggedModel, plain_name
from mlwrap._recording.metrics.metric_log import MetricLog
from mlwrap._recording.metrics.throughput import is_speed
from mlwrap._recording.param_log import ParamLog
from mlwrap._recording.run_log import RunLog
from mlwrap._recording.staged_checksums import StageChecksums
from mlwrap._savers import saver_registry
from mlwrap._savers.input_example import keep_example
from mlwrap._savers.saver_interface import SaveOptions, Saver, naming
from mlwrap.errors import SaveError, describe_error

MAX_ERROR = 5000  # characters
MODEL_PARAMS = 100  # that MLflow accepts in the request that creates a model


class _Save(NamedTuple):
    """One save: the journal record, the saver with its options, and the folder for the files."""

    record: Model
    saver: Saver
    options: SaveOptions
    stage: Path


class ModelLog:
    """Saves the models of one run.

    Args:
        run: The run. It stops being ``ready`` when a background save fails, so that the failure is reported.
        params: The run's parameters; they are recorded with each model.
        metrics: The run's metrics; the newest values are recorded with each model.
        checksums: Computes the checksums of staged files.
        strict: Raise ``SaveError`` if a model can't be saved.
    """

    def __init__(
        self, run: RunLog, params: ParamLog, metrics: MetricLog, checksums: StageChecksums, *, strict: bool
    ) -> None:
        self.logged: dict[str, LoggedModel] = {}  # by staged path, in the order of logging
        self.seconds = 0.0  # duration of the last save
        self._run, self._params, self._metrics = run, params, metrics
        self._checksums = checksums
        self._calls = 0
        self._strict = strict
        self._saving: dict[str, Model] = {}  # the code that removes a record also journals the result
        self._writing = threading.RLock()
        self._background = BackgroundWork()
        self._failed: list[tuple[Model, str, Any]] = []  # not reported yet

    @property
    def busy(self) -> bool:
        """Whether a model is being saved, or its checksums are being computed, in the background."""
        return self._background.busy or self._checksums.busy

    def next_call(self) -> int:
        """Return the number of the next call that logs models."""
        self._calls += 1
        return self._calls

    def save(
        self,
        model: Any,
        name: str,
        saver: Saver,
        options: SaveOptions,
        *,
        step: int,
        metrics: Metrics | None,
        background: bool,
        at_once: bool,
        checkpoint: bool,
        call: int,
        others: Collection[str],
    ) -> LoggedModel:
        """Save a model and record it; if that fails, remove its files and record the failure.

        Args:
            model: The model.
            name: The model's name in MLflow.
            saver: The saver that writes the model.
            options: The options for the saver.
            step: The training step that the model belongs to.
            metrics: Metrics of the model; by default the newest of each metric of the run.
            background: Whether to save it while the training continues, if its saver supports that.
            at_once: Save it now, even if older models are still being saved in the background. Otherwise wait
                for those, so that they come first in MLflow.
            checkpoint: Whether the model is an intermediate state.
            call: The number of the call, from :meth:`next_call`.
            others: Names of the other models that the call logs; their metrics are not recorded with this
                one.

        Raises:
            SaveError: The model could not be saved, and the run is strict.
        """
        if (valid_name := plain_name(name)) != name:
            self._run.warn(f"a model can't be called {name!r} in MLflow; it is called {valid_name!r}.")
            name = valid_name
        params, newest = self._params.first(MODEL_PARAMS), self._metrics.newest()
        record = Model(
            name=name,
            staged=f"staged/none-{uuid.uuid4().hex}",  # stays if the disk has no room for a stage
            time=now(),
            step=step,
            saver=saver.name,
            saver_format=saver.format,
            python=platform.python_version(),
            register_as=options.registered,
            verify=options.verify,
            search_path=tuple(search_path()) if options.verify == "load" else (),
            metrics=None if metrics is None else _own_metrics(metrics, ()),
            newest=tuple(_own_metrics(record_metrics, others) for record_metrics in newest)
            if metrics is None
            else (),
            params=params,
            call=call,
            checkpoint=checkpoint,
        )
        logged = LoggedModel(name, step=step, checkpoint=checkpoint, call=call)
        try:
            stage = self._run.folder.stage(name)
            record = msgspec.structs.replace(record, staged=self._run.folder.relative(stage))
            self.logged[record.staged], self._saving[record.staged] = logged, record
            save = _Save(record, saver, options, stage)
            snapshot = saver_registry.snapshot(saver, model, options) if background else None
            if snapshot is not None and self._later(save, snapshot, model):
                return logged
            if not at_once:
                self._background.wait()
            self._write(save, model)
        except BaseException as error:
            self.logged[record.staged] = logged
            self._abandon(record, describe_error(error))
            if not isinstance(error, Exception):
                raise
            self._tell(record, describe_error(error), model, strict=self._strict, cause=error)
        return logged

    def wait(self) -> None:
        """Wait until all background saves are done and all checksums are computed."""
        self._background.wait()
        self._checksums.wait()

    def report(self, *, strict: bool | None = None) -> None:
        """Report, once, which models could not be saved in the background.

        Args:
            strict: Raise ``SaveError`` instead of a warning; by default the run's setting.

        Raises:
            SaveError: A model could not be saved, and the run is strict; the next call reports the next one.
        """
        while self._failed:
            self._tell(*self._failed.pop(0), strict=self._strict if strict is None else strict)

    def finish(self, error: BaseException | None) -> BaseException | None:
        """Wait for the background saves, and report those that failed.

        Args:
            error: The exception that ended the run, if any.

        Returns:
            The exception that ends the run now: the ``SaveError`` of a strict run, or the exception that
            interrupted the wait; ``None`` without one.
        """
        try:
            self.wait()
            self.report(strict=self._strict and error is None)
        except SaveError as failed:
            self.report(strict=False)
            return failed
        except BaseException as interrupted:  # noqa: BLE001 - Ctrl-C: raised after the run is closed
            self.abandon_all(f"cut short by {describe_error(interrupted)}")
            return interrupted
        return None

    def abandon_all(self, why: str) -> None:
        """Abandon every model that is being saved or waits to be saved: record it as failed."""
        self._background.clear()
        with self._writing:
            for record in list(self._saving.values()):
                self._abandon(record, why)

    def _write(self, save: _Save, value: Any) -> None:
        """Save a model or its snapshot with its saver, and record it."""
        record, saver, options, stage = save
        began = time.monotonic()
        with naming(self._run.name, record.name):
            saved = saver_registry.save(saver, value, stage, options)
        saved = keep_example(value, stage, saved, options)
        pinned = pins(("mlflow", *saved.packages))
        files = self._checksums.files(stage, saved.zips)
        self.seconds = time.monotonic() - began
        with self._writing:
            if record.staged in self._saving:
                self._run.append(
                    msgspec.structs.replace(record, saved=saved, requirements=pinned, files=files)
                )
                self._checksums.follow(stage, record.staged, files)
                self.logged[record.staged].status = "STAGED"
                del self._saving[record.staged]
            else:  # it was abandoned in the meantime
                shutil.rmtree(stage, ignore_errors=True)

    def _later(self, save: _Save, snapshot: Any, model: Any) -> bool:
        """Save a model's snapshot in the background; return whether that is possible."""
        record = save.record

        def work() -> None:
            try:
                self._write(save, snapshot)
            except BaseException as error:  # noqa: BLE001 - reported by the training's own thread
                with self._writing:
                    if record.staged in self._saving:
                        self._failed.append((record, describe_error(error), model))
                        self._run.ready = False
                        self._abandon(record, describe_error(error))

        def replaced() -> None:
            with self._writing:
                del self._saving[record.staged]
                self.logged.pop(record.staged).status = "REPLACED"
            shutil.rmtree(save.stage, ignore_errors=True)

        try:
            self._background.do(record.name, work, replaced)
        except RuntimeError:  # no more threads are available, or the interpreter is about to end
            return False
        return True

    def _tell(
        self, record: Model, why: str, model: Any, *, strict: bool, cause: Exception | None = None
    ) -> None:
        message = f"the model {record.name!r} could not be saved: {why}"
        if strict:
            raise SaveError(self._run.redactor.text(f"run {self._run.name!r}: {message}"), model) from cause
        self._run.warn(message + " It is FAILED in MLflow; your code gets the object unchanged.")

    def _abandon(self, record: Model, why: str) -> None:
        self._saving.pop(record.staged, None)
        shutil.rmtree(self._run.folder.path / record.staged, ignore_errors=True)
        self.logged[record.staged].status = "FAILED"
        self._run.append(msgspec.structs.replace(record, error=self._run.redactor.text(why)[:MAX_ERROR]))


def _own_metrics(metrics: Metrics, others: Collection[str]) -> Metrics:
    """Return the metrics of a model, without those of training speed and those of the call's other models."""
    values = {
        name: value
        for name, value in metrics.values.items()
        if not is_speed(name) and name.partition("/")[0] not in others
    }
    return msgspec.structs.replace(metrics, values=values)
