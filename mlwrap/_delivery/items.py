"""The models and artifacts of one run, each delivered on its own: one that MLflow won't take holds up none.

An item that fails while the server answers is *set aside*: the delivery goes on, and the item is tried again
at the run's end, and by every later delivery. What fails the same way each time is refused: the run says so.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from mlwrap._delivery.publish_model import MAX_REASON, create, fail, has_arrived, metrics_of, publish
from mlwrap._journal.names import artifact_path
from mlwrap._journal.progress import Failing, Progress
from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Artifact, Checksums, Model
from mlwrap._journal.tags import TagName
from mlwrap._mlflow.client import Client, MetricPoint
from mlwrap._mlflow.errors import classify_error, http_status
from mlwrap._mlflow.model_registry import Registry
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.staged_files import check_content, check_staged, with_checksums
from mlwrap.errors import DeliveryError, JournalError, OptionError, Refused, SpoolError, Unreachable

_MAX_RETRIES = 2  # after the first
_SERVER_ERROR = 500
# What an operating system says of a name, or of what is in its way: not of a disk, or of a line.
_REFUSALS = {
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.EINVAL, errno.EILSEQ, errno.ELOOP),
}


class Items:
    """Delivers the models and artifacts of one run.

    Args:
        client: Where to.
        folder: The run folder that they are staged in.
        progress: How far the run's delivery got; brought up to date here.
        save: Writes ``progress`` down.
    """

    def __init__(
        self, client: Client, folder: RunFolder, progress: Progress, save: Callable[[], None]
    ) -> None:
        self._client = client
        self._folder = folder
        self._progress = progress
        self._save = save
        self._set_aside = set(progress.held)  # by an earlier delivery
        self._unreachable: set[str] = set()  # of those that are set aside
        self._has_metrics: str | None = None  # the model whose metrics are in MLflow

    def create(self, record: Model) -> list[MetricPoint]:
        """Make MLflow's LoggedModel, and give its metrics to send with the run's own: that saves a request.

        Where it can't be made there are none, and :meth:`deliver` finds out why.

        Raises:
            Unreachable: Nobody answered, or the server asks to wait.
        """
        if record.error is not None or self._client.is_file_store:  # there one would be told twice
            return []
        try:
            model_id = create(self._client, self._folder, record, self._progress, self._save).model_id
        except DeliveryError as error:
            if isinstance(error, Unreachable) and (error.retry_after or http_status(error.__cause__) is None):
                raise
            return []
        return metrics_of(record, model_id) if model_id else []

    def note_metrics(self, record: Model) -> None:
        """Note that what :meth:`create` gave has been sent."""
        self._has_metrics = record.staged

    def deliver(self, record: Artifact | Model, run_id: str, *, is_last_chance: bool = False) -> None:
        """Put what is staged in its place, or set it aside.

        Args:
            record: The item.
            run_id: Its run.
            is_last_chance: Whether it is not tried again by this delivery.

        Raises:
            Unreachable: The server does not answer, or it does and this item may arrive at the next try.
            Refused: The run is deleted.
        """
        progress = self._progress
        try:
            self._put(record, run_id)
        except Exception as error:
            if getattr(error, "retry_after", None):
                raise
            self._check_server(run_id)
            before = progress.failing
            if before is None or before.staged != record.staged:
                before = Failing(staged=record.staged, reason="", tries=0)
            why, is_final = self._reason(error, before.reason)
            if not is_final and not is_last_chance and before.tries < _MAX_RETRIES:
                progress.failing = Failing(staged=record.staged, reason=why, tries=before.tries + 1)
                self._save()
                raise Unreachable(f"{_label(record)}: {why}") from error
            self.set_aside(record, why, is_final=is_final)
        else:
            progress.held.pop(record.staged, None)
            self._unreachable.discard(record.staged)

    def set_aside(self, record: Artifact | Model, why: str, *, is_final: bool) -> None:
        """Note that an item is not in MLflow.

        Args:
            record: The item.
            why: The reason.
            is_final: Whether it would fail the same way again.
        """
        what = (
            f"the registered version of {_label(record)}" if self._is_ready(record.staged) else _label(record)
        )
        self._progress.held[record.staged] = f"{what}: {why}"
        (self._unreachable.discard if is_final else self._unreachable.add)(record.staged)

    def deliver_set_aside(self, run_id: str) -> None:
        """Try once more, at the run's end, what was set aside before."""
        waiting = self._set_aside | self._unreachable
        for record, _ in read_records(self._folder.journal) if waiting else ():
            if isinstance(record, Artifact | Model) and record.staged in waiting:
                self.deliver(record, run_id, is_last_chance=True)

    def close(self, run_id: str) -> None:
        """Say on the run what was refused, and close the models among it as FAILED."""
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
            progress.refused_tag = None  # until it is known what the run says
            self._save()
            if text:
                self._client.log_batch(run_id, [], [], [(TagName.REFUSED, text)])
            else:
                self._client.delete_tag(run_id, TagName.REFUSED)
            progress.refused_tag = text
        if changed or progress.held:
            self._save()

    def check(self) -> None:
        """Make sure that nothing is left in the run folder that MLflow does not have.

        Raises:
            Unreachable: Something is left that is worth trying again.
            Refused: Something is left that MLflow would not take.
        """
        held = self._progress.held
        for staged in held.keys() - self._unreachable:
            if not (self._folder.path / staged).exists() and not self._is_ready(staged):
                # There is nothing to try again with.
                self._progress.refused[staged] = held.pop(staged)
        if held:
            kind = Unreachable if self._unreachable else Refused
            raise kind(f"MLflow has the run, but not {'; '.join(held.values())}")

    def _is_ready(self, staged: str) -> bool:
        """Whether MLflow has a model whole, so that only the registry does not."""
        model = self._progress.models.get(staged)
        return model is not None and model.status == "READY"

    def remove(self, record: Artifact | Model) -> None:
        """Remove the stage of an item that MLflow has: once it is written down that it does."""
        if record.staged not in self._progress.held:
            self._remove_stage(record)

    def _check_server(self, run_id: str) -> None:
        """Make sure that the server answers, so that it is the item that failed.

        Raises:
            Unreachable: It does not.
            Refused: The run is deleted.
        """
        try:
            self._client.check_run(run_id)
        except Unreachable:  # a server that fails over a file may close the connection for good
            self._client.check_run(run_id)

    def _put(self, record: Artifact | Model, run_id: str) -> None:
        record = self._with_checksums(record)
        if isinstance(record, Model):
            has_metrics = record.staged == self._has_metrics
            publish(self._client, self._folder, record, self._progress, self._save, has_metrics=has_metrics)
            self._finish(record, run_id)
        else:
            self._put_artifact(record, run_id)

    def _put_artifact(self, record: Artifact, run_id: str) -> None:
        staged = self._folder.staged_path(record.staged)
        path = str(artifact_path(record.path))
        if staged.exists():
            self._check_files(staged.parent, record)
            self._client.log_artifact(run_id, staged, path)
            if self._client.is_remote:
                self._check_arrived(run_id, staged, path)
        elif not (self._progress.rebuilt and self._has_artifact(run_id, record)):
            raise Refused("its file is gone from the run folder, so it is lost.")

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

    def _has_artifact(self, run_id: str, record: Artifact) -> bool:
        """Whether MLflow has an artifact whose stage a delivery has removed whose progress is lost."""
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DeliveryError, OSError):
            there = self._client.download(run_id, record.path, Path(folder)).parent
            self._check_files(there, record)
            return bool(record.files)
        return False

    @staticmethod
    def _check_files(folder: Path, record: Artifact) -> None:
        """Make sure that a folder holds the artifact's files as they were saved."""
        check_staged(folder, record.files)
        for name, file in with_checksums(folder, record.files).items():
            check_content(name, record.files[name], file.crc or 0)

    def _finish(self, record: Model, run_id: str) -> None:
        """What is to be done with a model that MLflow has."""
        model = self._progress.models[record.staged]
        if model.status != "READY":
            return
        if model.troubles and model.model_id:
            self._client.tag_model(model.model_id, {TagName.TROUBLE: " ".join(model.troubles)[:MAX_REASON]})
        if record.verify == "load" and model.verified is None:
            model.verified = ""
        if record.register_as is not None and not model.registered:
            Registry(self._client.tracking_uri).register(record, run_id, model, self._save)

    def _with_checksums(self, record: Artifact | Model) -> Artifact | Model:
        """The record, with the checksums that came later for what was large."""
        if all(file.crc is not None for file in record.files.values()):
            return record
        for later, _ in read_records(self._folder.journal, self._progress.offset):
            if isinstance(later, Checksums) and later.staged == record.staged:
                return msgspec.structs.replace(record, files=later.files)
        return record

    def _remove_stage(self, record: Artifact | Model) -> None:
        stage = self._folder.path / record.staged
        shutil.rmtree(stage if isinstance(record, Model) else stage.parent, ignore_errors=True)

    def _reason(self, error: Exception, before: str) -> tuple[str, bool]:
        """Why an item failed, and whether it would fail the same way again."""
        problem = error if isinstance(error, DeliveryError) else self._sorted(error)
        why = str(problem)
        if not isinstance(problem, Unreachable):
            return why, True
        cause = error if problem is not error else problem.__cause__
        if cause is None or http_status(cause) == _SERVER_ERROR:  # it was sent, and is not there; or a 500
            return why, why == before
        return why, isinstance(cause, OSError) and cause.errno in _REFUSALS

    def _sorted(self, error: Exception) -> DeliveryError:
        if isinstance(error, SpoolError | JournalError | OptionError):
            return Refused(str(error))
        return classify_error(error, self._client.tracking_uri)


def _label(record: Artifact | Model) -> str:
    return f"the model {record.name!r}" if isinstance(record, Model) else f"the artifact {record.path!r}"
