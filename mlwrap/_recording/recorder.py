"""``Recorder``: record one open run, end it, and take over MLflow's ids after delivery."""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from mlwrap._journal.progress import Progress
from mlwrap._journal.records import Metrics, RunEnded, RunStarted, now
from mlwrap._journal.writer import MAX_WAITING_RECORDS
from mlwrap._process.outcome import Outcome
from mlwrap._recording.artifact_log import ArtifactLog
from mlwrap._recording.logged_model import LoggedModel
from mlwrap._recording.metrics.metric_log import MetricLog
from mlwrap._recording.model_log import ModelLog
from mlwrap._recording.param_log import ParamLog
from mlwrap._recording.run_log import RunLog
from mlwrap._recording.sender_link import WAKE_SECONDS, SenderLink
from mlwrap._recording.staged_checksums import StageChecksums
from mlwrap._savers import saver_registry
from mlwrap._savers.history.fits import FitLog
from mlwrap._savers.saver_interface import SaveOptions, Saver
from mlwrap._spool.delivered_runs import find_delivered
from mlwrap._spool.open_run import open_run
from mlwrap._spool.run_folder import lost_message
from mlwrap._spool.spool import discarded_root
from mlwrap.config import Nonfinite
from mlwrap.errors import DeliveryError, Diverged, SaveError, describe_error


class Recorder(RunLog):
    """Records one run. In a child that ``fork`` made it records nothing.

    Args:
        name: The run's name in MLflow.
        strict: Raise ``SaveError`` if a model can't be saved.
        nonfinite: How NaN and infinite metrics are handled; see :class:`MetricLog`.

    Attributes:
        params: Writes parameters.
        metrics: Writes metrics.
        artifacts: Writes artifacts.
        models: Saves models and writes them.
        fits: The log of each ``fit`` in the run.
        signal: The name of a signal that arrived while the run was open.
        sender_link: The connection to the sender, if one delivers the run.
    """

    def __init__(self, name: str, *, strict: bool, nonfinite: Nonfinite = "tag") -> None:
        super().__init__(name)
        self.signal: str | None = None
        self.sender_link: SenderLink | None = None
        self.fits = FitLog()
        checksums = StageChecksums(self)
        self.artifacts = ArtifactLog(self, checksums)
        self.params = ParamLog(self, self.artifacts)
        self.metrics = MetricLog(self, nonfinite)
        self.models = ModelLog(self, self.params, self.metrics, checksums, strict=strict)
        self._warned_full = self._looked_lost = False

    def open(
        self, root: Path, first: RunStarted, *, linger: float | None = None, is_discarded: bool = False
    ) -> None:
        """Open the journal, in the spool ``root``.

        Args:
            root: Where the run folder is made.
            first: The journal's first record.
            linger: Seconds for which the sender, which delivers the run from now on, waits for another one
                afterwards; ``None`` if no sender delivers it.
            is_discarded: Whether the run folder is removed at the end, as for a worker that only takes part
                in saving.

        Raises:
            SpoolError: The spool can't be written.
        """
        self.is_discarded = is_discarded
        self._journal = open_run(discarded_root(root) if is_discarded else root, first)
        self.recording = self.ready = True
        _recording.add(self)
        self.tracking_uri, self.offline = first.tracking_uri, first.offline
        self.run_id = first.run_id
        self.experiment, self.experiment_id = first.experiment, first.experiment_id
        if linger is not None:
            try:
                self.sender_link = SenderLink(self.folder, first.tracking_uri, linger)
            except DeliveryError as error:
                self.warn(f"it will be uploaded at its end, by this process: {error}")
        self._journal.watch(self._warn_full, self._look, WAKE_SECONDS)
        self.metrics.write = self._journal.append  # looked up once, because every step calls it

    def _warn_full(self, error: OSError) -> None:
        if not self._warned_full and self.status == "RUNNING":  # else a thread came too late
            self._warned_full = True
            self.warn(
                f"{self.folder.path} can't be written ({error.strerror}). Training goes on; until "
                f"it can, the next {MAX_WAITING_RECORDS:,} records wait in memory, and those beyond "
                "are lost. Make room."
            )

    def _look(self) -> None:
        """Wake the sender, and check that the run folder is still there."""
        if self.sender_link is not None:
            self.sender_link.wake()
        self.find_lost()

    def find_lost(self) -> bool:
        """Return whether the run folder is gone and was not delivered; warn once."""
        if self._journal is not None and not self._looked_lost and not self.folder.exists():
            self._looked_lost = True
            if (progress := find_delivered(self.folder)) is not None:
                self.delivered(progress)
            else:
                self.lost = True
                self.warn(lost_message(self.folder.path))
        return self.lost

    def save_model(
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
        """Save and record a model; see :meth:`ModelLog.save`.

        Raises:
            SaveError: The model could not be saved, and the run is strict.
        """
        if self.is_discarded and not getattr(saver, "collective", False):
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
    def is_saving(self) -> bool:
        """Whether this process saves a model in the background."""
        return self.recording and self.models.busy

    def report_failed_saves(self) -> None:
        """Report which models could not be saved in the background; see :meth:`ModelLog.report`."""
        self.ready = True  # before the report: another save may fail in the meantime
        try:
            self.models.report()
        except SaveError:
            self.ready = False  # because there may be more
            raise

    def finish_saves(self, error: BaseException | None) -> BaseException | None:
        """Wait for the models that are being saved, before the run's end; see :meth:`ModelLog.finish`."""
        return self.models.finish(error) if self.recording and self.status == "RUNNING" else None

    def warn_unknown(self, unknown: Iterable[tuple[str, str]]) -> None:
        """Warn of objects that no saver knows: where each was found, and its type."""
        items = ", ".join(f"{kind} ({where})" for where, kind in unknown)
        self.warn(
            f"no saver knows {items}, so it is not logged; your code gets it unchanged. "
            f"There are savers for: {', '.join(saver_registry.saver_names())}. "
            "mlwrap.register_saver() adds one."
        )

    def close(self, outcome: Outcome) -> None:
        """Write the run's end and close the journal; a second call does nothing."""
        if self.status != "RUNNING":
            return
        try:
            self._try("why it ended could not be written down", self._write_why, outcome)
            self._try("its last metrics could not be written", self.metrics.flush_pending)
            self._try("the names of its artifacts could not be written", self.artifacts.finish)
        finally:  # Ctrl-C, too, leaves no run open
            self._write_end(outcome)

    def _write_end(self, outcome: Outcome) -> None:
        self.status, self.ready = outcome.status, False
        try:
            error = self.redactor.text(outcome.error) if outcome.error else None
            last = RunEnded(status=outcome.status, time=now(), error=error)
            if lost := self.journal.end(last):
                self.warn(f"{lost:,} records are lost, for {self.folder.path} could not be written.")
        except Exception as failure:  # noqa: BLE001 - the user's result comes before a fault of mlwrap's
            self.warn(f"its end could not be written to {self.folder.path}: {failure}")

    def _write_why(self, outcome: Outcome) -> None:
        if tags := outcome.tags:
            self.tags(tags)
        if text := outcome.traceback:
            self.artifacts.text(text, "traceback.txt")

    def _try(self, problem: str, work: Any, *args: Any) -> None:
        """Do a part of the end; a failure is a warning, because the user's result comes first."""
        try:
            work(*args)
        except Diverged:
            pass  # the training is over
        except Exception as failure:  # noqa: BLE001 - see above
            self.warn(f"{problem}: {describe_error(failure)}")

    def release(self) -> None:
        """Release the run folder, so that any process may deliver the rest."""
        self.journal.release()
        if self.sender_link is not None:
            self.sender_link.close()

    def delivered(self, progress: Progress) -> None:
        """Take over MLflow's ids, models and their status from the progress of a delivery."""
        self.run_id, self.experiment_id = progress.run_id, progress.experiment_id
        for staged, model in progress.models.items():
            uri = f"models:/{model.model_id}" if model.model_id else f"runs:/{self.run_id}/{model.name}"
            self.models.logged[staged].delivered(model.status, uri, model.registered)
            for trouble in model.troubles:
                self.warn(f"the model {model.name!r}: {trouble}")
        if progress.degraded:
            self.warn(progress.degraded)


_recording: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _forked() -> None:
    for recorder in list(_recording):
        recorder.recording = recorder.ready = False


os.register_at_fork(after_in_child=_forked)
