"""Find a run's destination from mlwrap's settings, or else from MLflow's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from mlwrap._journal.uri_passwords import without_password
from mlwrap.config import Settings

_SQLITE = "sqlite:///"
_NAMES = {"databricks", "databricks-uc", "uc"}  # MLflow's URIs that look like folders


class Destination(NamedTuple):
    """The destination of a run.

    Attributes:
        tracking_uri: Absolute, so that it is the same from any working directory; without a password.
        experiment: Name of the experiment, or ``None``.
        experiment_id: MLflow's id of the experiment, if the user named it by id.
        parent_run_id: MLflow's id of the active MLflow run, which becomes the parent.
        parent_experiment_id: MLflow's id of the parent run's experiment.
    """

    tracking_uri: str
    experiment: str | None
    experiment_id: str | None
    parent_run_id: str | None
    parent_experiment_id: str | None = None


def destination(settings: Settings, around: str | None = None) -> Destination:
    """Return the destination of a run that starts now.

    mlwrap calls MLflow only if the user has imported it. MLflow's settings still apply otherwise, since
    ``mlflow.set_tracking_uri`` and ``mlflow.set_experiment`` also store them in the environment.

    Args:
        settings: The effective settings of mlwrap.
        around: The tracking URI of mlwrap's parent run, the default if ``settings`` has none.
    """
    mlflow = sys.modules.get("mlflow")
    mlflow_uri = None
    if mlflow is not None and hasattr(mlflow, "get_tracking_uri"):
        mlflow_uri = mlflow.get_tracking_uri()
    mlflow_uri = absolute(mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    mlwrap_uri = settings.tracking_uri or around
    uri = mlflow_uri if mlwrap_uri is None else absolute(mlwrap_uri)
    experiment, experiment_id = settings.experiment, None
    if experiment is None:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
        if uri == mlflow_uri:  # on another server the id would be another experiment's, or unknown
            experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") or None
    parent = parent_experiment = None
    if uri == mlflow_uri and mlflow is not None and hasattr(mlflow, "active_run"):
        active = mlflow.active_run()
        if active is not None:
            parent, parent_experiment = active.info.run_id, active.info.experiment_id
    return Destination(uri, experiment, experiment_id, parent, parent_experiment)


def take_run_id() -> str | None:
    """Return, once, the id of the run that ``mlflow run`` or a scheduler started this process for.

    Like MLflow's ``start_run()`` this removes ``MLFLOW_RUN_ID`` from the environment, so that the next run
    and the runs of child processes are runs of their own.
    """
    return os.environ.pop("MLFLOW_RUN_ID", None) or None


def absolute(uri: str) -> str:
    """Return ``uri`` without its password; make a relative path of an SQLite file or a folder absolute."""
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
    """Return the current working directory; the root if it was removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")
