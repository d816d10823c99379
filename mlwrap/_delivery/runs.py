"""One run folder becomes one MLflow run."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import filelock

from mlwrap._delivery import experiments, outcomes
from mlwrap._delivery.answers import asking_once
from mlwrap._delivery.batch import Batch
from mlwrap._delivery.client import Client
from mlwrap._delivery.models import publish
from mlwrap._delivery.pauses import Pauses
from mlwrap._delivery.reach import NobodyListens
from mlwrap._delivery.registry import Registry
from mlwrap._delivery.thinning import FILE, Thinning, write_points
from mlwrap._delivery.uploads import has_arrived
from mlwrap._delivery.verifying import verify_models
from mlwrap._journal import (
    AnyRecord,
    Artifact,
    Metrics,
    Model,
    Params,
    Progress,
    RunEnded,
    RunFolder,
    RunStarted,
    Tags,
    header,
    read,
)
from mlwrap.errors import DeliveryError, JournalError, Refused, Unreachable

_LEASE_SECONDS = 10.0
_PATIENCE_SECONDS = 10.0  # without progress; of a delivery that somebody waits for


def deliver_patiently(folder: RunFolder) -> Progress:
    """See the room's own :func:`mlwrap._delivery.deliver`."""
    pauses, until = Pauses(), time.monotonic() + _PATIENCE_SECONDS
    while True:
        before = folder.progress()
        try:
            return deliver(folder)
        except NobodyListens:
            raise
        except Unreachable as error:
            if folder.progress() != before:
                pauses, until = Pauses(), time.monotonic() + _PATIENCE_SECONDS
            pause = pauses.after(error)
            if time.monotonic() + pause > until:
                raise
        time.sleep(pause)


def deliver(folder: RunFolder, told: Callable[[Progress], None] | None = None) -> Progress:
    """Try once; ``told`` is called with each progress."""
    lease = folder.delivery_lease()
    try:
        lease.acquire(timeout=_LEASE_SECONDS)
    except filelock.Timeout:
        raise Unreachable(f"{folder.path} is being delivered by another process.") from None
    try:
        if folder.gone():
            raise JournalError(f"{folder.path} is gone: it was delivered, or removed.")
        first = header(folder.journal)
        with asking_once():
            progress = _Delivery(folder, first, opened(first), told).run()
        if progress.ended:  # under the lease: another delivery would find a part of it, and begin anew
            outcomes.note(folder.key, progress)
            folder.remove()
    except DeliveryError as error:
        _note(folder, str(error))
        raise
    finally:
        lease.release()
    return progress


def opened(first: RunStarted) -> Client:
    """The client of the MLflow that a run goes to; an sqlite store that is new gets its tables."""
    return Client(first.tracking_uri, first.folder)


def _note(folder: RunFolder, error: str) -> None:
    """Keep what stood in the way, for ``mlwrap status``."""
    progress = folder.progress()
    progress.error = error
    folder.save_progress(progress)


class _Delivery:
    """Takes a journal's records in their order; what fits in one request waits for company."""

    def __init__(
        self, folder: RunFolder, first: RunStarted, client: Client, told: Callable[[Progress], None] | None
    ) -> None:
        self._folder = folder
        self._first = first
        self._client = client
        self._told = told
        self._progress = folder.progress()
        self._progress.error = None
        self._held = set(self._progress.held)  # by an earlier delivery
        self._thinning = Thinning(first.thin_after, self._progress.seen)
        self._batch = Batch(self._thinning)

    def run(self) -> Progress:
        if self._progress.ended:
            return self._progress
        run_id = self._ensure_run()
        taken = self._progress.offset
        for record, end in read(self._folder.journal, self._progress.offset):
            self._take(record, run_id, taken)
            taken = end
        if not self._progress.ended:  # else the folder goes, and all that is noted in it
            self._flush(run_id, taken)
        return self._progress

    def _take(self, record: AnyRecord | None, run_id: str, before: int) -> None:
        if self._batch.full:  # without this record: what progress says of those before it is true then
            self._flush(run_id, before)
        match record:
            case None:
                self._progress.damaged += 1
                self._batch.tags["mlwrap.damaged_records"] = str(self._progress.damaged)
            case Params(values=values):
                self._batch.params.update(values)
            case Metrics():
                self._batch.add(record)
            case Tags(values=values):
                self._batch.tags.update(values)
            case Artifact() | Model():
                self._flush(run_id, before)
                self._publish(record, run_id)
            case RunEnded(status=status, time=time):
                self._batch.add_held()
                self._flush(run_id, before)
                self._publish_held(run_id)
                self._publish_thinned(run_id)
                self._client.end_run(run_id, status, time)
                verify_models(self._client.tracking_uri, self._progress, self._save)
                self._check_held()
                self._progress.ended = True
            case RunStarted():
                pass

    def _flush(self, run_id: str, taken: int) -> None:
        """Send what waits; all records that end at or before the byte ``taken`` are in MLflow then."""
        refused = self._batch.send(self._client, run_id)
        if refused:
            self._progress.refused |= refused
            told = "; ".join(f"{name}: {why}" for name, why in self._progress.refused.items())
            self._batch.tags["mlwrap.refused"] = told[:5000]
            self._batch.send(self._client, run_id)
        if taken != self._progress.offset:
            self._progress.offset = taken
            self._save()

    def _save(self) -> None:
        self._folder.save_progress(self._progress)
        if self._told is not None:
            self._told(self._progress)

    def _publish(self, record: Artifact | Model, run_id: str) -> None:
        """Put what is staged in its place; what MLflow refuses is held, and the rest of the run goes on."""
        try:
            if isinstance(record, Model):
                publish(self._client, self._folder, record, self._progress, self._save)
                self._finish(record, run_id)
            else:
                self._publish_artifact(run_id, self._folder.path / record.staged, record.path)
        except Refused as error:
            self._client.check_run(run_id)
            self._progress.held[record.staged] = str(error)
        else:
            self._progress.held.pop(record.staged, None)
        self._save()

    def _finish(self, record: Model, run_id: str) -> None:
        """What is to be done with a model that MLflow has."""
        model = self._progress.models[record.staged]
        if model.status != "READY":
            return
        if model.troubles and model.model_id:
            told = {"mlwrap.trouble": " ".join(model.troubles)[:5000]}
            Registry(self._client.tracking_uri).tag(model.model_id, told)
        if record.verify == "load" and model.verified is None:
            model.verified = ""
        if record.register_as is not None and not model.registered:
            Registry(self._client.tracking_uri).register(record, run_id, model, self._save)

    def _publish_held(self, run_id: str) -> None:
        """What an earlier delivery held gets another chance at the run's end, and at each sync after it."""
        for record, _ in read(self._folder.journal) if self._held else ():
            if isinstance(record, Artifact | Model) and record.staged in self._held:
                self._publish(record, run_id)

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
            self._progress.held[record.staged] = str(error)
            shutil.rmtree(file.parent, ignore_errors=True)
        else:
            self._publish(record, run_id)

    def _alive(self) -> None:
        self._progress.seconds += 1
        self._save()

    def _check_held(self) -> None:
        if self._progress.held:
            told = "; ".join(f"{staged}: {why}" for staged, why in self._progress.held.items())
            raise Refused(f"MLflow has the run, but would not take {told}")

    def _publish_artifact(self, run_id: str, staged: Path, path: str) -> None:
        if not staged.exists():  # an earlier delivery got this far, and no further
            return
        self._client.log_artifact(run_id, staged, path)
        if self._first.tracking_uri.startswith(("http:", "https:")):
            self._check_arrived(run_id, staged, path)
        shutil.rmtree(staged.parent, ignore_errors=True)

    def _check_arrived(self, run_id: str, staged: Path, path: str) -> None:
        """A proxy's page looks like success to MLflow's client."""
        if staged.is_dir():
            files = {
                f"{path}/{f.relative_to(staged).as_posix()}": f for f in staged.rglob("*") if f.is_file()
            }
            there = self._client.artifact_sizes(run_id, path) if files else {}
        else:
            files = {path: staged}
            there = self._client.artifact_sizes(run_id, path.rpartition("/")[0])
        for name, file in files.items():
            if not has_arrived(file, name, there):
                raise Unreachable(f"the artifact {name!r} was sent, and is not there.")

    def _ensure_run(self) -> str:
        progress, first = self._progress, self._first
        if progress.run_id is not None:
            return progress.run_id
        experiment_id = first.experiment_id or experiments.experiment_id(self._client, first.experiment)
        progress.experiment_id = experiment_id
        if progress.asked:  # and died before the answer was written down
            progress.run_id = self._client.find_run(first.key, experiment_id)
        if progress.run_id is None:
            progress.asked = True
            self._save()
            tags = {**first.tags, "mlwrap.key": first.key, **self._parent_tags(experiment_id)}
            try:
                progress.run_id = self._client.create_run(experiment_id, first.name, first.time, tags)
            except Refused:
                if first.experiment_id is None:
                    experiments.forget(self._client, first.experiment)
                    experiments.experiment_id(self._client, first.experiment)  # says so if it is deleted
                raise
        self._save()
        return progress.run_id

    def _parent_tags(self, experiment_id: str) -> dict[str, str]:
        parent = self._first.parent_run_id
        if self._first.parent_key is not None:
            folder = RunFolder(self._folder.path.parent / self._first.parent_key)
            with contextlib.suppress(JournalError):  # delivered and gone in this very moment
                if folder.journal.exists():  # still open: make its run, so that there is a parent to name
                    parent = folder.progress().run_id or deliver(folder).run_id
            parent = parent or self._client.find_run(self._first.parent_key, experiment_id)
        return {"mlflow.parentRunId": parent} if parent else {}
