"""What MLflow is asked to look things up: runs, their models, the points of sweeps. No delivery asks this."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mlflow.artifacts
from mlflow.entities import LoggedModel, LoggedModelStatus, Run

from mlwrap._journal.uri_passwords import with_password
from mlwrap._mlflow.client import Client
from mlwrap._mlflow.errors import classifies_errors, without_client_retries
from mlwrap._spool.sweep_trials import POINT, SWEEP, FinishedTrial
from mlwrap.errors import Refused


class Queries(Client):
    """MLflow's client for those who look things up; see :class:`Client`."""

    @classifies_errors
    def experiment_name(self, experiment_id: str) -> str:
        """The name of the experiment with this id."""
        return str(self._mlflow.get_experiment(experiment_id).name)

    @classifies_errors
    def search(self, experiment_id: str, wanted: str, page: int = 1000) -> list[Run]:
        """All runs of an experiment that a filter of MLflow's lets through, the newest first."""
        found: list[Run] = []
        token: str | None = ""
        while token is not None:
            some = self._mlflow.search_runs(
                [experiment_id], wanted, max_results=page, page_token=token or None
            )
            found += some
            token = some.token or None
        return found

    @classifies_errors
    def newest_run(self) -> Run | None:
        """The run that mlwrap delivered last, in any experiment."""
        experiments = [e.experiment_id for e in self._mlflow.search_experiments()]
        runs: Sequence[Run] = self._mlflow.search_runs(
            experiments, "tags.`mlwrap.key` != ''", max_results=1, order_by=["attributes.start_time DESC"]
        )
        return runs[0] if runs else None

    @classifies_errors
    def get_run(self, run_id: str) -> Run:
        """The run with this id."""
        return self._mlflow.get_run(run_id)

    @classifies_errors
    def get_model(self, model_id: str) -> LoggedModel:
        """The LoggedModel with this id."""
        return self._mlflow.get_logged_model(model_id)

    @classifies_errors
    def unsaved_models(self, run: Run) -> list[LoggedModel]:
        """The LoggedModels of a run that are FAILED, which are no outputs of it."""
        wanted = f"source_run_id = '{run.info.run_id}'"
        found = self._mlflow.search_logged_models([run.info.experiment_id], wanted)
        return [model for model in found if model.status == LoggedModelStatus.FAILED]

    @classifies_errors
    def model_source(self, name: str, version_or_alias: str) -> str:
        """The URI of the files behind a registered model's version, ``@alias`` or ``latest``."""
        if version_or_alias.startswith("@"):
            version = self._mlflow.get_model_version_by_alias(name, version_or_alias[1:])
        elif version_or_alias == "latest":
            versions = self._mlflow.search_model_versions(f"name = '{name}'")
            if not versions:
                raise Refused(f"there is no version of {name!r}.")
            version = max(versions, key=lambda found: int(found.version))
        else:
            version = self._mlflow.get_model_version(name, version_or_alias)
        return str(version.source)

    def download_files(self, location: str, folder: Path) -> Path:
        """Download the files at an artifact location into a folder; where they lie then."""
        uri = with_password(self.tracking_uri)
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=str(folder), tracking_uri=uri)
        )


class RunModel(NamedTuple):
    """A model that a run logged.

    Attributes:
        entity: What MLflow has of it.
        name: Its name.
        step: The step that it was logged for.
        call: Which of the run's calls logged it; 0 where an older mlwrap did.
        checkpoint: Whether it is a state on the way.
    """

    entity: LoggedModel
    name: str
    step: int
    call: int
    checkpoint: bool

    @property
    def label(self) -> str:
        """Its name, and its step where it was logged for one: ``checkpoint@3``."""
        return f"{self.name}@{self.step}" if self.checkpoint or self.step else self.name


def run_outputs(client: Queries, run: Run) -> list[RunModel]:
    """The models that are outputs of a run, in the order of logging."""
    outputs = run.outputs.model_outputs if run.outputs else ()
    return _in_order([_run_model(client.get_model(output.model_id), int(output.step)) for output in outputs])


def with_unsaved(client: Queries, run: Run, models: list[RunModel]) -> list[RunModel]:
    """The run's models, and those that could not be saved; without checkpoints among these."""
    unsaved: list[LoggedModel] = []
    with contextlib.suppress(Refused):  # of a server without LoggedModels
        unsaved = client.unsaved_models(run)
    every = _in_order([*models, *(_run_model(model, 0) for model in unsaved)])
    return [m for m in every if not (m.checkpoint and m.entity.status == LoggedModelStatus.FAILED)]


def _run_model(model: LoggedModel, step: int) -> RunModel:
    call = model.tags.get("mlwrap.call", "")
    is_checkpoint = model.tags.get("mlwrap.checkpoint") == "true"
    return RunModel(model, str(model.name), step, int(call) if call.isdecimal() else 0, is_checkpoint)


def _in_order(models: list[RunModel]) -> list[RunModel]:
    return sorted(models, key=lambda m: (m.call, m.entity.creation_timestamp))


def finished_trials(
    tracking_uri: str, experiment: str | None, experiment_id: str | None, sweep: str | None
) -> list[tuple[str, FinishedTrial]]:
    """The points of sweeps that MLflow has as FINISHED, each with its digest, the newest first.

    Args:
        tracking_uri: Where to ask.
        experiment: Name of the experiment that they are in; ``None`` for MLflow's default one.
        experiment_id: MLflow's id of it, which overrides the name.
        sweep: The sweep's own id; ``None`` for any.

    Raises:
        DeliveryError: MLflow could not be asked.
    """
    with without_client_retries():
        client = Queries(tracking_uri)
        place = experiment_id or client.experiment_id(experiment)
        wanted = f"attributes.status = 'FINISHED' and tags.`{POINT}` != ''"
        if sweep is not None:
            wanted += f" and tags.`{SWEEP}` = '{sweep}'"
        return [
            (
                run.data.tags[POINT],
                FinishedTrial(run.data.tags.get("mlwrap.key", ""), run.info.run_id, dict(run.data.metrics)),
            )
            for run in client.search(place, wanted)
        ]


def sweep_of(tracking_uri: str, experiment: str | None, experiment_id: str | None, run: str) -> str | None:
    """The own id of the sweep whose run has this id or key; ``None`` if there is none.

    Raises:
        DeliveryError: MLflow could not be asked.
    """
    with without_client_retries():
        client = Queries(tracking_uri)
        place = experiment_id or client.experiment_id(experiment)
        try:
            found = [client.get_run(run)]
        except Refused:  # it is no id of MLflow's
            found = client.search(place, f"tags.`mlwrap.key` = '{run}'")
        return next((tags[SWEEP] for tags in (each.data.tags for each in found) if SWEEP in tags), None)
