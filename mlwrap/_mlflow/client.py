"""MLflow's client, as far as delivery needs it, with its errors sorted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

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
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._tracking_service.utils import _get_store

from mlwrap._journal.records import Status
from mlwrap._journal.uri_passwords import with_password, without_password
from mlwrap._mlflow.connection import check_listening, exclusive_open
from mlwrap._mlflow.errors import asked_without_retries, classifies_errors, classify_error
from mlwrap._mlflow.file_store import not_logged
from mlwrap._mlflow.model_files.files import local_path
from mlwrap._mlflow.small_uploads import SmallFileUploader
from mlwrap._mlflow.sqlite_store import absolute_uri, artifact_root, existing_directory
from mlwrap.errors import DeliveryError, Refused, Unreachable

# MLflow's limits for one batch: entities in all, and of these parameters and tags.
BATCH = 1000
BATCH_OF_PARAMS = 100

MetricPoint = tuple[str, float, int, int] | tuple[str, float, int, int, str]
"""Name, value, milliseconds since the epoch and step; the id of the LoggedModel that it belongs to."""


class Client:
    """What delivery asks of MLflow, in as few requests as it can be asked in.

    Args:
        tracking_uri: Where MLflow is; ``None`` for MLflow's own choice.
        folder: Where the training stood: the artifacts of an experiment made in an SQL store lie there.

    Attributes:
        tracking_uri: The same, without a password.
        asks_once: Whether it sends each request once: it was made within :func:`asking_once`.
        may_repeat: Whether what is logged may have been logged before, by a delivery that was cut short.

    Raises:
        Refused: Its password is not known here.
        Unreachable: Its store is busy.
        NobodyListens: It is an HTTP server and nobody listens there. Asking first costs one connection;
            MLflow's client would go on trying for four minutes.
    """

    def __init__(self, tracking_uri: str | None = None, folder: str | None = None) -> None:
        whole = with_password(tracking_uri or mlflow.get_tracking_uri())
        self.tracking_uri = uri = without_password(whole)
        self.asks_once = asked_without_retries()
        root = None if folder is None else artifact_root(whole, folder)
        whole = absolute_uri(whole)
        try:
            check_listening(uri)
            with exclusive_open(uri), existing_directory(whole, folder):
                # First, for the store's first experiment is made when it is opened.
                self._of_folder = None if root is None else _get_store(whole, root)  # type: ignore[no-untyped-call] # MLflow's
                self._mlflow = MlflowClient(whole)
        except DeliveryError:
            raise
        except Exception as error:
            raise classify_error(error, uri) from error
        self._stores: dict[str, SmallFileUploader] = {}
        self.may_repeat = False

    @property
    def is_file_store(self) -> bool:
        """Whether MLflow keeps its runs in plain files, where a point that is logged again is there twice."""
        return local_path(self.tracking_uri) is not None

    @property
    def is_remote(self) -> bool:
        """Whether MLflow is asked over HTTP."""
        return self.tracking_uri.startswith(("http:", "https:"))

    @classifies_errors
    def experiment_id(self, name: str | None) -> str:
        """The id of the experiment called ``name``, made if there is none; ``None``: the default one."""
        found: Experiment | None = self._mlflow.get_experiment_by_name(name or "Default")
        if found is None:
            try:
                return _id_or_refuse((self._of_folder or self._mlflow).create_experiment(name or "Default"))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._mlflow.get_experiment_by_name(name or "Default")  # somebody else was first
        if found is None or found.lifecycle_stage != "active":
            raise Refused(
                f"the experiment {name!r} at {self.tracking_uri} is deleted. Restore it "
                "(mlflow experiments restore) or name another."
            )
        return str(found.experiment_id)

    @classifies_errors
    def find_run(self, key: str, experiment_id: str) -> str | None:
        """The id of the run that was made for the run folder ``key``, or ``None``."""
        found = self._mlflow.search_runs([experiment_id], f"tags.`mlwrap.key` = '{key}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    @classifies_errors
    def create_run(self, experiment_id: str, name: str, time: int, tags: dict[str, str]) -> str:
        """Make a run that started at ``time`` (ms) and give its id."""
        run: Run = self._mlflow.create_run(experiment_id, start_time=time, tags=tags, run_name=name)
        return _id_or_refuse(run.info.run_id)

    @classifies_errors
    def reopen_run(self, run_id: str, tags: dict[str, str]) -> str:
        """Write on a run that is there: it is RUNNING again, and tagged; gives its experiment's id.

        As with ``mlflow.start_run(run_id=…)``, its name and what it says of its source stay as they are.

        Raises:
            Refused: It was deleted, or is not there.
        """
        self.check_run(run_id)
        run = self._mlflow.get_run(run_id)
        self._mlflow.update_run(run_id, status="RUNNING")
        known = {name for name in run.data.tags if name.startswith("mlflow.")}
        self.log_batch(run_id, (), (), [(name, text) for name, text in tags.items() if name not in known])
        return str(run.info.experiment_id)

    @classifies_errors
    def experiment_of(self, run_id: str) -> str:
        """The id of the experiment that a run is in."""
        return str(self._mlflow.get_run(run_id).info.experiment_id)

    @classifies_errors
    def artifact_uri(self, run_id: str) -> str:
        """Where a run's artifacts lie."""
        return str(self._mlflow.get_run(run_id).info.artifact_uri)

    @classifies_errors
    def check_run(self, run_id: str) -> None:
        """Make sure that a run is there to be written to.

        Raises:
            Refused: It was deleted, or is not there.
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

        A metric that ends with the id of a LoggedModel is that model's, too.
        """
        waiting_params = [Param(*p) for p in params]
        if self.may_repeat and self.is_file_store:
            metrics = not_logged(self._mlflow, run_id, metrics)
        waiting_metrics = [Metric(*m) for m in metrics]
        waiting_tags = [RunTag(*t) for t in tags]
        while waiting_params or waiting_metrics or waiting_tags:
            some_params, waiting_params = waiting_params[:BATCH_OF_PARAMS], waiting_params[BATCH_OF_PARAMS:]
            some_tags, waiting_tags = waiting_tags[:BATCH_OF_PARAMS], waiting_tags[BATCH_OF_PARAMS:]
            room = BATCH - len(some_params) - len(some_tags)
            some_metrics, waiting_metrics = waiting_metrics[:room], waiting_metrics[room:]
            self._mlflow.log_batch(run_id, some_metrics, some_params, some_tags, synchronous=True)

    @classifies_errors
    def delete_tag(self, run_id: str, name: str) -> None:
        """Remove a tag of a run, if it has it."""
        if name in self._mlflow.get_run(run_id).data.tags:
            self._mlflow.delete_tag(run_id, name)

    @classifies_errors
    def log_artifact(self, run_id: str, source: Path, path: str) -> None:
        """Log a file or a folder under the artifact path ``path``."""
        if source.is_dir():
            self._mlflow.log_artifacts(run_id, str(source), path)
        else:
            self._mlflow.log_artifact(run_id, str(source), path.rpartition("/")[0] or None)

    @classifies_errors
    def create_model(
        self, experiment_id: str, run_id: str, name: str, tags: dict[str, str], params: dict[str, str]
    ) -> LoggedModel:
        """Make a LoggedModel that is PENDING; of 100 parameters and fewer it is one request."""
        made: LoggedModel = self._mlflow.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, tags=tags, params=params
        )
        _id_or_refuse(made.model_id)
        return made

    @classifies_errors
    def find_model(self, key: str, experiment_id: str) -> LoggedModel | None:
        """The LoggedModel that was made under this key, or ``None``."""
        found = self._mlflow.search_logged_models(
            [experiment_id], f"tags.`mlwrap.key` = '{key}'", max_results=1
        )
        return found[0] if found else None

    @classifies_errors
    def upload(self, location: str, file: Path, path: str) -> None:
        """Upload one file, which is to have the relative ``path`` at an artifact location."""
        self._store(location).upload(file, path)

    @classifies_errors
    def download(self, run_id: str, path: str, into: Path) -> Path:
        """A copy of an artifact of a run, in the folder ``into``."""
        return Path(self._mlflow.download_artifacts(run_id, path, str(into)))

    @classifies_errors
    def artifact_sizes(self, run_id: str, path: str) -> dict[str, int | None]:
        """A run's artifacts in the folder ``path`` and below, with sizes where the store tells them."""
        return _sizes(lambda folder: self._mlflow.list_artifacts(run_id, folder), path or None)

    @classifies_errors
    def uploaded_sizes(self, location: str, folder: str) -> dict[str, int | None]:
        """The files in a folder of an artifact location, likewise; ``""`` is the location itself."""
        listed: list[FileInfo] = self._store(location).store.list_artifacts(folder or None)
        return {file.path: file.file_size for file in listed if not file.is_dir}

    def _store(self, location: str) -> SmallFileUploader:
        # MLflowClient's own way to a model's files asks for the model first, in each thread that uploads.
        if location not in self._stores:
            store = get_artifact_repository(location, tracking_uri=self._mlflow.tracking_uri)
            self._stores[location] = SmallFileUploader(store)
        return self._stores[location]

    @classifies_errors
    def link_model(self, run_id: str, model_id: str, step: int) -> None:
        """Name a LoggedModel as an output of a run, so that ``runs:/<run>/<name>`` finds it."""
        try:
            self._mlflow.log_outputs(run_id, [LoggedModelOutput(model_id, step=step)])
        except MlflowException:  # which it also raises where that was said before, and the answer lost
            outputs = self._mlflow.get_run(run_id).outputs
            if outputs is None or model_id not in {output.model_id for output in outputs.model_outputs}:
                raise

    @classifies_errors
    def log_model_metrics(self, run_id: str, model_id: str, metrics: Sequence[MetricPoint]) -> None:
        """Say that points of a run are a LoggedModel's, too; once, however often it is said."""
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
        """Close a run with its status and the time (ms) of its end."""
        self._mlflow.set_terminated(run_id, status=status, end_time=time)


def _id_or_refuse(new_id: object) -> str:
    """The id that MLflow gave; it is empty where a proxy answered with an empty page."""
    if not new_id:
        raise Unreachable("the answer to a request was empty, so it was not MLflow's.")
    return str(new_id)


def _sizes(listed: Callable[[str | None], list[FileInfo]], folder: str | None) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for entry in listed(folder):
        found |= _sizes(listed, entry.path) if entry.is_dir else {entry.path: entry.file_size}
    return found
