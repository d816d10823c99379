"""Write the files that MLflow reads of a model: ``MLmodel`` and the environment files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import yaml
from mlflow.models import Model as MLmodel
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import ColSpec, DataType, Schema
from mlflow.types.schema import TensorSpec as MlflowTensorSpec

from mlwrap._journal.progress import ModelProgress
from mlwrap._journal.records import Model, Saved, Signature, TensorSpec
from mlwrap._mlflow.model_files.files import MLMODEL
from mlwrap._mlflow.model_files.mlflow_example import EXAMPLE_FILES, add_example

FLAVOR = "mlwrap"
FLAVOR_FORMAT = 1
ADDED_FILES = frozenset({"requirements.txt", "python_env.yaml", "conda.yaml", *EXAMPLE_FILES})
"""What delivery adds to the files that a saver wrote, beside ``MLmodel``."""

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's dumper is ten times faster


def begin_mlmodel(staged: Path, record: Model, run_id: str, model: ModelProgress) -> MLmodel:
    """Begin a model's description, and write the files beside it: its environment and its input example.

    Args:
        staged: The model's staged folder; the files are written there.
        record: The model's record.
        run_id: MLflow's id of its run.
        model: The progress of the model's delivery. Its ``troubles`` are what MLflow can't describe.
    """
    mlmodel = MLmodel(artifact_path=model.location, run_id=run_id, model_id=model.model_id)
    signature = record.saved.signature if record.saved is not None else None
    _write_environment(staged, record)
    troubles = _add_signature(mlmodel, signature), add_example(mlmodel, staged)
    model.troubles = [trouble for trouble in troubles if trouble is not None]
    return mlmodel


def write_mlmodel(
    mlmodel: MLmodel, record: Model, saved: Saved, manifest: Mapping[str, str], into: Path
) -> None:
    """Complete a model's description, and write it.

    The format is MLflow's: https://mlflow.org/docs/latest/ml/model/#storage-format. Beside the flavors that
    stock MLflow loads, the flavor ``mlwrap`` names the saver that restores the original object, and the
    SHA-256 of every other file.

    Args:
        mlmodel: The description that :func:`begin_mlmodel` returned.
        record: The model's record.
        saved: What its saver said.
        manifest: SHA-256 of every file in ``into``, by its relative path.
        into: The folder of the model's files.
    """
    mlmodel.model_size_bytes = sum((into / path).stat().st_size for path in manifest)
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
        manifest=dict(manifest),
        modules=list(saved.modules),
    )
    (into / MLMODEL).write_text(_yaml(mlmodel.to_dict(), sort_keys=True))


def _write_environment(staged: Path, record: Model) -> None:
    """Write the files that list the model's dependencies."""
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
        (staged / name).write_text(_yaml(content))


def _yaml(content: dict[str, Any], *, sort_keys: bool = False) -> str:
    return str(yaml.dump(content, Dumper=_Dumper, default_flow_style=False, sort_keys=sort_keys))


def _add_signature(mlmodel: MLmodel, signature: Signature | None) -> str | None:
    """Add the model's signature; return why it was not added if MLflow can't describe the inputs."""
    if signature is None or not signature.inputs:  # MLflow has no signature without inputs
        return None
    try:
        outputs = _schema(signature.outputs) if signature.outputs else None
        inputs = _schema(signature.inputs, fed=True)
        if signature.columns:
            inputs = Schema([ColSpec(DataType.double, name) for name in signature.columns])
        mlmodel.signature = ModelSignature(inputs=inputs, outputs=outputs)
    except Exception as error:  # noqa: BLE001 - a failed signature must not lose the model
        return f"it has no signature in MLflow, which can't describe it: {type(error).__name__}: {error}"
    return None


def _schema(specs: tuple[TensorSpec, ...], *, fed: bool = False) -> Schema:
    """Return MLflow's schema of tensors.

    Args:
        specs: The tensors' specifications.
        fed: Whether they are inputs. MLflow's type ``str`` rejects bytes and arrays of Python objects, which
            frames use for text. One-dimensional ``object`` is the MLflow type that accepts all of them, in
            any shape (``_enforce_tensor_spec`` in ``mlflow/models/utils.py``).
    """
    # numpy is a dependency of MLflow, which describes a tensor's type by a numpy dtype.
    import numpy as np  # noqa: PLC0415 - only needed with a signature

    def to_mlflow_spec(spec: TensorSpec) -> MlflowTensorSpec:
        if fed and spec.dtype == "str":
            return MlflowTensorSpec(np.dtype("object"), [-1], spec.name)
        return MlflowTensorSpec(np.dtype(spec.dtype), list(spec.shape), spec.name)

    return Schema([to_mlflow_spec(spec) for spec in specs])
