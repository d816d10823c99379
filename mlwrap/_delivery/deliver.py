"""One run folder becomes one MLflow run."""

from __future__ import annotations

import contextlib
import copy
import shutil
import time
from collections.abc import Callable

from mlwrap._delivery.backoff import Backoff
from mlwrap._delivery.batch import Batch
from mlwrap._delivery.items import Items
from mlwrap._delivery.leases import leased, note_error, remove_delivered
from mlwrap._delivery.thinning import FILE, Thinning, write_points
from mlwrap._delivery.verify_models import verify_models
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
from mlwrap._mlflow.errors import without_client_retries
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import is_key
from mlwrap.errors import DeliveryError, JournalError, Refused, Unreachable
from mlwrap.errors import describe_error as description

_LEASE_SECONDS = 10.0
_PARENT_SECONDS = 1.0  # that a child waits for another delivery of its parent
_PATIENCE_SECONDS = 10.0  # without progress; of a delivery that somebody waits for


def deliver(folder: RunFolder, on_progress: Callable[[Progress], None] | None = None) -> Progress:
    """Make MLflow look like ``folder`` says, as far as its journal goes.

    The folder of a run that has ended is removed once all of it is delivered, and only then. A server that
    does not answer is asked again, until ten seconds have passed without progress.

    Args:
        folder: The run folder.
        on_progress: Called with each progress.

    Returns:
        How far delivery got, with the ids that MLflow gave.

    Raises:
        Unreachable: The server did not answer; the folder is as it was, less what was delivered.
        Refused: The server refused the run.
        JournalError: The folder can't be read.
    """
    pauses, until = Backoff(), time.monotonic() + _PATIENCE_SECONDS
    while True:
        before = folder.progress().delivered()
        try:
            return deliver_once(folder, on_progress)
        except ServerNotListening:
            raise
        except Unreachable as error:
            if folder.progress().delivered() != before:
                pauses, until = Backoff(), time.monotonic() + _PATIENCE_SECONDS
            pause = pauses.after(error)
            if time.monotonic() + pause > until:
                raise
        time.sleep(pause)


def deliver_once(folder: RunFolder, on_progress: Callable[[Progress], None] | None = None) -> Progress:
    """:func:`deliver` without asking again."""
    with leased(folder, _LEASE_SECONDS):
        try:
            first = header(folder.journal)
            with without_client_retries():
                progress = _Delivery(folder, first, open_client(first), on_progress).run()
        except JournalError:  # which ``mlwrap status`` finds out for itself
            raise
        except Exception as error:
            note_error(folder, description(error))
            raise
        if progress.ended:  # under the lease: another delivery would find a part of it, and begin anew
            remove_delivered(folder, progress)
    return progress


def open_client(first: RunStarted) -> Client:
    """The client of the MLflow that a run goes to; an sqlite store that is new gets its tables."""
    return Client(first.tracking_uri, first.folder)


class _Delivery:
    """Takes a journal's records in their order; what fits in one request waits for company."""

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
        # Brought up to date record by record; noted with the offset that they belong to, and never before.
        self._numbers = copy.deepcopy(self._progress.numbers)
        self._seen = copy.deepcopy(self._progress.seen)
        self._item: Artifact | Model | None = None  # in MLflow, and not noted yet
        self._thinning = Thinning(first.thin_after, self._seen)
        self._batch = Batch(self._thinning, probe=(TagName.KEY, first.key))

    def run(self) -> Progress:
        if self._progress.ended:
            return self._progress
        run_id = self.ensure_run()  # it may make the parent's run, by the same client
        self._client.may_repeat = self._progress.sending or self._progress.rebuilt
        taken = self._progress.offset
        for record, end in read_records(self._folder.journal, self._progress.offset, self._numbers):
            self._pass(run_id, taken)
            self._take(record, run_id, taken)
            taken = end
        if not self._progress.ended:  # else the folder goes, and all that is noted in it
            self._pass(run_id, taken)
            self._flush(run_id, taken)
        return self._progress

    def _pass(self, run_id: str, taken: int) -> None:
        """Note that the item before this byte is in MLflow, and only then remove its stage."""
        if self._item is not None:
            self._flush(run_id, taken)
            self._items.remove(self._item)
            self._item = None

    def _take(self, record: AnyRecord | None, run_id: str, before: int) -> None:
        if self._batch.full:  # without this record: what progress says of those before it is true then
            self._flush(run_id, before)
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
                self._flush(run_id, before)
                self._items.deliver(record, run_id)
                self._item = record
            case RunEnded(status=status, time=time):
                self._tag_damage(record)
                self._batch.add_deferred()
                if self._progress.parent_unknown:  # it may have a run by now
                    self._batch.tags |= self._parent_tags(self._progress.experiment_id or "")
                self._flush(run_id, before)
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
        """Tell the run how many records are damaged, and which, now that no more can come."""
        self._progress.damaged, damage = self._numbers.damage(last)
        if damage:
            self._batch.tags[TagName.DAMAGED_RECORDS] = damage

    def _flush(self, run_id: str, taken: int) -> None:
        """Send what waits; all records that end at or before the byte ``taken`` are in MLflow then."""
        if self._client.is_file_store and not self._progress.sending:
            self._progress.sending = True
            self._save()
        self._progress.refused |= self._batch.send(self._client, run_id)
        self._progress.sending = False
        if taken != self._progress.offset:
            self._progress.offset = taken
            self._progress.numbers = copy.deepcopy(self._numbers)
            self._progress.seen = copy.deepcopy(self._seen)
            self._save()

    def _save(self) -> None:
        self._folder.save_progress(self._progress)
        if self._on_progress is not None:
            self._on_progress(self._progress)

    def _publish_thinned(self, run_id: str) -> None:
        """Log all points of the metrics that were thinned as one file."""
        if not self._thinning.thinned:
            return
        file = self._folder.path / "staged" / "thinned" / FILE
        record = Artifact(staged=self._folder.relative(file), path=FILE)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_points(self._folder.journal, self._thinning.thinned, file, self._alive)
        except OSError as error:  # the disk is full: the run has its end all the same, and sync the rest
            self._items.set_aside(record, str(error), is_final=False)
            shutil.rmtree(file.parent, ignore_errors=True)
        else:
            self._items.deliver(record, run_id)

    def _alive(self) -> None:
        self._progress.seconds += 1
        self._save()

    def ensure_run(self) -> str:
        """Make MLflow's run, if there is none yet; its id."""
        progress, first = self._progress, self._first
        if progress.run_id is not None:
            return progress.run_id
        if first.run_id is not None:  # to open it twice changes nothing: it need not be noted before
            tags = {**first.tags, TagName.KEY: first.key}
            progress.experiment_id = self._client.reopen_run(first.run_id, tags)
            progress.run_id = first.run_id
            self._save()
            return progress.run_id
        experiment_id = first.experiment_id or self._experiment_of_parent()
        experiment_id = experiment_id or experiments.experiment_id(self._client, first.experiment)
        progress.experiment_id = experiment_id
        if progress.asked:  # and died before the answer was written down, or what was written is lost
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
                    experiments.experiment_id(self._client, first.experiment)  # says so if it is deleted
                raise
        self._save()
        return progress.run_id

    def _experiment_of_parent(self) -> str | None:
        """The id of the parent's experiment, for a run of which nothing else was said."""
        key, parent = self._first.parent_key, self._first.parent_run_id
        if self._first.experiment is not None or (key is None and parent is None):
            return None
        if key is not None and is_key(key):
            folder = RunFolder(self._folder.path.with_name(key))
            parent = self._parent_run(folder) or parent
            with contextlib.suppress(JournalError, OSError):
                if folder.is_ours() and (known := folder.progress().experiment_id) is not None:
                    return known
        with contextlib.suppress(Refused):  # a parent that is not there has no say
            return self._client.experiment_of(parent) if parent is not None else None
        return None

    def _parent_tags(self, experiment_id: str) -> dict[str, str]:
        key, parent = self._first.parent_key, self._first.parent_run_id
        if key is not None and is_key(key):
            made = self._parent_run(RunFolder(self._folder.path.with_name(key)))
            parent = made or parent or self._client.find_run(key, experiment_id)
        self._progress.parent_unknown = key is not None and parent is None
        return {"mlflow.parentRunId": parent} if parent else {}

    def _parent_run(self, folder: RunFolder) -> str | None:
        """The id of a parent's run, which is made if need be; the rest of it, which may take long, is not."""
        with contextlib.suppress(DeliveryError, JournalError, OSError):
            if folder.is_ours() and (known := folder.progress().run_id) is not None:
                return known
            with leased(folder, _PARENT_SECONDS):
                first = header(folder.journal)
                if first.tracking_uri == self._first.tracking_uri:
                    return _Delivery(folder, first, self._client, None).ensure_run()
        return None
