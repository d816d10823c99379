"""Deliver the models and artifacts of one run independently: a refused item does not block the others.

An item that fails while the server answers is *set aside*: the delivery continues, and the item is tried
again at the end of the run, and by every later delivery. An item that fails the same way each time counts as
refused, and a tag of the run says so.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from mlwrap._delivery.publishing.publish_artifact import publish_artifact, publish_together
from mlwrap._delivery.publishing.publish_model import (
    MAX_REASON,
    create,
    fail,
    metrics_of,
    publish,
)
from mlwrap._delivery.publishing.upload_in_parts import abort_uploads
from mlwrap._journal.progress import Failing, Progress
from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Artifact, Checksums, Model
from mlwrap._journal.tags import TagName
from mlwrap._mlflow.client import Client, MetricPoint
from mlwrap._mlflow.model_registry import Registry
from mlwrap._mlflow.server_errors import classify_error, http_status
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import DeliveryError, JournalError, OptionError, Refused, SpoolError, Unreachable

T = TypeVar("T", Artifact, Model)

_MAX_RETRIES = 2  # after the first
_SERVER_ERROR = 500
# Errors about a name, or about a file at that path: unlike errors of a disk or a network, they stay.
_REFUSALS = {
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.EINVAL, errno.EILSEQ, errno.ELOOP),
}


class Items:
    """Delivers the models and artifacts of one run.

    Args:
        client: The client of the MLflow to deliver to.
        folder: The run folder that contains the staged files.
        progress: The progress of the run's delivery; updated here.
        save: Saves ``progress``.
    """

    def __init__(
        self, client: Client, folder: RunFolder, progress: Progress, save: Callable[[], None]
    ) -> None:
        self._client = client
        self._folder = folder
        self._progress = progress
        self._save = save
        self._unreachable: set[str] = set()  # set aside, but worth trying again
        self._has_metrics: str | None = None  # the model whose metrics are in MLflow

    def create(self, record: Model) -> list[MetricPoint]:
        """Create MLflow's LoggedModel, and return its metrics, which are sent in the run's own request.

        If it can't be created, return none; :meth:`deliver` then finds the reason.

        Raises:
            Unreachable: The server did not answer, or asks to wait.
        """
        if record.error is not None or self._client.is_file_store:  # a file store would get a point twice
            return []
        try:
            model_id = create(self._client, self._folder, record, self._progress, self._save).model_id
        except DeliveryError as error:
            if isinstance(error, Unreachable) and (error.retry_after or http_status(error.__cause__) is None):
                raise
            return []
        return metrics_of(record, model_id) if model_id else []

    def note_metrics(self, record: Model) -> None:
        """Note that the metrics from :meth:`create` have been sent."""
        self._has_metrics = record.staged

    def deliver(self, record: Artifact | Model, run_id: str, *, is_last_chance: bool = False) -> None:
        """Deliver an item, or set it aside.

        Args:
            record: The item.
            run_id: MLflow's id of the run.
            is_last_chance: Whether this delivery does not try the item again.

        Raises:
            Unreachable: The server does not answer, or it answers and the next try may succeed.
            Refused: The run is deleted.
        """
        progress = self._progress
        try:
            self._put(record, run_id)
        except Exception as error:
            if getattr(error, "retry_after", None):
                raise
            self._check_server(run_id)
            failing = progress.failing
            if failing is None or failing.staged != record.staged:
                failing = Failing(staged=record.staged, reason="", tries=0)
            why, is_final = self._reason(error, failing.reason)
            if not is_final and not is_last_chance and failing.tries < _MAX_RETRIES:
                progress.failing = Failing(staged=record.staged, reason=why, tries=failing.tries + 1)
                self._save()
                raise Unreachable(f"{_label(record)}: {why}") from error
            self.set_aside(record, why, is_final=is_final)
        else:
            progress.held.pop(record.staged, None)
            self._unreachable.discard(record.staged)

    def deliver_artifacts(self, records: Sequence[Artifact], run_id: str) -> None:
        """Deliver artifacts together; each that fails is delivered by itself, or set aside."""
        if len(records) > 1:
            records = [self._with_checksums(record) for record in records]
            present = publish_together(self._client, self._folder, records, self._progress, self._save)
            records = [record for record in records if record.staged not in present]
        for record in records:
            self.deliver(record, run_id)

    def set_aside(self, record: Artifact | Model, why: str, *, is_final: bool) -> None:
        """Note that an item is not in MLflow.

        Args:
            record: The item.
            why: The reason.
            is_final: Whether it would fail the same way again.
        """
        label = (
            f"the registered version of {_label(record)}" if self._is_ready(record.staged) else _label(record)
        )
        self._progress.held[record.staged] = f"{label}: {why}"
        if is_final:
            abort_uploads(self._progress, record.staged)
        (self._unreachable.discard if is_final else self._unreachable.add)(record.staged)

    def deliver_set_aside(self, run_id: str) -> None:
        """Try the items that are set aside once more, at the end of the run."""
        held = self._progress.held
        for record, _ in read_records(self._folder.journal) if held else ():
            if isinstance(record, Artifact | Model) and record.staged in held:
                self.deliver(record, run_id, is_last_chance=True)

    def close(self, run_id: str) -> None:
        """Tag the run with the items and values that were refused, and mark refused models as FAILED."""
        progress = self._progress
        for staged, why in progress.held.items():
            model = progress.models.get(staged)
            if model is not None and staged not in self._unreachable:
                fail(self._client, model, why)
        reasons = [f"{name}: {why}" for name, why in progress.refused.items()]
        reasons += [why for staged, why in progress.held.items() if staged not in self._unreachable]
        text = "; ".join(reasons)[:MAX_REASON]
        changed = text != progress.refused_tag
        if changed:
            progress.refused_tag = None  # unknown until the request below succeeds
            self._save()
            if text:
                self._client.log_batch(run_id, [], [], [(TagName.REFUSED, text)])
            else:
                self._client.delete_tag(run_id, TagName.REFUSED)
            progress.refused_tag = text
        if changed or progress.held:
            self._save()

    def check(self) -> None:
        """Check that MLflow has every item.

        Raises:
            Unreachable: Items are left that are worth trying again.
            Refused: Items are left, and MLflow refuses all of them.
        """
        set_aside = self._progress.held
        for staged in set_aside.keys() - self._unreachable:
            if not (self._folder.path / staged).exists() and not self._is_ready(staged):
                # Its files are gone, so it can't be tried again.
                self._progress.refused[staged] = set_aside.pop(staged)
        if set_aside:
            kind = Unreachable if self._unreachable else Refused
            raise kind(f"MLflow has the run, but not {'; '.join(set_aside.values())}")

    def _is_ready(self, staged: str) -> bool:
        """Return whether MLflow has a complete model, so that only its registry version is missing."""
        model = self._progress.models.get(staged)
        return model is not None and model.status == "READY"

    def remove(self, record: Artifact | Model) -> None:
        """Remove the stage of an item that MLflow has; call it after the progress is saved."""
        if record.staged not in self._progress.held:
            self._remove_stage(record)

    def _check_server(self, run_id: str) -> None:
        """Check that the server answers, so that the failure belongs to the item.

        Raises:
            Unreachable: The server does not answer.
            Refused: The run is deleted.
        """
        try:
            self._client.check_run(run_id)
        except Unreachable:  # a server that failed on a file may have closed the connection
            self._client.check_run(run_id)

    def _put(self, record: Artifact | Model, run_id: str) -> None:
        if isinstance(record, Model):
            record = self._with_checksums(record)
            has_metrics = record.staged == self._has_metrics
            publish(self._client, self._folder, record, self._progress, self._save, has_metrics=has_metrics)
            self._finish(record, run_id)
        else:
            record = self._with_checksums(record)
            publish_artifact(self._client, self._folder, record, self._progress, self._save)

    def _finish(self, record: Model, run_id: str) -> None:
        """Tag a delivered model with its problems, request its verification, and register it."""
        model = self._progress.models[record.staged]
        if model.status != "READY":
            return
        if model.troubles and model.model_id:
            self._client.tag_model(model.model_id, {TagName.TROUBLE: " ".join(model.troubles)[:MAX_REASON]})
        if record.verify == "load" and model.verified is None:
            model.verified, model.search_path = "", record.search_path
        if record.register_as is not None and not model.registered:
            Registry(self._client.tracking_uri).register(record, run_id, model, self._save)

    def _with_checksums(self, record: T) -> T:
        """Return the record with the checksums of large files, which are recorded later."""
        if all(file.crc is not None for file in record.files.values()):
            return record
        offset = 0 if record.staged in self._progress.held else self._progress.offset
        for later_record, _ in read_records(self._folder.journal, offset):
            if isinstance(later_record, Checksums) and later_record.staged == record.staged:
                return msgspec.structs.replace(record, files=later_record.files)
        return record

    def _remove_stage(self, record: Artifact | Model) -> None:
        stage = self._folder.path / record.staged
        shutil.rmtree(stage if isinstance(record, Model) else stage.parent, ignore_errors=True)

    def _reason(self, error: Exception, previous_reason: str) -> tuple[str, bool]:
        """Return why an item failed, and whether it would fail the same way again."""
        problem = error if isinstance(error, DeliveryError) else self._sorted(error)
        why = str(problem)
        if not isinstance(problem, Unreachable):
            return why, True
        cause = error if problem is not error else problem.__cause__
        # It was sent but did not arrive; or status 500.
        if cause is None or http_status(cause) == _SERVER_ERROR:
            return why, why == previous_reason
        return why, isinstance(cause, OSError) and cause.errno in _REFUSALS

    def _sorted(self, error: Exception) -> DeliveryError:
        if isinstance(error, SpoolError | JournalError | OptionError):
            return Refused(str(error))
        return classify_error(error, self._client.tracking_uri)


def _label(record: Artifact | Model) -> str:
    return f"the model {record.name!r}" if isinstance(record, Model) else f"the artifact {record.path!r}"
