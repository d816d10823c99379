"""A staged folder becomes a LoggedModel: described by an ``MLmodel``, put in place, READY."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from mlwrap._journal.progress import ModelProgress, Progress
from mlwrap._journal.records import Model
from mlwrap._journal.tags import TagName
from mlwrap._mlflow.client import Client, MetricPoint
from mlwrap._mlflow.errors import EndpointMissing
from mlwrap._mlflow.model_files.files import (
    MLMODEL,
    assemble,
    check_copied,
    list_files,
    local_path,
    staging_dir,
)
from mlwrap._mlflow.model_files.mlmodel import ADDED_FILES, begin_mlmodel, write_mlmodel
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.staged_files import Damaged
from mlwrap.errors import Refused, Unreachable

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

_MAX_UPLOADS = 8
_NOTE_SECONDS = 0.2  # of what arrived meanwhile one note is made
MAX_REASON = 5000  # characters of a tag; what every store of MLflow's takes


def publish(
    client: Client,
    folder: RunFolder,
    record: Model,
    progress: Progress,
    save: Callable[[], None],
    *,
    has_metrics: bool = False,
) -> None:
    """Make MLflow's LoggedModel for ``record``, or go on where an earlier delivery stopped.

    Args:
        client: Where to.
        folder: The run folder that the model is staged in.
        record: What the journal says of the model.
        progress: How far the run's delivery got; brought up to date here.
        save: Writes ``progress`` down.
        has_metrics: Whether MLflow has been told its metrics.

    Raises:
        Damaged: What is staged is not what was saved.
    """
    model = create(client, folder, record, progress, save)
    if model.status == "READY" or (model.status == "FAILED" and record.error is not None):
        return
    if record.error is None:
        staged, run_id = folder.staged_path(record.staged), progress.run_id or ""
        with ThreadPoolExecutor(1) as pool:
            linked = pool.submit(
                _link, client, record, run_id, model, has_metrics=has_metrics
            )  # while the files are on their way
            if staged.is_dir():
                _place(client, staged, record, progress, save)
            elif not _is_placed(model, record):
                raise Damaged("its files are gone from the run folder.")
            linked.result()
    if model.model_id:
        client.finalize_model(model.model_id, ready=record.error is None)
        if model.status == "FAILED":  # by an earlier delivery, and what it failed by was mended
            client.tag_model(model.model_id, {TagName.ERROR: ""})
    model.status = "READY" if record.error is None else "FAILED"
    save()
    if record.error is None:
        shutil.rmtree(staged, ignore_errors=True)


def fail(client: Client, model: ModelProgress, why: str) -> None:
    """Close a model that is not to be had as FAILED, with the reason.

    A later delivery may still make it READY, if what it fails by is mended.
    """
    if model.status != "PENDING":  # READY, and what failed is its version in the registry
        return
    if model.model_id:
        client.tag_model(model.model_id, {TagName.ERROR: why[:MAX_REASON]})
        client.finalize_model(model.model_id, ready=False)
    model.status = "FAILED"


def _is_placed(model: ModelProgress, record: Model) -> bool:
    """Whether an earlier delivery has moved a model's files into their place."""
    target = local_path(model.location)
    return target is not None and (record.saved is None or (target / MLMODEL).is_file())


def create(
    client: Client, folder: RunFolder, record: Model, progress: Progress, save: Callable[[], None]
) -> ModelProgress:
    """Make MLflow's LoggedModel, if there is none yet; see :func:`publish`."""
    known = progress.models.get(record.staged)
    if known is not None and known.location:
        return known
    key = f"{folder.key}/{record.staged}"  # tells this model from every other one, in all runs
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
    model = progress.models.get(record.staged)
    asked = model is not None or progress.rebuilt  # and the answer was lost
    if model is None:
        model = progress.models[record.staged] = ModelProgress(name=record.name)
        save()
    try:
        made = client.find_model(key, experiment_id) if asked else None
        made = made or _make(client, experiment_id, progress.run_id or "", record, tags)
    except EndpointMissing as error:
        _degrade(client, model, progress, str(error))
    else:
        model.model_id, model.location = str(made.model_id), str(made.artifact_location)
        if str(made.status) == "READY":  # by a delivery whose progress is lost
            model.status = "READY"
            model.registered = ""  # that it was registered is looked up, too
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
        return client.create_model(experiment_id, run_id, record.name, tags, {})  # none costs it the model


def metrics_of(record: Model, model_id: str) -> list[MetricPoint]:
    """The points of the run that are a model's, too."""
    return [
        (name, value, some.time, some.step, model_id)
        for some in ((record.metrics,) if record.metrics is not None else record.newest)
        for name, value in some.numbers().items()
    ]


def _degrade(client: Client, model: ModelProgress, progress: Progress, why: str) -> None:
    """On a server without LoggedModels a model lies among its run's artifacts, as it did before MLflow 3."""
    artifacts = client.artifact_uri(progress.run_id or "")
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


def _place(client: Client, staged: Path, record: Model, progress: Progress, save: Callable[[], None]) -> None:
    """Put a model's files in place: a folder under the model's name is always complete."""
    model, run_id = progress.models[record.staged], progress.run_id or ""
    target = local_path(model.location)
    if target is None:
        _write_files(staged, record, run_id, model, staged)
        _upload(client, staged, model, save)
        return
    with staging_dir(staged, target) as place:
        manifest = _write_files(staged, record, run_id, model, place)
        if place != staged:
            check_copied(place, manifest)
        place.rename(target)


def _write_files(
    staged: Path, record: Model, run_id: str, model: ModelProgress, into: Path
) -> Mapping[str, str]:
    """Write all files of a model to ``into``, the manifest of them in ``MLmodel`` last.

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


def _upload(client: Client, staged: Path, model: ModelProgress, save: Callable[[], None]) -> None:
    """File by file, several at a time, only what is not there yet; ``MLmodel`` when all others are sent."""
    paths = list_files(staged)
    *others, last = paths
    with ThreadPoolExecutor(_MAX_UPLOADS) as pool:
        sent = {
            pool.submit(client.upload, model.location, staged / path, path): path
            for path in others
            if path not in model.uploaded
        }
        failed = _note(sent, model, save)
    if failed is not None:
        raise failed
    client.upload(model.location, staged / last, last)
    _check_arrived(client, staged, paths, model, save)


def _note(
    sent: Mapping[Future[None], str], model: ModelProgress, save: Callable[[], None]
) -> BaseException | None:
    """Write down what has arrived until all has; what failed first, after which nothing more is sent."""
    failed: BaseException | None = None
    left = set(sent)
    while left:
        done, left = wait(left, _NOTE_SECONDS, FIRST_EXCEPTION)
        arrived = {sent[one] for one in done if not one.cancelled() and one.exception() is None}
        if arrived:
            model.uploaded |= arrived
            save()
        for one in done:
            failed = failed or (None if one.cancelled() else one.exception())
        if failed is not None:
            for one in left:
                one.cancel()  # but for those that are on their way, and may arrive
    return failed


def _check_arrived(
    client: Client, staged: Path, paths: list[str], model: ModelProgress, save: Callable[[], None]
) -> None:
    """A proxy's page looks like success to MLflow's client: what is there is what the store lists."""
    folders = {path.rpartition("/")[0] for path in paths}
    with ThreadPoolExecutor(_MAX_UPLOADS) as pool:
        listed = pool.map(lambda folder: client.uploaded_sizes(model.location, folder), folders)
        there = {path: size for each in listed for path, size in each.items()}
    lost = [path for path in paths if not has_arrived(staged / path, path, there)]
    if lost:
        model.uploaded.difference_update(lost)
        save()
        raise Unreachable(f"{lost[0]} of the model {model.name!r} was sent, and is not there.")


def has_arrived(file: Path, path: str, there: dict[str, int | None]) -> bool:
    """Whether ``path`` is there, and as long as ``file`` where the store tells lengths."""
    return path in there and there[path] in {None, file.stat().st_size}
