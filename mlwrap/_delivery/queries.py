"""What MLflow is asked by whoever looks things up, and by no delivery."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow.entities import LoggedModel, LoggedModelStatus, Run

from mlwrap._delivery.answers import sorted_errors
from mlwrap._delivery.client import Client
from mlwrap.errors import Refused


class Queries(Client):
    """MLflow's client for those who look things up; see :class:`Client`."""

    @sorted_errors
    def experiment_name(self, experiment_id: str) -> str:
        """The name of the experiment with this id."""
        return str(self._mlflow.get_experiment(experiment_id).name)

    @sorted_errors
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

    @sorted_errors
    def newest_run(self) -> Run | None:
        """The run that mlwrap delivered last, in any experiment."""
        experiments = [e.experiment_id for e in self._mlflow.search_experiments()]
        runs: Sequence[Run] = self._mlflow.search_runs(
            experiments, "tags.`mlwrap.key` != ''", max_results=1, order_by=["attributes.start_time DESC"]
        )
        return runs[0] if runs else None

    @sorted_errors
    def get_run(self, run_id: str) -> Run:
        """The run with this id."""
        return self._mlflow.get_run(run_id)

    @sorted_errors
    def get_model(self, model_id: str) -> LoggedModel:
        """The LoggedModel with this id."""
        return self._mlflow.get_logged_model(model_id)

    @sorted_errors
    def unsaved_models(self, run: Run) -> list[LoggedModel]:
        """The LoggedModels of a run that are FAILED, which are no outputs of it."""
        wanted = f"source_run_id = '{run.info.run_id}'"
        found = self._mlflow.search_logged_models([run.info.experiment_id], wanted)
        return [model for model in found if model.status == LoggedModelStatus.FAILED]

    @sorted_errors
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
