"""MLflow's client, limited to the requests that delivery makes, with classified errors."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import (
    Experiment,
    FileInfo,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from mlwrap._journal.records import Status
from mlwrap._journal.tags import TagName
from mlwrap._journal.uri_passwords import with_password, without_password
from mlwrap._mlflow.connection import check_listening, exclusive_open
from mlwrap._mlflow.file_store import not_logged
from mlwrap._mlflow.model_files.files import local_path
from mlwrap._mlflow.server_errors import asked_without_retries, classifies_errors, classify_error
from mlwrap._mlflow.sqlite_store import absolute_uri, artifact_root, existing_directory
from mlwrap._mlflow.undocumented import ARTIFACT_REPOSITORY, OPEN_STORE
from mlwrap.errors import DeliveryError, Refused, Unreachable

# MLflow's limits for one batch: all entities, and parameters or tags among them.
BATCH = 1000
BATCH_OF_PARAMS = 100


class MlflowRun(NamedTuple):
    """A run in MLflow: its id, its experiment's id, and where its artifacts are stored."""

    run_id: str
    experiment_id: str
    artifact_uri: str

    @classmethod
    def of(cls, run: Run) -> MlflowRun:
        """Return what delivery needs to know of a run."""
        info = run.info
        return cls(_id_or_refuse(info.run_id), str(info.experiment_id), str(info.artifact_uri or ""))


MetricPoint = tuple[str, float, int, int] | tuple[str, float, int, int, str]
"""Name, value, milliseconds since the epoch, step; optionally the id of the LoggedModel it belongs to."""


class Client:
    """Send delivery's requests to MLflow, as few as possible.

    Args:
        tracking_uri: URI of the tracking server or store; ``None`` for MLflow's own choice.
        folder: The training's working directory, where a new experiment of an SQL store keeps its artifacts.

    Attributes:
        tracking_uri: The same URI, without a password.
        asks_once: Whether each request is sent once, without MLflow's retries: the client was created within
            :func:`without_client_retries`.
        may_repeat: Whether an interrupted delivery may already have logged some of what is logged now.

    Raises:
        Refused: The password of the URI is not available in this process.
        Unreachable: The store is busy.
        ServerNotListening: Nothing listens at an HTTP server's URI; MLflow's client would retry for minutes.
    """

    def __init__(self, tracking_uri: str | None = None, folder: str | None = None) -> None:
        full_uri = with_password(tracking_uri or mlflow.get_tracking_uri())
        self.tracking_uri = uri = without_password(full_uri)
        self.asks_once = asked_without_retries()
        root = None if folder is None else artifact_root(full_uri, folder)
        full_uri = absolute_uri(full_uri)
        try:
            check_listening(uri)
            with exclusive_open(uri), existing_directory(full_uri, folder):
                # Open this store first: opening it creates the store's first experiment.
                open_store = None if root is None else OPEN_STORE.find()
                self._folder_store = open_store and open_store(full_uri, root)
                self._mlflow = MlflowClient(full_uri)
        except DeliveryError:
            raise
        except Exception as error:
            raise classify_error(error, uri) from error
        self._artifact_root = root
        self._stores: dict[str, ArtifactRepository] = {}
        self.may_repeat = False

    @property
    def is_file_store(self) -> bool:
        """Whether MLflow keeps its runs in plain files, where logging a data point again duplicates it."""
        return local_path(self.tracking_uri) is not None

    @property
    def is_remote(self) -> bool:
        """Whether the store is reached over HTTP."""
        return self.tracking_uri.startswith(("http:", "https:"))

    @classifies_errors
    def experiment_id(self, name: str | None) -> str:
        """Return the id of the experiment called ``name``, creating it if missing; ``None``: the default."""
        experiment: Experiment | None = self._mlflow.get_experiment_by_name(name or "Default")
        if experiment is None:
            try:
                return _id_or_refuse(self._create_experiment(name or "Default"))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = self._mlflow.get_experiment_by_name(name or "Default")  # another process created it
        if experiment is None or experiment.lifecycle_stage != "active":
            raise Refused(
                f"the experiment {name!r} at {self.tracking_uri} is deleted. Restore it "
                "(mlflow experiments restore) or name another."
            )
        return str(experiment.experiment_id)

    def _create_experiment(self, name: str) -> str:
        if self._folder_store is not None:
            return str(self._folder_store.create_experiment(name))
        location = self._artifact_root and str(Path(self._artifact_root) / uuid.uuid4().hex)
        return str(self._mlflow.create_experiment(name, location))

    @classifies_errors
    def find_run(self, key: str, experiment_id: str) -> MlflowRun | None:
        """Return the run created for the run folder ``key``, or ``None``."""
        runs = self._mlflow.search_runs([experiment_id], f"tags.`{TagName.KEY}` = '{key}'", max_results=1)
        return MlflowRun.of(runs[0]) if runs else None

    @classifies_errors
    def create_run(self, experiment_id: str, name: str, time: int, tags: dict[str, str]) -> MlflowRun:
        """Create a run that started at ``time`` (ms)."""
        run: Run = self._mlflow.create_run(experiment_id, start_time=time, tags=tags, run_name=name)
        return MlflowRun.of(run)

    @classifies_errors
    def reopen_run(self, run_id: str, tags: dict[str, str]) -> MlflowRun:
        """Set an existing run to RUNNING, and tag it.

        As with ``mlflow.start_run(run_id=…)``, its name and its source tags stay as they are.

        Raises:
            Refused: The run was deleted or does not exist.
        """
        self.check_run(run_id)
        run = self._mlflow.get_run(run_id)
        self._mlflow.update_run(run_id, status="RUNNING")
        existing_tags = {name for name in run.data.tags if name.startswith("mlflow.")}
        self.log_batch(
            run_id, (), (), [(name, text) for name, text in tags.items() if name not in existing_tags]
        )
        return MlflowRun.of(run)

    @classifies_errors
    def existing_run(self, run_id: str) -> MlflowRun:
        """Return the run with this id."""
        return MlflowRun.of(self._mlflow.get_run(run_id))

    @classifies_errors
    def check_run(self, run_id: str) -> None:
        """Check that a run exists and can be written to.

        Raises:
            Refused: The run was deleted or does not exist.
        """
        info = self._mlflow.get_run(run_id).info
        _id_or_refuse(info.run_id)
        if info.lifecycle_stage != "active":
            raise Refused(
                f"run {run_id} at {self.tracking_uri} was deleted, so nothing more is sent. Restore it "
                "(mlflow runs restore) and run 'mlwrap sync', or remove what waits with 'mlwrap clean'."
            )

    @classifies_errors
    def log_batch(
        self,
        run_id: str,
        params: Sequence[tuple[str, str]],
        metrics: Sequence[MetricPoint],
        tags: Sequence[tuple[str, str]],
    ) -> None:
        """Log parameters, metrics (name, value, time, step) and tags, in one request if they fit.

        A metric that ends with the id of a LoggedModel is logged for that model too.
        """
        if self.may_repeat and self.is_file_store:
            metrics = not_logged(self._mlflow, run_id, metrics)
        waiting_params, waiting_metrics = [Param(*p) for p in params], [Metric(*m) for m in metrics]
        waiting_tags = [RunTag(*t) for t in tags]
        while waiting_params or waiting_metrics or waiting_tags:
            some_params, waiting_params = waiting_params[:BATCH_OF_PARAMS], waiting_params[BATCH_OF_PARAMS:]
            some_tags, waiting_tags = waiting_tags[:BATCH_OF_PARAMS], waiting_tags[BATCH_OF_PARAMS:]
            room = BATCH - len(some_params) - len(some_tags)
            some_metrics, waiting_metrics = waiting_metrics[:room], waiting_metrics[room:]
            self._mlflow.log_batch(run_id, some_metrics, some_params, some_tags, synchronous=True)

    @classifies_errors
    def delete_tag(self, run_id: str, name: str) -> None:
        """Remove a tag of a run, if the run has it."""
        if name in self._mlflow.get_run(run_id).data.tags:
            self._mlflow.delete_tag(run_id, name)

    @classifies_errors
    def create_model(
        self, experiment_id: str, run_id: str, name: str, tags: dict[str, str], params: dict[str, str]
    ) -> LoggedModel:
        """Create a PENDING LoggedModel; with at most 100 parameters this is one request."""
        model: LoggedModel = self._mlflow.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, tags=tags, params=params
        )
        _id_or_refuse(model.model_id)
        return model

    @classifies_errors
    def find_model(self, key: str, experiment_id: str) -> LoggedModel | None:
        """Return the LoggedModel created under this key, or ``None``."""
        models = self._mlflow.search_logged_models(
            [experiment_id], f"tags.`{TagName.KEY}` = '{key}'", max_results=1
        )
        return models[0] if models else None

    @classifies_errors
    def upload(self, location: str, file: Path, path: str) -> None:
        """Upload one file to the relative ``path`` at an artifact location."""
        folder = path.rpartition("/")[0] or None
        self._store(location).log_artifact(str(file), folder)  # type: ignore[no-untyped-call] # MLflow's

    @classifies_errors
    def download(self, location: str, path: str, into: Path) -> Path:
        """Download a file or folder from an artifact location into the folder ``into``; return its path."""
        return Path(self._store(location).download_artifacts(path, str(into)))  # type: ignore[no-untyped-call]

    @classifies_errors
    def uploaded_sizes(self, location: str, folder: str) -> dict[str, int | None]:
        """Return the files of a folder of an artifact location, with sizes; ``""`` is the location itself."""
        listed: list[FileInfo] = self._store(location).list_artifacts(folder or None)
        return {file.path: file.file_size for file in listed if not file.is_dir}

    def _store(self, location: str) -> ArtifactRepository:
        if location not in self._stores:
            if (open_location := ARTIFACT_REPOSITORY.find()) is None:
                raise DeliveryError(f"artifacts wait, for this MLflow has no {ARTIFACT_REPOSITORY.name}().")
            self._stores[location] = open_location(location, tracking_uri=self._mlflow.tracking_uri)
        return self._stores[location]

    @classifies_errors
    def link_model(self, run_id: str, model_id: str, step: int) -> None:
        """Link a LoggedModel as an output of a run, so that ``runs:/<run>/<name>`` resolves to it."""
        try:
            self._mlflow.log_outputs(run_id, [LoggedModelOutput(model_id, step=step)])
        except MlflowException:  # also raised where the link exists, its response having been lost
            outputs = self._mlflow.get_run(run_id).outputs
            if outputs is None or model_id not in {output.model_id for output in outputs.model_outputs}:
                raise

    @classifies_errors
    def log_model_metrics(self, run_id: str, model_id: str, metrics: Sequence[MetricPoint]) -> None:
        """Log data points of a run for a LoggedModel too; repeating the call adds nothing."""
        points = [Metric(*point) for point in metrics]
        if self.is_file_store:
            logged = {(m.key, m.step) for m in self._mlflow.get_logged_model(model_id).metrics or ()}
            points = [point for point in points if (point.key, point.step) not in logged]
        for start in range(0, len(points), BATCH):
            self._mlflow.log_batch(run_id, points[start : start + BATCH], synchronous=True)

    @classifies_errors
    def tag_model(self, model_id: str, tags: dict[str, str]) -> None:
        """Set tags of a LoggedModel."""
        self._mlflow.set_logged_model_tags(model_id, tags)

    @classifies_errors
    def finalize_model(self, model_id: str, *, ready: bool) -> None:
        """Close a LoggedModel as READY or FAILED."""
        status = LoggedModelStatus.READY if ready else LoggedModelStatus.FAILED
        self._mlflow.finalize_logged_model(model_id, status)

    @classifies_errors
    def end_run(self, run_id: str, status: Status, time: int) -> None:
        """Set a run's final status and its end time (ms)."""
        self._mlflow.set_terminated(run_id, status=status, end_time=time)


def _id_or_refuse(new_id: object) -> str:
    """Return the id that MLflow assigned; it is empty where a proxy answered with an empty page."""
    if not new_id:
        raise Unreachable("the answer to a request was empty, so it was not MLflow's.")
    return str(new_id)
