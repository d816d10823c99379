"""Where a run belongs: what the user told mlwrap, else what the user told MLflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from mlwrap._journal.uri_passwords import without_password
from mlwrap.config import Settings

_SQLITE = "sqlite:///"
_NAMES = {"databricks", "databricks-uc", "uc"}  # URIs of MLflow's that look like folders


class Destination(NamedTuple):
    """Where a run is to be delivered.

    Attributes:
        tracking_uri: Absolute, so that it means the same from any working folder; without a password.
        experiment: Name of the experiment, or ``None``.
        experiment_id: MLflow's id of it, where that is what was given.
        parent_run_id: An MLflow run that is active around this one.
        parent_experiment_id: MLflow's id of that run's experiment.
    """

    tracking_uri: str
    experiment: str | None
    experiment_id: str | None
    parent_run_id: str | None
    parent_experiment_id: str | None = None


def destination(settings: Settings, around: str | None = None) -> Destination:
    """Find out where a run that starts now belongs.

    Args:
        settings: What the user told mlwrap.
        around: The tracking URI of the run of ours around it, which it shares if nothing else is said.

    MLflow is asked only if the user has imported it; its settings are honoured all the same, since
    ``mlflow.set_tracking_uri`` and ``mlflow.set_experiment`` leave them in the environment, too.
    """
    mlflow = sys.modules.get("mlflow")
    mlflow_uri = None
    if mlflow is not None and hasattr(mlflow, "get_tracking_uri"):
        mlflow_uri = mlflow.get_tracking_uri()
    mlflow_uri = absolute(mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    given = settings.tracking_uri or around
    uri = mlflow_uri if given is None else absolute(given)
    experiment, experiment_id = settings.experiment, None
    if experiment is None:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
        if uri == mlflow_uri:  # in another MLflow the id would be another experiment's, or nobody's
            experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") or None
    parent = parent_experiment = None
    if uri == mlflow_uri and mlflow is not None and hasattr(mlflow, "active_run"):
        active = mlflow.active_run()
        if active is not None:
            parent, parent_experiment = active.info.run_id, active.info.experiment_id
    return Destination(uri, experiment, experiment_id, parent, parent_experiment)


def take_run_id() -> str | None:
    """The run that this process was started for, by ``mlflow run`` or a scheduler; each is taken once.

    MLflow's own ``start_run()`` takes ``MLFLOW_RUN_ID`` out of the environment, too: what comes next is a run
    of its own, and so are the runs of processes that are started from here.
    """
    return os.environ.pop("MLFLOW_RUN_ID", None) or None


def absolute(uri: str) -> str:
    """``uri`` with a relative path, of an sqlite file or a folder, made absolute, and without a password."""
    if uri.startswith(_SQLITE) and not uri.startswith(_SQLITE + "/"):
        path = uri[len(_SQLITE) :]
        return (
            uri
            if path.startswith((":memory:", "?")) or not path
            else f"{_SQLITE}{current_directory() / path}"
        )
    if ":" not in uri and uri not in _NAMES:
        return str(current_directory() / uri)
    return without_password(uri)


def current_directory() -> Path:
    """The folder that this process stands in; the root where that was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")
