"""One run's record while it is open: its journal, its staged files, and what MLflow said of it since.

The only thing that the training half knows of a run. In a child made by ``fork`` it records nothing.
It is some lines over the limit: each method writes one kind of record, or learns what became of it.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mlwrap._capture.flatten import Captured
from mlwrap._capture.flatten import params as capture_params
from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._capture.redact import Redactor
from mlwrap._journal.progress import Progress
from mlwrap._journal.records import AnyRecord, Metrics, Params, RunEnded, RunStarted, Status, Tags, now
from mlwrap._journal.writer import MAX_WAITING_RECORDS
from mlwrap._process.console import lost_folder
from mlwrap._recording.artifacts import ArtifactLog
from mlwrap._recording.logged_before import LoggedParams
from mlwrap._recording.logged_model import LoggedModel
from mlwrap._recording.metrics import MetricLog
from mlwrap._recording.models import ModelLog
from mlwrap._recording.null_recorder import NullRecorder
from mlwrap._recording.sender_link import WAKE_SECONDS, SenderLink
from mlwrap._recording.stage_checksums import StageChecksums
from mlwrap._savers import registry
from mlwrap._savers.history.fits import FitLog
from mlwrap._savers.saver import SaveOptions, Saver
from mlwrap._spool.delivered_runs import find_delivered
from mlwrap._spool.open_run import OpenRun, open_run
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import discarded_root
from mlwrap.config import Nonfinite
from mlwrap.errors import DeliveryError, Diverged, RunStateError, SaveError, describe_error, warn

MAX_TAG = 5000  # characters; what every store of MLflow's takes
MODEL_PARAMS = 100  # that MLflow takes with the request that makes a model


class Recorder(NullRecorder):
    """Writes one run down.

    Args:
        name: The run's name in MLflow.
        strict: Raise ``SaveError`` where a model can't be saved.
        nonfinite: What becomes of metrics that are not finite.

    Attributes:
        ready: Whether something can be recorded at once: the run is open, this process writes it down, and
            nothing has to be told first.
    """

    def __init__(self, name: str, *, strict: bool, nonfinite: Nonfinite = "tag") -> None:
        super().__init__(name)
        self.redactor = Redactor()
        self.signal: str | None = None
        self.sender_link: SenderLink | None = None
        self._journal: OpenRun | None = None
        self._params = LoggedParams()
        checksums = StageChecksums(self.append)
        self.points = MetricLog(self.append, self.warn, self.tags, nonfinite)
        self.fits = FitLog()
        folder: Callable[[], RunFolder] = lambda: self.journal.folder  # noqa: E731 - of a run that is open
        self._artifacts = ArtifactLog(folder, self.append, self.warn, self.redactor, checksums)
        self.models = ModelLog(
            name,
            folder,
            self.append,
            self.warn,
            self.redactor,
            checksums=checksums,
            state=lambda: (self._params.first(MODEL_PARAMS), self.points.newest()),
            failing=functools.partial(setattr, self, "ready", False),
            strict=strict,
        )
        self._full_values: dict[str, tuple[str, Any]] = {}
        self._full = self._gone = False

    @property
    def recorded(self) -> bool:
        """Whether there is a journal, whoever's it is to write."""
        return self._journal is not None

    @property
    def journal(self) -> OpenRun:
        """The open journal.

        Raises:
            RunStateError: There is none.
        """
        if self._journal is None:
            raise RunStateError(f"run {self.name!r} records nothing.")
        return self._journal

    def open(self, root: Path, first: RunStarted, *, line: bool, in_vain: bool = False) -> None:
        """Open the journal, in the spool ``root``.

        Args:
            root: Where the run folder is made.
            first: The journal's first record.
            line: Whether a sender is to deliver it from now on.
            in_vain: Whether it is thrown away at the end: of a worker that only takes part in saving.

        Raises:
            SpoolError: The spool can't be written.
        """
        self.in_vain = in_vain
        self._journal = open_run(discarded_root(root) if in_vain else root, first)
        self.recording = self.ready = True
        _recording.add(self)
        self.tracking_uri, self.offline = first.tracking_uri, first.offline
        self.run_id = first.run_id
        self.experiment, self.experiment_id = first.experiment, first.experiment_id
        if line:
            try:
                self.sender_link = SenderLink(self._journal.folder, first.tracking_uri)
            except DeliveryError as error:
                self.warn(f"MLflow will be told at its end, by this process: {error}")
        self._journal.watch(self._warn_kept, self._look, WAKE_SECONDS)
        self.points.write = self._journal.append  # looked up once, for it is called at every step

    def append(self, record: AnyRecord) -> None:
        """Write one record; one that the disk does not take is kept for later, said once."""
        self.journal.append(record)

    def _warn_kept(self, trouble: OSError) -> None:
        if not self._full and self.status == "RUNNING":  # else a thread came too late
            self._full = True
            self.warn(
                f"{self.journal.folder.path} can't be written ({trouble.strerror}). Training goes on; until "
                f"it can, the next {MAX_WAITING_RECORDS:,} records wait in memory, and those beyond "
                "are lost. Make room."
            )

    def _look(self) -> None:
        """Wake the sender, and see that there still is something to deliver."""
        if self.sender_link is not None:
            self.sender_link.wake()
        self.find_lost()

    def find_lost(self) -> bool:
        """Whether the run folder is gone and was not delivered, which is said once."""
        if self._journal is not None and not self._gone and not self._journal.folder.exists():
            self._gone = True
            if (progress := find_delivered(self._journal.folder)) is not None:
                self.delivered(progress)
            else:
                self.lost = True
                self.warn(lost_folder(self._journal.folder.path))
        return self.lost

    def warn(self, message: str) -> None:
        """Say what went wrong, secrets left out."""
        text = self.redactor.text(message)
        warn(f"run {self.name!r}: {text if len(text) <= MAX_TAG else text[:MAX_TAG] + ' …'}")

    def params(self, captured: Captured) -> None:
        """Write parameters down, each the first time that it comes."""
        fresh, changed = self._params.fresh(captured.values)
        for name, before, now_called in changed:
            self.warn(
                f"parameter {name!r} was {before!r} and can't change; the new value is logged as "
                f"{now_called!r}. Log what changes as a metric."
            )
        if fresh:
            self.append(Params(values=fresh))
        if captured.full_values:
            self._full_values |= captured.full_values
            table = {name: {"name": own, "value": value} for name, (own, value) in self._full_values.items()}
            self.text(msgspec.json.format(msgspec.json.encode(table).decode(), indent=2), "params.json")

    def missing_params(self, values: Mapping[str, Any]) -> None:
        """Write those parameters down whose names the run does not have yet."""
        captured = capture_params(values, redactor=self.redactor)
        missing = self._params.missing(captured.values)
        whole = {name: each for name, each in captured.full_values.items() if name in missing}
        self.params(Captured(missing, whole))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Write tags down."""
        self.append(Tags(values=self.tag_texts(tags)))

    def tag_texts(self, tags: Mapping[str, Any]) -> dict[str, str]:
        """Tags as MLflow takes them: text, without secrets, at most ``MAX_TAG`` characters."""
        texts = {}
        for name, value in tags.items():
            try:
                text = self.redactor.text(str(self.redactor.value(str(name), value)))
            except Exception as error:  # noqa: BLE001 - whatever a value's own __str__ raises
                text = f"not readable: {type(error).__name__}"
            texts[to_mlflow_name(str(name))] = text[:MAX_TAG]
        return texts

    def copy(self, source: Path, folder: str | None) -> None:
        """Stage a copy of a file or folder as an artifact."""
        self._artifacts.copy(source, folder)

    def text(self, text: str, artifact_file: str) -> None:
        """Stage text as an artifact, secrets left out."""
        self._artifacts.text(text, artifact_file)

    def file(self, artifact_file: str, write: Callable[[Path], object]) -> None:
        """Stage the file that ``write`` makes as an artifact."""
        self._artifacts.file(artifact_file, write)

    def model(
        self,
        model: Any,
        name: str,
        saver: Saver,
        options: SaveOptions,
        *,
        step: int = 0,
        metrics: Metrics | None = None,
        background: bool = False,
        checkpoint: bool = False,
        call: int | None = None,
        others: Collection[str] = (),
    ) -> LoggedModel:
        """Save a model and write it down, or that it could not be saved; see :meth:`Models.save`.

        Raises:
            SaveError: It could not be saved, and the run is strict.
        """
        if self.in_vain and not getattr(saver, "collective", False):
            return LoggedModel(name, "STAGED")
        return self.models.save(
            model,
            name,
            saver,
            options,
            step=step,
            metrics=metrics,
            background=background,
            at_once=self.preempted,
            checkpoint=checkpoint,
            call=self.models.next_call() if call is None else call,
            others=others,
        )

    @property
    def logged(self) -> dict[str, LoggedModel]:
        """The logged models by their staged paths, in the order of logging."""
        return self.models.logged

    @property
    def saving(self) -> bool:
        """Whether a model is being saved in the background, by this process."""
        return self.recording and self.models.busy

    def tell_failures(self) -> None:
        """Tell which models could not be saved in the background; see :meth:`Models.report`."""
        self.ready = True  # before they are told: another one may fail in the meantime
        try:
            self.models.report()
        except SaveError:
            self.ready = False  # for there may be more
            raise

    def saved(self, error: BaseException | None) -> BaseException | None:
        """Wait for the models that are being saved, before the end of the run; see :meth:`Models.finish`."""
        return self.models.finish(error) if self.recording and self.status == "RUNNING" else None

    def unknown(self, unknown: Iterable[tuple[str, str]]) -> None:
        """Say that nobody knows how to save something: where it was found, and its type."""
        what = ", ".join(f"{kind} ({where})" for where, kind in unknown)
        self.warn(
            f"no saver knows {what}; it is not logged, and reaches your code unharmed. "
            f"There are savers for: {', '.join(registry.saver_names())}. mlwrap.register_saver() adds one."
        )

    def close(self, status: Status, error: str | None) -> None:
        """Write the run's end down and close the journal; a second call does nothing."""
        if self.status != "RUNNING":
            return
        self._settle()
        self.status, self.ready = status, False
        last = RunEnded(status=status, time=now(), error=self.redactor.text(error) if error else None)
        try:
            if lost := self.journal.end(last):
                self.warn(f"{lost:,} records are lost, for {self.journal.folder.path} could not be written.")
        except Exception as failure:  # noqa: BLE001 - the user's own result goes before any trouble of ours
            self.warn(f"its end could not be written to {self.journal.folder.path}: {failure}")

    def _settle(self) -> None:
        try:
            self.points.flush_pending()
        except Diverged:
            pass  # the training is over
        except Exception as failure:  # noqa: BLE001 - the user's own result goes before any trouble of ours
            self.warn(f"its last metrics could not be written: {describe_error(failure)}")
        try:
            self._artifacts.finish()
        except Exception as failure:  # noqa: BLE001 - likewise
            self.warn(f"the names of its artifacts could not be written: {describe_error(failure)}")

    def release(self) -> None:
        """Let go of the run folder: what is not delivered yet is anybody's to deliver."""
        self.journal.release()
        if self.sender_link is not None:
            self.sender_link.close()

    def delivered(self, progress: Progress) -> None:
        """Learn what MLflow has of this run."""
        self.run_id, self.experiment_id = progress.run_id, progress.experiment_id
        for staged, known in progress.models.items():
            where = f"models:/{known.model_id}" if known.model_id else f"runs:/{self.run_id}/{known.name}"
            self.models.logged[staged].delivered(known.status, where, known.registered)
            for trouble in known.troubles:
                self.warn(f"the model {known.name!r}: {trouble}")
        if progress.degraded:
            self.warn(progress.degraded)


_recording: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _forked() -> None:
    for recorder in list(_recording):
        recorder.recording = recorder.ready = False


os.register_at_fork(after_in_child=_forked)
