"""A staged folder becomes a LoggedModel: described by an ``MLmodel``, put in place, READY."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow.pyfunc
import yaml
from mlflow.models import Model as MLmodel
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Schema
from mlflow.types.schema import TensorSpec as MlflowTensorSpec

from mlwrap._delivery.answers import NotOffered
from mlwrap._delivery.client import Client
from mlwrap._delivery.examples import add_example
from mlwrap._delivery.zips import zip_folders
from mlwrap._journal import Model, ModelProgress, Progress, RunFolder, Signature, TensorSpec
from mlwrap.errors import DeliveryError, Unreachable

FLAVOR = "mlwrap"
FLAVOR_FORMAT = 1
_MLMODEL = "MLmodel"
_UPLOADS = 8  # at a time


def publish(
    client: Client, folder: RunFolder, record: Model, progress: Progress, save: Callable[[], None]
) -> None:
    """Make MLflow's LoggedModel for ``record``, or go on where an earlier delivery stopped.

    Args:
        client: Where to.
        folder: The run folder that the model is staged in.
        record: What the journal says of the model.
        progress: How far the run's delivery got; brought up to date here.
        save: Writes ``progress`` down.
    """
    model = progress.models.get(record.staged)
    if model is None or not model.location:
        model = _create(client, folder, record, progress, save)
    if model.status != "PENDING":
        return
    if record.error is None:
        staged = folder.path / record.staged
        if staged.is_dir():  # else an earlier delivery has moved it into place
            describe(staged, record, progress.run_id or "", model)
            _place(client, staged, model, save)
        if model.model_id:
            client.link_model(progress.run_id or "", model.model_id, record.step)
    if model.model_id:
        client.finalize_model(model.model_id, ready=record.error is None)
    model.status = "READY" if record.error is None else "FAILED"
    save()
    shutil.rmtree(folder.path / record.staged, ignore_errors=True)


def _create(
    client: Client, folder: RunFolder, record: Model, progress: Progress, save: Callable[[], None]
) -> ModelProgress:
    key = f"{folder.key}/{record.staged}"  # tells this model from every other one, in all runs
    experiment_id = progress.experiment_id or ""
    tags = {"mlwrap.key": key, "mlwrap.saver": record.saver}
    if record.error is not None:
        tags["mlwrap.error"] = record.error[:5000]
    model = progress.models.get(record.staged)
    asked = model is not None  # and the answer was lost
    if model is None:
        model = progress.models[record.staged] = ModelProgress(name=record.name)
        save()
    try:
        made = client.find_model(key, experiment_id) if asked else None
        made = made or client.create_model(experiment_id, progress.run_id or "", record.name, tags)
    except NotOffered as error:
        _degrade(client, model, progress, str(error))
    else:
        model.model_id, model.location = str(made.model_id), str(made.artifact_location)
    save()
    return model


def _degrade(client: Client, model: ModelProgress, progress: Progress, why: str) -> None:
    """On a server without LoggedModels a model lies among its run's artifacts, as it did before MLflow 3."""
    artifacts = client.artifact_uri(progress.run_id or "")
    taken = {other.location for other in progress.models.values()}
    names = itertools.chain([model.name], (f"{model.name}_{number}" for number in itertools.count(2)))
    model.name = next(name for name in names if f"{artifacts}/{name}" not in taken)
    model.location = f"{artifacts}/{model.name}"
    progress.degraded = f"its models are artifacts of the run, and no LoggedModels: {why}"


def describe(staged: Path, record: Model, run_id: str, model: ModelProgress) -> None:
    """Write ``MLmodel`` and the environment files into ``staged``.

    The format is MLflow's: https://mlflow.org/docs/latest/ml/model/#storage-format. Beside the flavors that
    stock MLflow loads, the flavor ``mlwrap`` names the saver that can give the very object back, with the
    SHA-256 of every other file.
    """
    saved = record.saved
    if saved is None:
        return
    zip_folders(staged, saved.zips)
    mlmodel = MLmodel(
        artifact_path=model.location,
        run_id=run_id,
        model_id=model.model_id,
        signature=_signature(saved.signature),
    )
    _write_environment(staged, record)
    trouble = add_example(mlmodel, staged)
    model.troubles = [trouble] if trouble else []
    files = manifest(staged)
    mlmodel.model_size_bytes = sum((staged / path).stat().st_size for path in files)
    for flavor, settings in saved.flavors.items():
        mlmodel.add_flavor(flavor, **settings)
    if saved.pyfunc is not None:
        settings = dict(saved.pyfunc)
        mlflow.pyfunc.add_to_model(
            mlmodel,
            loader_module=settings.pop("loader_module"),
            conda_env="conda.yaml",
            python_env="python_env.yaml",
            **settings,
        )
    mlmodel.add_flavor(
        FLAVOR,
        format=FLAVOR_FORMAT,
        saver=record.saver,
        saver_format=record.saver_format,
        details=saved.details,
        manifest=files,
        modules=list(saved.modules),
    )
    mlmodel.save(str(staged / _MLMODEL))


def _write_environment(staged: Path, record: Model) -> None:
    (staged / "requirements.txt").write_text("".join(f"{line}\n" for line in record.requirements))
    python = record.python
    environment: dict[str, dict[str, Any]] = {
        "python_env.yaml": {
            "python": python,
            "build_dependencies": ["pip", "setuptools", "wheel"],
            "dependencies": ["-r requirements.txt"],
        },
        "conda.yaml": {
            "name": "mlflow-env",
            "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": list(record.requirements)}],
        },
    }
    for name, content in environment.items():
        (staged / name).write_text(yaml.safe_dump(content, sort_keys=False))


def _signature(signature: Signature | None) -> ModelSignature | None:
    if signature is None:
        return None
    outputs = _schema(signature.outputs) if signature.outputs else None
    return ModelSignature(inputs=_schema(signature.inputs), outputs=outputs)


def _schema(specs: tuple[TensorSpec, ...]) -> Schema:
    # numpy is MLflow's own dependency; its dtypes are how MLflow spells a tensor's type.
    import numpy as np  # noqa: PLC0415 - only where there is a signature

    return Schema([MlflowTensorSpec(np.dtype(spec.dtype), list(spec.shape), spec.name) for spec in specs])


def local_path(location: str) -> Path | None:
    """The path behind an artifact location on this machine's filesystem; ``None`` for any other."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(location) if not parts.scheme else None


def manifest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in ``folder`` but ``MLmodel``, by its relative path."""
    return {path: digest(folder / path) for path in _files(folder) if path != _MLMODEL}


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def _files(folder: Path) -> list[str]:
    """Relative paths of the files in ``folder``, ``MLmodel`` last: where it is, all is."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: (path == _MLMODEL, path))


def _place(client: Client, staged: Path, model: ModelProgress, save: Callable[[], None]) -> None:
    target = local_path(model.location)
    if target is None:
        _upload(client, staged, model, save)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(staged, target)


def _copy(staged: Path, target: Path) -> None:
    """To another filesystem: copy beside the target, compare, rename, so that what has its name is whole."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(staged, part)
        for path in _files(staged):
            if digest(part / path) != digest(staged / path):
                raise Unreachable(f"{path} was not copied to {target} as it is; it stays in {staged}.")
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _upload(client: Client, staged: Path, model: ModelProgress, save: Callable[[], None]) -> None:
    """File by file, several at a time, only what is not there yet; ``MLmodel`` when all others are."""
    *others, last = _files(staged)
    with ThreadPoolExecutor(_UPLOADS) as pool:
        waiting = {
            pool.submit(client.upload, model.location, staged / path, path): path
            for path in others
            if path not in model.uploaded
        }
        failed: DeliveryError | None = None
        for done in as_completed(waiting):
            if done.cancelled():
                continue
            try:
                done.result()
            except DeliveryError as error:
                failed = failed or error
                for other in waiting:
                    other.cancel()  # but for those that are on their way, and may arrive
            else:
                model.uploaded.add(waiting[done])
                save()
    if failed is not None:
        raise failed
    _check_arrived(client, staged, others, model, save)
    client.upload(model.location, staged / last, last)
    _check_arrived(client, staged, [last], model, save)


def _check_arrived(
    client: Client, staged: Path, paths: list[str], model: ModelProgress, save: Callable[[], None]
) -> None:
    """A proxy's page looks like success to MLflow's client: what is there is what the store lists."""
    there = client.uploaded_sizes(model.location, {path.rpartition("/")[0] for path in paths})
    lost = [path for path in paths if not has_arrived(staged / path, path, there)]
    if lost:
        model.uploaded.difference_update(lost)
        save()
        raise Unreachable(f"{lost[0]} of the model {model.name!r} was sent, and is not there.")


def has_arrived(file: Path, path: str, there: dict[str, int | None]) -> bool:
    """Whether ``path`` is there, and as long as ``file`` where the store tells lengths."""
    return path in there and there[path] in {None, file.stat().st_size}
