"""Create the MLflow run of a run folder, as a child of its parent; a missing parent is created first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from mlwrap._delivery.leases import leased
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import header
from mlwrap._journal.records import RunStarted
from mlwrap._journal.tags import TagName
from mlwrap._mlflow import experiments
from mlwrap._mlflow.client import Client, MlflowRun
from mlwrap._mlflow.server_errors import without_client_retries
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import is_key
from mlwrap.errors import DeliveryError, JournalError, Refused

LEASE_SECONDS = 10.0
_PARENT_SECONDS = 1.0  # that a child waits for another delivery of its parent


def create_run(folder: RunFolder, seconds: float = LEASE_SECONDS, client: Client | None = None) -> Progress:
    """Create the MLflow run of a folder if it does not exist yet, and deliver nothing else.

    Args:
        folder: The run folder.
        seconds: The maximum time to wait for another delivery of the folder.
        client: A client of the MLflow that the run is delivered to; opened if it is needed.

    Returns:
        The progress of the delivery, with MLflow's ids.

    Raises:
        Unreachable: The server did not answer, or another delivery still works on the folder.
        Refused: The server refused the run.
        JournalError: The folder can't be read.
    """
    progress = folder.progress()
    if progress.run_id is None:
        with leased(folder, seconds), without_client_retries():
            first, progress = header(folder.journal), folder.progress()
            client = client or open_client(first)
            RunCreation(client, folder, first, progress, lambda: folder.save_progress(progress)).create()
    return progress


def open_client(first: RunStarted) -> Client:
    """Return a client for the MLflow that a run is delivered to; creates the tables of a new sqlite store."""
    return Client(first.tracking_uri, first.folder)


class RunCreation:
    """Creates the MLflow run of one run folder.

    Args:
        client: The client of the MLflow to deliver to.
        folder: The run folder, of which the caller has the lease.
        first: The first record of its journal.
        progress: The progress of the run's delivery; updated here.
        save: Saves ``progress``.
    """

    def __init__(
        self,
        client: Client,
        folder: RunFolder,
        first: RunStarted,
        progress: Progress,
        save: Callable[[], None],
    ) -> None:
        self._client = client
        self._folder = folder
        self._first = first
        self._progress = progress
        self._save = save

    def create(self) -> str:
        """Create the run if it does not exist yet, and return MLflow's id of it."""
        progress, first = self._progress, self._first
        if progress.run_id is not None:
            return progress.run_id
        if first.run_id is not None:  # reopening is idempotent, so it is not saved before
            tags = {**first.tags, TagName.KEY: first.key}
            return self._note(self._client.reopen_run(first.run_id, tags))
        experiment_id = first.experiment_id or self._experiment_of_parent()
        experiment_id = experiment_id or experiments.experiment_id(self._client, first.experiment)
        progress.experiment_id = experiment_id
        run = None
        if progress.asked:  # an earlier delivery requested it, and its answer is lost
            run = self._client.find_run(first.key, experiment_id)
            progress.rebuilt = run is not None and progress.rebuilt
        if run is None:
            progress.asked = True
            self._save()
            tags = {**first.tags, TagName.KEY: first.key, **self.parent_tags(experiment_id)}
            try:
                run = self._client.create_run(experiment_id, first.name, first.time, tags)
            except Refused:
                if first.experiment_id is None:
                    experiments.forget(self._client, first.experiment)
                    experiments.experiment_id(self._client, first.experiment)  # raises if it is deleted
                raise
        return self._note(run)

    def _note(self, run: MlflowRun) -> str:
        self._progress.run_id, self._progress.experiment_id, self._progress.artifact_uri = run
        self._save()
        return run.run_id

    def parent_tags(self, experiment_id: str) -> dict[str, str]:
        """Return the tag that names the parent run; note in the progress if the parent has no run yet.

        Args:
            experiment_id: MLflow's id of the run's experiment, in which the parent is searched.
        """
        key, parent_run_id = self._first.parent_key, self._first.parent_run_id
        if key is not None and is_key(key):
            parent = self._parent(key)
            created = parent.run_id if parent is not None else None
            parent_run_id = created or parent_run_id
            if parent_run_id is None and (found := self._client.find_run(key, experiment_id)) is not None:
                parent_run_id = found.run_id
        self._progress.parent_unknown = key is not None and parent_run_id is None
        return {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}

    def _experiment_of_parent(self) -> str | None:
        """Return the id of the parent's experiment, if the run itself names no experiment."""
        key, parent_run_id = self._first.parent_key, self._first.parent_run_id
        if self._first.experiment is not None or (key is None and parent_run_id is None):
            return None
        parent = self._parent(key)
        if parent is not None:
            parent_run_id = parent.run_id or parent_run_id
            if parent.experiment_id is not None:
                return parent.experiment_id
        if parent_run_id is not None:
            with contextlib.suppress(Refused):  # the parent does not exist
                return self._client.existing_run(parent_run_id).experiment_id
        return None

    def _parent(self, key: str | None) -> Progress | None:
        """Return the progress of the parent, whose run is created if missing; deliver nothing else of it."""
        if key is None or not is_key(key):
            return None
        folder = RunFolder(self._folder.path.with_name(key))
        with contextlib.suppress(JournalError, OSError):
            folder.check()
            with contextlib.suppress(DeliveryError):
                if header(folder.journal).tracking_uri == self._first.tracking_uri:
                    return create_run(folder, _PARENT_SECONDS, self._client)
            return folder.progress()
        return None
