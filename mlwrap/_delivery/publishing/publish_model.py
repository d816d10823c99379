"""Publish a staged model as an MLflow LoggedModel: write its ``MLmodel``, upload it, mark it READY."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from mlwrap._delivery.publishing.upload_in_parts import UploadProgress
from mlwrap._delivery.publishing.uploads import Upload, lost_uploads, upload_files
from mlwrap._journal.progress import ModelProgress, Progress
from mlwrap._journal.records import Model
from mlwrap._journal.tags import TagName
from mlwrap._mlflow.client import Client, MetricPoint
from mlwrap._mlflow.model_files.files import (
    MLMODEL,
    assemble,
    check_copied,
    list_files,
    local_path,
    staging_dir,
)
from mlwrap._mlflow.model_files.mlmodel import ADDED_FILES, begin_mlmodel, write_mlmodel
from mlwrap._mlflow.server_errors import EndpointMissing
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.staged_files import Damaged
from mlwrap.errors import Refused, Unreachable

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

MAX_REASON = 5000  # characters of a tag; every MLflow store accepts them


def publish(
    client: Client,
    folder: RunFolder,
    record: Model,
    progress: Progress,
    save: Callable[[], None],
    *,
    has_metrics: bool = False,
) -> None:
    """Publish a model, or continue where an earlier delivery stopped.

    Args:
        client: The client of the MLflow to deliver to.
        folder: The run folder that contains the staged model.
        record: The model's record in the journal.
        progress: The progress of the run's delivery; updated here.
        save: Saves ``progress``.
        has_metrics: Whether MLflow has the model's metrics already.

    Raises:
        Damaged: The staged files differ from the saved ones.
    """
    model = create(client, folder, record, progress, save)
    if model.status == "READY" or (model.status == "FAILED" and record.error is not None):
        return
    if record.error is None:
        staged, run_id = folder.staged_path(record.staged), progress.run_id or ""
        with ThreadPoolExecutor(1) as pool:
            # In parallel with the upload of the files.
            linked = pool.submit(_link, client, record, run_id, model, has_metrics=has_metrics)
            if staged.is_dir():
                _put_files(client, staged, record, progress, save)
            elif not _has_files(model, record):
                raise Damaged("its files are gone from the run folder.")
            linked.result()
    if model.model_id:
        client.finalize_model(model.model_id, ready=record.error is None)
        if model.status == "FAILED":  # in an earlier delivery; the cause is fixed now
            client.tag_model(model.model_id, {TagName.ERROR: ""})
    model.status = "READY" if record.error is None else "FAILED"
    save()
    if record.error is None:
        shutil.rmtree(staged, ignore_errors=True)


def fail(client: Client, model: ModelProgress, why: str) -> None:
    """Mark a model that can't be published as FAILED, with the reason.

    A later delivery may still make it READY, if the cause is fixed.
    """
    if model.status != "PENDING":  # it is READY, and only its registration failed
        return
    if model.model_id:
        client.tag_model(model.model_id, {TagName.ERROR: why[:MAX_REASON]})
        client.finalize_model(model.model_id, ready=False)
    model.status = "FAILED"


def _has_files(model: ModelProgress, record: Model) -> bool:
    """Return whether an earlier delivery has moved a model's files to their final folder."""
    target = local_path(model.location)
    return target is not None and (record.saved is None or (target / MLMODEL).is_file())


def create(
    client: Client, folder: RunFolder, record: Model, progress: Progress, save: Callable[[], None]
) -> ModelProgress:
    """Create MLflow's LoggedModel if it does not exist yet; see :func:`publish`."""
    model = progress.models.get(record.staged)
    if model is not None and model.location:
        return model
    key = f"{folder.key}/{record.staged}"  # unique among the models of all runs
    experiment_id = progress.experiment_id or ""
    tags = {TagName.KEY: key, TagName.SAVER: record.saver, TagName.CALL: str(record.call)}
    if record.checkpoint:
        tags[TagName.CHECKPOINT] = "true"
    if record.has_step:
        tags[TagName.STEP] = str(record.step)
    if record.saved is not None and record.saved.forms:
        tags[TagName.FORMS] = ", ".join(record.saved.forms)
    if record.error is not None:
        tags[TagName.ERROR] = record.error[:MAX_REASON]
    # An earlier delivery may have requested it, and not have had the answer.
    was_requested = model is not None or progress.rebuilt
    if model is None:
        model = progress.models[record.staged] = ModelProgress(name=record.name)
        save()
    try:
        created = client.find_model(key, experiment_id) if was_requested else None
        created = created or _make(client, experiment_id, progress.run_id or "", record, tags)
    except EndpointMissing as error:
        _degrade(client, model, progress, str(error))
    else:
        model.model_id, model.location = str(created.model_id), str(created.artifact_location)
        if str(created.status) == "READY":  # by a delivery whose progress is lost
            model.status = "READY"
            model.registered = ""  # look up whether it was registered, too
    save()
    return model


def _make(
    client: Client, experiment_id: str, run_id: str, record: Model, tags: dict[str, str]
) -> LoggedModel:
    try:
        return client.create_model(experiment_id, run_id, record.name, tags, record.params)
    except EndpointMissing:
        raise
    except Refused:
        if not record.params:
            raise
        # The model matters more than its parameters.
        return client.create_model(experiment_id, run_id, record.name, tags, {})


def metrics_of(record: Model, model_id: str) -> list[MetricPoint]:
    """Return the data points of the run that belong to a model, too."""
    return [
        (name, value, metrics.time, metrics.step, model_id)
        for metrics in ((record.metrics,) if record.metrics is not None else record.newest)
        for name, value in metrics.numbers().items()
    ]


def _degrade(client: Client, model: ModelProgress, progress: Progress, why: str) -> None:
    """Store a model among its run's artifacts, as before MLflow 3: the server has no LoggedModels."""
    artifacts = progress.artifact_uri or client.existing_run(progress.run_id or "").artifact_uri
    taken = {other.location for other in progress.models.values()}
    names = itertools.chain([model.name], (f"{model.name}_{number}" for number in itertools.count(2)))
    model.name = next(name for name in names if f"{artifacts}/{name}" not in taken)
    model.location = f"{artifacts}/{model.name}"
    progress.degraded = f"its models are artifacts of the run, and no LoggedModels: {why}"


def _link(client: Client, record: Model, run_id: str, model: ModelProgress, *, has_metrics: bool) -> None:
    if model.model_id:
        client.link_model(run_id, model.model_id, record.step)
        if not has_metrics and (points := metrics_of(record, model.model_id)):
            client.log_model_metrics(run_id, model.model_id, points)


def _put_files(
    client: Client, staged: Path, record: Model, progress: Progress, save: Callable[[], None]
) -> None:
    """Upload a model's files, or move them to their final folder in one step, so that it is never partial."""
    model, run_id = progress.models[record.staged], progress.run_id or ""
    target = local_path(model.location)
    if target is None:
        _write_files(staged, record, run_id, model, staged)
        arrived = UploadProgress(model.uploaded, model.partial, save, rebuilt=progress.rebuilt)
        _upload(client, staged, model, arrived)
        return
    with staging_dir(staged, target) as staging:
        manifest = _write_files(staged, record, run_id, model, staging)
        if staging != staged:
            check_copied(staging, manifest)
        staging.rename(target)


def _write_files(
    staged: Path, record: Model, run_id: str, model: ModelProgress, into: Path
) -> Mapping[str, str]:
    """Write all files of a model to ``into``; last ``MLmodel``, with the manifest of the others.

    Returns:
        SHA-256 of every file but ``MLmodel``, by its relative path.

    Raises:
        Damaged: The staged files differ from the saved ones.
    """
    saved = record.saved
    if saved is None:
        return {}
    mlmodel = begin_mlmodel(staged, record, run_id, model)
    manifest = assemble(staged, saved.zips, into, saved=record.files, added=ADDED_FILES)
    write_mlmodel(mlmodel, record, saved, manifest, into)
    return manifest


def _upload(client: Client, staged: Path, model: ModelProgress, progress: UploadProgress) -> None:
    """Upload the files that have not arrived yet, several at a time; ``MLmodel`` after all others."""
    uploads = {path: Upload(staged / path, path) for path in list_files(staged)}
    others = {path: upload for path, upload in uploads.items() if path != MLMODEL}
    upload_files(client, model.location, others, progress)
    client.upload(model.location, staged / MLMODEL, MLMODEL)
    if lost := lost_uploads(client, model.location, uploads.values()):
        progress.arrived.difference_update(upload.path for upload in lost)
        progress.save()
        raise Unreachable(f"{lost[0].path} of the model {model.name!r} was sent, and is not there.")
