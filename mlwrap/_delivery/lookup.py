"""Find in MLflow what was delivered: a run's contents, a model's files."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.artifacts
import platformdirs
import yaml
from mlflow.entities import LoggedModel, Run

from mlwrap._delivery.client import Client
from mlwrap._delivery.models import FLAVOR, FLAVOR_FORMAT, local_path
from mlwrap.errors import LoadError, Refused

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+|latest)|(?P<alias>@.+))$")
_LOGGED = re.compile(r"models:/(?P<model_id>m-[^/@]+)$")
_OF_RUN = re.compile(r"runs:/(?P<run_id>[^/]+)/(?P<name>.+)$")


class ModelFiles(NamedTuple):
    """A logged model's files on this machine.

    Attributes:
        folder: Where they are.
        saver: Name of the saver that wrote them.
        saver_format: Number of that saver's layout.
        details: What that saver wanted to know again.
        modules: To be imported before it is loaded.
    """

    folder: Path
    saver: str
    saver_format: int
    details: dict[str, Any]
    modules: tuple[str, ...] = ()


class Shown(NamedTuple):
    """What MLflow has of a run."""

    run_id: str
    name: str
    experiment: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    models: list[tuple[str, str, str]]
    """Name, URI and status of each."""


def show(run_id: str | None, tracking_uri: str | None) -> Shown:
    """See the room's own :func:`mlwrap._delivery.show`."""
    client = Client(tracking_uri)
    run = client.get_run(run_id) if run_id else client.newest_run()
    if run is None:
        raise Refused(f"{client.tracking_uri} holds no run that mlwrap logged.")
    models = _outputs(client, run)
    return Shown(
        run_id=run.info.run_id,
        name=run.info.run_name,
        experiment=client.experiment_name(run.info.experiment_id),
        status=run.info.status,
        params=dict(sorted(run.data.params.items())),
        metrics=dict(sorted(run.data.metrics.items())),
        models=[(m.name, m.model_uri, str(m.status.value)) for m in models],
    )


def find_model(uri: str, tracking_uri: str | None) -> ModelFiles:
    """See the room's own :func:`mlwrap._delivery.find_model`."""
    folder = Path(uri) if "://" not in uri and ":/" not in uri else _fetch(uri, tracking_uri)
    try:
        text = (folder / "MLmodel").read_text()
    except OSError as error:
        raise LoadError(f"{uri} has no MLmodel file that can be read ({error}), so it is no model.") from None
    flavors = yaml.safe_load(text).get("flavors", {})
    ours = flavors.get(FLAVOR)
    if ours is None:
        others = ", ".join(sorted(flavors)) or "none"
        raise LoadError(
            f"{uri} was not logged by mlwrap; its flavors are: {others}. Load it with MLflow itself, "
            "as in mlflow.keras.load_model or mlflow.pyfunc.load_model."
        )
    if ours["format"] > FLAVOR_FORMAT:
        raise LoadError(
            f"{uri} has format {ours['format']} of the mlwrap flavor, and this mlwrap reads up to "
            f"{FLAVOR_FORMAT}. Upgrade mlwrap."
        )
    modules = tuple(str(name) for name in ours.get("modules") or ())
    return ModelFiles(folder, ours["saver"], ours["saver_format"], ours.get("details") or {}, modules)


def _fetch(uri: str, tracking_uri: str | None) -> Path:
    model = _logged_model(Client(tracking_uri), uri)
    if path := local_path(model.artifact_location):
        return path
    # A copy is kept by the model's id: the files of a LoggedModel never change once it is READY.
    cache = platformdirs.user_cache_path("mlwrap", appauthor=False) / "models"
    target = cache / model.model_id
    if not target.is_dir():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as part:
            try:
                got = mlflow.artifacts.download_artifacts(
                    artifact_uri=model.artifact_location, dst_path=part, tracking_uri=tracking_uri
                )
            except Exception as error:
                raise LoadError(f"{uri} could not be downloaded: {error}") from error
            with contextlib.suppress(OSError):  # somebody else was first
                Path(got).rename(target)
    return target


def _logged_model(client: Client, uri: str) -> LoggedModel:
    if found := _LOGGED.match(uri):
        return _get(client, uri, found["model_id"])
    if found := _REGISTERED.match(uri):
        try:
            source = client.model_source(found["name"], found["version"] or found["alias"])
        except Refused as error:
            raise LoadError(f"{uri} is not in the registry: {error}") from error
        return _logged_model(client, source)
    if found := _OF_RUN.match(uri):
        try:
            models = _outputs(client, client.get_run(found["run_id"]))
        except Refused as error:
            raise LoadError(f"{uri} can't be found: {error}") from error
        named = [m for m in models if m.name == found["name"]]
        if not named:
            there = ", ".join(sorted({m.name for m in models})) or "none"
            raise LoadError(f"run {found['run_id']} has no model {found['name']!r}; its models are: {there}.")
        return max(named, key=lambda m: m.creation_timestamp)
    raise LoadError(
        f"{uri} names no model: expected models:/<id>, models:/<name>/<version>, models:/<name>@<alias>, "
        "runs:/<run id>/<model name>, or a folder."
    )


def _outputs(client: Client, run: Run) -> list[LoggedModel]:
    return [client.get_model(o.model_id) for o in (run.outputs.model_outputs if run.outputs else [])]


def _get(client: Client, uri: str, model_id: str) -> LoggedModel:
    try:
        return client.get_model(model_id)
    except Refused as error:
        raise LoadError(f"{uri} can't be found: {error}") from error
