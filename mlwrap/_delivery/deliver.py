"""Deliver one run folder as one MLflow run."""

from __future__ import annotations

import contextlib
import copy
import shutil
import time
from collections.abc import Callable

from mlwrap._delivery.backoff import Backoff
from mlwrap._delivery.batch import Batch
from mlwrap._delivery.leases import leased, note_error, remove_delivered
from mlwrap._delivery.models_and_artifacts import Items
from mlwrap._delivery.thinning import THINNED_FILE, Thinning, write_points
from mlwrap._delivery.verify_in_process import verify_models
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
from mlwrap._mlflow import experiments
from mlwrap._mlflow.client import Client
from mlwrap._mlflow.connection import ServerNotListening
from mlwrap._mlflow.server_errors import without_client_retries
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import is_key
from mlwrap.errors import DeliveryError, JournalError, Refused, Unreachable
from mlwrap.errors import describe_error as description

_LEASE_SECONDS = 10.0
_PARENT_SECONDS = 1.0  # that a child waits for another delivery of its parent
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
    with leased(folder, _LEASE_SECONDS):
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


def open_client(first: RunStarted) -> Client:
    """Return a client for the MLflow that a run is delivered to; creates the tables of a new sqlite store."""
    return Client(first.tracking_uri, first.folder)


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
        self._items = Items(client, folder, self._progress, self._save)
        # Updated with each record, and saved only together with the offset that they belong to.
        self._numbers = copy.deepcopy(self._progress.numbers)
        self._seen = copy.deepcopy(self._progress.seen)
        self._item: Artifact | Model | None = None  # in MLflow, but not saved in the progress yet
        self._thinning = Thinning(first.thin_after, self._seen)
        self._batch = Batch(self._thinning, probe=(TagName.KEY, first.key))

    def run(self) -> Progress:
        if self._progress.ended:
            return self._progress
        run_id = self.ensure_run()  # may also create the parent's run, with the same client
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
        """Save that the item before this offset is in MLflow, and only then remove its stage."""
        if self._item is not None:
            self._flush(run_id, offset)
            self._items.remove(self._item)
            self._item = None

    def _take(self, record: AnyRecord | None, run_id: str, offset: int) -> None:
        if self._batch.full:  # before this record is added, so that the saved offset is right
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
            case Artifact() | Model():
                if isinstance(record, Model) and (points := self._items.create(record)):
                    self._batch.add_of_model(points)
                    self._items.note_metrics(record)
                self._flush(run_id, offset)
                self._items.deliver(record, run_id)
                self._item = record
            case RunEnded(status=status, time=time):
                self._tag_damage(record)
                self._batch.add_deferred()
                if self._progress.parent_unknown:  # the parent may have an MLflow run by now
                    self._batch.tags |= self._parent_tags(self._progress.experiment_id or "")
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
        if offset != self._progress.offset:
            self._progress.offset = offset
            self._progress.numbers = copy.deepcopy(self._numbers)
            self._progress.seen = copy.deepcopy(self._seen)
            self._save()

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

    def ensure_run(self) -> str:
        """Create MLflow's run if it does not exist yet, and return its id."""
        progress, first = self._progress, self._first
        if progress.run_id is not None:
            return progress.run_id
        if first.run_id is not None:  # reopening is idempotent, so it is not saved before
            tags = {**first.tags, TagName.KEY: first.key}
            progress.experiment_id = self._client.reopen_run(first.run_id, tags)
            progress.run_id = first.run_id
            self._save()
            return progress.run_id
        experiment_id = first.experiment_id or self._experiment_of_parent()
        experiment_id = experiment_id or experiments.experiment_id(self._client, first.experiment)
        progress.experiment_id = experiment_id
        if progress.asked:  # an earlier delivery requested it, and its answer is lost
            progress.run_id = self._client.find_run(first.key, experiment_id)
            progress.rebuilt = progress.run_id is not None and progress.rebuilt
        if progress.run_id is None:
            progress.asked = True
            self._save()
            tags = {**first.tags, TagName.KEY: first.key, **self._parent_tags(experiment_id)}
            try:
                progress.run_id = self._client.create_run(experiment_id, first.name, first.time, tags)
            except Refused:
                if first.experiment_id is None:
                    experiments.forget(self._client, first.experiment)
                    experiments.experiment_id(self._client, first.experiment)  # raises if it is deleted
                raise
        self._save()
        return progress.run_id

    def _experiment_of_parent(self) -> str | None:
        """Return the id of the parent's experiment, if the run itself names no experiment."""
        key, parent_run_id = self._first.parent_key, self._first.parent_run_id
        if self._first.experiment is not None or (key is None and parent_run_id is None):
            return None
        if key is not None and is_key(key):
            folder = RunFolder(self._folder.path.with_name(key))
            parent_run_id = self._parent_run(folder) or parent_run_id
            with contextlib.suppress(JournalError, OSError):
                if folder.is_ours() and (experiment_id := folder.progress().experiment_id) is not None:
                    return experiment_id
        with contextlib.suppress(Refused):  # the parent does not exist
            return self._client.experiment_of(parent_run_id) if parent_run_id is not None else None
        return None

    def _parent_tags(self, experiment_id: str) -> dict[str, str]:
        key, parent_run_id = self._first.parent_key, self._first.parent_run_id
        if key is not None and is_key(key):
            created = self._parent_run(RunFolder(self._folder.path.with_name(key)))
            parent_run_id = created or parent_run_id or self._client.find_run(key, experiment_id)
        self._progress.parent_unknown = key is not None and parent_run_id is None
        return {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}

    def _parent_run(self, folder: RunFolder) -> str | None:
        """Return the id of the parent's run; create the run if missing, but deliver nothing else of it."""
        with contextlib.suppress(DeliveryError, JournalError, OSError):
            if folder.is_ours() and (run_id := folder.progress().run_id) is not None:
                return run_id
            with leased(folder, _PARENT_SECONDS):
                first = header(folder.journal)
                if first.tracking_uri == self._first.tracking_uri:
                    return _Delivery(folder, first, self._client, None).ensure_run()
        return None
