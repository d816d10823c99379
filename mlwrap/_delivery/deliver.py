"""Deliver one run folder as one MLflow run."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable

from mlwrap._delivery.backoff import Backoff
from mlwrap._delivery.batch import Batch
from mlwrap._delivery.create_run import LEASE_SECONDS, RunCreation, open_client
from mlwrap._delivery.leases import leased, note_error, remove_delivered
from mlwrap._delivery.publishing.models_and_artifacts import Items
from mlwrap._delivery.publishing.publish_artifact import ArtifactGroup
from mlwrap._delivery.publishing.verify_in_process import verify_models
from mlwrap._delivery.thinning import THINNED_FILE, Thinning, write_points
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import header, read_records
from mlwrap._journal.records import (
    AnyRecord,
    Artifact,
    Checksums,
    Metrics,
    Model,
    Params,
    RunEnded,
    RunStarted,
    Tags,
)
from mlwrap._journal.tags import TagName
from mlwrap._mlflow.client import Client
from mlwrap._mlflow.connection import ServerNotListening
from mlwrap._mlflow.server_errors import without_client_retries
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import JournalError, Unreachable
from mlwrap.errors import describe_error as description

_PATIENCE_SECONDS = 10.0  # without progress; the caller waits


def deliver(folder: RunFolder, on_progress: Callable[[Progress], None] | None = None) -> Progress:
    """Deliver to MLflow all that the journal of ``folder`` contains.

    The folder is removed only after the run has ended and all of it is delivered. If the server does not
    answer, the request is repeated until ten seconds have passed without progress.

    Args:
        folder: The run folder.
        on_progress: Called with each progress.

    Returns:
        The progress of the delivery, with MLflow's ids.

    Raises:
        Unreachable: The server did not answer; what was not delivered stays in the folder.
        Refused: The server refused the run.
        JournalError: The folder can't be read.
    """
    backoff, until = Backoff(), time.monotonic() + _PATIENCE_SECONDS
    while True:
        delivered_before = folder.progress().delivered()
        try:
            return deliver_once(folder, on_progress)
        except ServerNotListening:
            raise
        except Unreachable as error:
            if folder.progress().delivered() != delivered_before:
                backoff, until = Backoff(), time.monotonic() + _PATIENCE_SECONDS
            pause = backoff.after(error)
            if time.monotonic() + pause > until:
                raise
        time.sleep(pause)


def deliver_once(folder: RunFolder, on_progress: Callable[[Progress], None] | None = None) -> Progress:
    """Deliver a run folder without repeating requests; see :func:`deliver`."""
    with leased(folder, LEASE_SECONDS):
        try:
            first = header(folder.journal)
            with without_client_retries():
                progress = _Delivery(folder, first, open_client(first), on_progress).run()
        except JournalError:  # not noted, because ``mlwrap status`` finds it, too
            raise
        except Exception as error:
            note_error(folder, description(error))
            raise
        # Still under the lease: another delivery would see a half-removed folder, and start again.
        if progress.ended:
            remove_delivered(folder, progress)
    return progress


class _Delivery:
    """Delivers the records of one journal in their order; collects small ones into common requests."""

    def __init__(
        self,
        folder: RunFolder,
        first: RunStarted,
        client: Client,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._folder = folder
        self._first = first
        self._client = client
        self._on_progress = on_progress
        self._progress = folder.progress()
        self._progress.error = None
        self._creation = RunCreation(client, folder, first, self._progress, self._save)
        self._items = Items(client, folder, self._progress, self._save)
        # Updated with each record, and saved only together with the offset that they belong to.
        self._numbers = copy.deepcopy(self._progress.numbers)
        self._seen = copy.deepcopy(self._progress.seen)
        self._artifacts = ArtifactGroup()  # sent together with the batch
        self._model: Model | None = None  # in MLflow, but not saved in the progress yet
        self._thinning = Thinning(first.thin_after, self._seen)
        self._batch = Batch(self._thinning, probe=(TagName.KEY, first.key))

    def run(self) -> Progress:
        if self._progress.ended:
            return self._progress
        run_id = self._creation.create()  # may also create the parent's run, with the same client
        self._client.may_repeat = self._progress.sending or self._progress.rebuilt
        offset = self._progress.offset
        for record, end_offset in read_records(self._folder.journal, self._progress.offset, self._numbers):
            self._pass(run_id, offset)
            self._take(record, run_id, offset)
            offset = end_offset
        if not self._progress.ended:  # else the folder is removed, with the progress in it
            self._pass(run_id, offset)
            self._flush(run_id, offset)
        return self._progress

    def _pass(self, run_id: str, offset: int) -> None:
        """Save that the model before this offset is in MLflow, and only then remove its stage."""
        if self._model is not None:
            self._flush(run_id, offset)
            self._items.remove(self._model)
            self._model = None

    def _take(self, record: AnyRecord | None, run_id: str, offset: int) -> None:
        # Before this record is added, so that the saved offset is right.
        if self._batch.full or (isinstance(record, Artifact) and not self._artifacts.accepts(record)):
            self._flush(run_id, offset)
        match record:
            case None:
                self._progress.damaged += 1
            case Params(values=values):
                self._batch.params.update(values)
            case Metrics():
                self._batch.add(record)
            case Tags(values=values):
                self._batch.tags.update(values)
            case Artifact():
                self._artifacts.add(record)
            case Model():
                if points := self._items.create(record):
                    self._batch.add_of_model(points)
                    self._items.note_metrics(record)
                self._flush(run_id, offset)
                self._items.deliver(record, run_id)
                self._model = record
            case RunEnded(status=status, time=time):
                self._tag_damage(record)
                self._batch.add_deferred()
                if self._progress.parent_unknown:  # the parent may have an MLflow run by now
                    self._batch.tags |= self._creation.parent_tags(self._progress.experiment_id or "")
                self._flush(run_id, offset)
                self._items.deliver_set_aside(run_id)
                self._publish_thinned(run_id)
                self._items.close(run_id)
                self._client.end_run(run_id, status, time)
                verify_models(self._client, self._progress, self._save)
                self._items.check()
                self._progress.ended = True
            case RunStarted() | Checksums():
                pass

    def _tag_damage(self, last: RunEnded) -> None:
        """Count the damaged records at the run's end, and tag the run with their count and numbers."""
        self._progress.damaged, damage = self._numbers.damage(last)
        if damage:
            self._batch.tags[TagName.DAMAGED_RECORDS] = damage

    def _flush(self, run_id: str, offset: int) -> None:
        """Send the batch, and save that MLflow has all records up to the byte ``offset``."""
        if self._client.is_file_store and not self._progress.sending:
            self._progress.sending = True
            self._save()
        self._progress.refused |= self._batch.send(self._client, run_id)
        self._progress.sending = False
        self._items.deliver_artifacts(self._artifacts.records, run_id)
        if offset != self._progress.offset:
            self._progress.offset = offset
            self._progress.uploaded.clear()
            self._progress.numbers = copy.deepcopy(self._numbers)
            self._progress.seen = copy.deepcopy(self._seen)
            self._save()
        for record in self._artifacts.records:
            self._items.remove(record)
        self._artifacts.clear()

    def _save(self) -> None:
        self._folder.save_progress(self._progress)
        if self._on_progress is not None:
            self._on_progress(self._progress)

    def _publish_thinned(self, run_id: str) -> None:
        """Log all points of the thinned metrics as one artifact."""
        if not self._thinning.thinned:
            return
        file = self._folder.path / "staged" / "thinned" / THINNED_FILE
        record = Artifact(staged=self._folder.relative(file), path=THINNED_FILE)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_points(self._folder.journal, self._thinning.thinned, file, self._alive)
        except OSError as error:  # the disk is full: the run still ends, and sync delivers the file
            self._items.set_aside(record, str(error), is_final=False)
            shutil.rmtree(file.parent, ignore_errors=True)
        else:
            self._items.deliver(record, run_id)

    def _alive(self) -> None:
        self._progress.seconds += 1
        self._save()
