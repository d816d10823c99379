"""Look up runs, their models and the trials of sweeps in MLflow. Delivery makes none of these requests."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow.artifacts
from mlflow.entities import LoggedModel, LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion

from mlwrap._journal.tags import TagName
from mlwrap._journal.uri_passwords import with_password
from mlwrap._mlflow.client import Client
from mlwrap._mlflow.server_errors import classifies_errors, without_client_retries
from mlwrap._spool.sweep_trials import FinishedTrial
from mlwrap.errors import Refused


class Queries(Client):
    """MLflow's client with the requests that look things up; see :class:`Client`."""

    @classifies_errors
    def experiment_name(self, experiment_id: str) -> str:
        """Return the name of the experiment with this id."""
        return str(self._mlflow.get_experiment(experiment_id).name)

    @classifies_errors
    def search(self, experiment_id: str, wanted: str, page: int = 1000) -> list[Run]:
        """Return all runs of an experiment that match an MLflow filter, newest first."""
        runs: list[Run] = []
        token: str | None = ""
        while token is not None:
            page_of_runs = self._mlflow.search_runs(
                [experiment_id], wanted, max_results=page, page_token=token or None
            )
            runs += page_of_runs
            token = page_of_runs.token or None
        return runs

    @classifies_errors
    def newest_run(self) -> Run | None:
        """Return the run that mlwrap delivered last, in any experiment."""
        experiments = [e.experiment_id for e in self._mlflow.search_experiments()]
        runs: Sequence[Run] = self._mlflow.search_runs(
            experiments, f"tags.`{TagName.KEY}` != ''", max_results=1, order_by=["attributes.start_time DESC"]
        )
        # MLflow 3.4 lists no models of a run that it has searched for.
        return self._mlflow.get_run(runs[0].info.run_id) if runs else None

    @classifies_errors
    def get_run(self, run_id: str) -> Run:
        """Return the run with this id."""
        return self._mlflow.get_run(run_id)

    @classifies_errors
    def get_model(self, model_id: str) -> LoggedModel:
        """Return the LoggedModel with this id."""
        return self._mlflow.get_logged_model(model_id)

    @classifies_errors
    def unsaved_models(self, run: Run) -> list[LoggedModel]:
        """Return a run's FAILED LoggedModels, which MLflow does not list as its outputs."""
        filter_string = f"source_run_id = '{run.info.run_id}'"
        models = self._mlflow.search_logged_models([run.info.experiment_id], filter_string)
        return [model for model in models if model.status == LoggedModelStatus.FAILED]

    @classifies_errors
    def model_version(self, name: str, version_or_alias: str) -> ModelVersion:
        """Return a registered model's version, by its number, ``@alias`` or ``latest``."""
        if version_or_alias.startswith("@"):
            return self._mlflow.get_model_version_by_alias(name, version_or_alias[1:])
        if version_or_alias == "latest":
            versions: Sequence[ModelVersion] = self._mlflow.search_model_versions(f"name = '{name}'")
            if not versions:
                raise Refused(f"there is no version of {name!r}.")
            return max(versions, key=lambda candidate: int(candidate.version))
        return self._mlflow.get_model_version(name, version_or_alias)

    def download_files(self, location: str, folder: Path) -> Path:
        """Download the files at an artifact location into a folder and return their path."""
        uri = with_password(self.tracking_uri)
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=str(folder), tracking_uri=uri)
        )


class RunModel(NamedTuple):
    """A model that a run logged.

    Attributes:
        entity: MLflow's LoggedModel.
        name: The model's name.
        step: The step that the model was logged for.
        call: Index of the call that logged it in the run; 0 if an older mlwrap logged it.
        checkpoint: Whether the model is a checkpoint.
    """

    entity: LoggedModel
    name: str
    step: int
    call: int
    checkpoint: bool

    @property
    def label(self) -> str:
        """The model's name, with its step if it was logged for one: ``checkpoint@3``."""
        return f"{self.name}@{self.step}" if self.checkpoint or self.step else self.name


def run_outputs(client: Queries, run: Run) -> list[RunModel]:
    """Return the models that are outputs of a run, in the order of logging."""
    outputs = run.outputs.model_outputs if run.outputs else ()
    return _in_order([_run_model(client.get_model(output.model_id), int(output.step)) for output in outputs])


def with_unsaved(client: Queries, run: Run, models: list[RunModel]) -> list[RunModel]:
    """Return ``models`` and the run's models that could not be saved, except unsaved checkpoints."""
    unsaved: list[LoggedModel] = []
    with contextlib.suppress(Refused):  # the server has no LoggedModels
        unsaved = client.unsaved_models(run)
    all_models = _in_order([*models, *(_run_model(model, 0) for model in unsaved)])
    return [m for m in all_models if not (m.checkpoint and m.entity.status == LoggedModelStatus.FAILED)]


def _run_model(model: LoggedModel, step: int) -> RunModel:
    call = model.tags.get(TagName.CALL, "")
    is_checkpoint = model.tags.get(TagName.CHECKPOINT) == "true"
    return RunModel(model, str(model.name), step, int(call) if call.isdecimal() else 0, is_checkpoint)


def _in_order(models: list[RunModel]) -> list[RunModel]:
    return sorted(models, key=lambda m: (m.call, m.entity.creation_timestamp))


def finished_trials(
    tracking_uri: str, experiment: str | None, experiment_id: str | None, sweep: str | None
) -> list[tuple[str, FinishedTrial]]:
    """Return the FINISHED trials of sweeps in MLflow, each with its digest, newest first.

    Args:
        tracking_uri: URI of MLflow.
        experiment: Name of the trials' experiment; ``None`` for MLflow's default one.
        experiment_id: MLflow's id of the experiment, which overrides the name.
        sweep: The sweep's own id; ``None`` for any sweep.

    Raises:
        DeliveryError: MLflow could not be queried.
    """
    with without_client_retries():
        client = Queries(tracking_uri)
        in_experiment = experiment_id or client.experiment_id(experiment)
        filter_string = f"attributes.status = 'FINISHED' and tags.`{TagName.TRIAL}` != ''"
        if sweep is not None:
            filter_string += f" and tags.`{TagName.SWEEP}` = '{sweep}'"
        return [
            (
                run.data.tags[TagName.TRIAL],
                FinishedTrial(run.data.tags.get(TagName.KEY, ""), run.info.run_id, dict(run.data.metrics)),
            )
            for run in client.search(in_experiment, filter_string)
        ]


def sweep_of(tracking_uri: str, experiment: str | None, experiment_id: str | None, run: str) -> str | None:
    """Return the sweep's own id for the id or key of its run; ``None`` if no such sweep exists.

    Raises:
        DeliveryError: MLflow could not be queried.
    """
    with without_client_retries():
        client = Queries(tracking_uri)
        in_experiment = experiment_id or client.experiment_id(experiment)
        try:
            runs = [client.get_run(run)]
        except Refused:  # not an id of MLflow's
            runs = client.search(in_experiment, f"tags.`{TagName.KEY}` = '{run}'")
        return next(
            (tags[TagName.SWEEP] for tags in (run.data.tags for run in runs) if TagName.SWEEP in tags), None
        )
