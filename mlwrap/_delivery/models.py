"""A staged folder becomes a LoggedModel: described by an ``MLmodel``, put in place, READY."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow.pyfunc
import yaml
from mlflow.models import Model as MLmodel
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Schema
from mlflow.types.schema import TensorSpec as MlflowTensorSpec

from mlwrap._delivery.client import Client
from mlwrap._journal import Model, ModelProgress, Progress, RunFolder, Signature, TensorSpec

FLAVOR = "mlwrap"
FLAVOR_FORMAT = 1
_MLMODEL = "MLmodel"


def publish(client: Client, folder: RunFolder, record: Model, progress: Progress) -> None:
    """Make MLflow's LoggedModel for ``record``, or go on where an earlier delivery stopped."""
    model = progress.models.get(record.staged)
    if model is None:
        model = _create(client, folder, record, progress)
    if model.status != "PENDING":
        return
    run_id = progress.run_id or ""
    if record.error is None:
        staged = folder.path / record.staged
        if staged.is_dir():  # else an earlier delivery has moved it into place
            describe(staged, record, run_id, model)
            _place(client, staged, model)
        client.link_model(run_id, model.model_id, record.step)
    client.finalize_model(model.model_id, ready=record.error is None)
    model.status = "READY" if record.error is None else "FAILED"
    folder.save_progress(progress)
    shutil.rmtree(folder.path / record.staged, ignore_errors=True)


def _create(client: Client, folder: RunFolder, record: Model, progress: Progress) -> ModelProgress:
    tags = {"mlwrap.key": progress_key(folder, record), "mlwrap.saver": record.saver}
    if record.error is not None:
        tags["mlwrap.error"] = record.error[:5000]
    made = client.create_model(
        progress.experiment_id or "", progress.run_id or "", name=record.name, tags=tags
    )
    model = ModelProgress(name=record.name, model_id=str(made.model_id), location=str(made.artifact_location))
    progress.models[record.staged] = model
    folder.save_progress(progress)
    return model


def progress_key(folder: RunFolder, record: Model) -> str:
    """What tells this model from every other one, in all runs: a tag that a replay can look up."""
    return f"{folder.key}/{record.staged}"


def describe(staged: Path, record: Model, run_id: str, model: ModelProgress) -> None:
    """Write ``MLmodel`` and the environment files into ``staged``.

    The format is MLflow's: https://mlflow.org/docs/latest/ml/model/#storage-format. Beside the flavors that
    stock MLflow loads, the flavor ``mlwrap`` names the saver that can give the very object back.
    """
    saved = record.saved
    if saved is None:
        return
    size = sum(f.stat().st_size for f in staged.rglob("*") if f.is_file())
    mlmodel = MLmodel(
        artifact_path=model.location,
        run_id=run_id,
        model_id=model.model_id,
        signature=_signature(saved.signature),
        model_size_bytes=size,
    )
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
    )
    _write_environment(staged, record)
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


def _place(client: Client, staged: Path, model: ModelProgress) -> None:
    target = local_path(model.location)
    if target is None:
        client.upload_model(model.model_id, staged)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Another filesystem: copy beside the target first, so that what has its name is always whole.
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            shutil.copytree(staged, part)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
