"""What MLflow reads of a model: ``MLmodel``, and the files that say what its environment was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import yaml
from mlflow.models import Model as MLmodel
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import ColSpec, DataType, Schema
from mlflow.types.schema import TensorSpec as MlflowTensorSpec

from mlwrap._journal.progress import ModelProgress
from mlwrap._journal.records import Model, Signature, TensorSpec
from mlwrap._mlflow.model_files.files import MLMODEL, assemble
from mlwrap._mlflow.model_files.input_examples import EXAMPLE_FILES, add_example

FLAVOR = "mlwrap"
FLAVOR_FORMAT = 1

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's is ten times faster, where it is there


def write_mlmodel(
    staged: Path, record: Model, run_id: str, model: ModelProgress, into: Path
) -> dict[str, str]:
    """Lay a model's files out in ``into``, ``MLmodel`` and the environment files among them.

    The format is MLflow's: https://mlflow.org/docs/latest/ml/model/#storage-format. Beside the flavors that
    stock MLflow loads, the flavor ``mlwrap`` names the saver that can give the very object back, with the
    SHA-256 of every other file.

    Returns:
        SHA-256 of every file but ``MLmodel``, by its relative path.

    Raises:
        Damaged: What is staged is not what was saved.
    """
    saved = record.saved
    if saved is None:
        return {}
    mlmodel = MLmodel(artifact_path=model.location, run_id=run_id, model_id=model.model_id)
    written = _write_environment(staged, record)
    model.troubles = [
        trouble
        for trouble in (_add_signature(mlmodel, saved.signature), add_example(mlmodel, staged))
        if trouble is not None
    ]
    manifest = assemble(staged, saved.zips, into, saved=record.files, added=written | set(EXAMPLE_FILES))
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
        manifest=manifest,
        modules=list(saved.modules),
    )
    (into / MLMODEL).write_text(_yaml(mlmodel.to_dict(), sort_keys=True))
    return manifest


def _write_environment(staged: Path, record: Model) -> set[str]:
    """Write the files that say what is to be installed; their names."""
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
    return {"requirements.txt", *environment}


def _yaml(content: dict[str, Any], *, sort_keys: bool = False) -> str:
    return str(yaml.dump(content, Dumper=_Dumper, default_flow_style=False, sort_keys=sort_keys))


def _add_signature(mlmodel: MLmodel, signature: Signature | None) -> str | None:
    """Add the model's signature; why MLflow has none, where it can't describe what the model takes."""
    if signature is None or not signature.inputs:  # of what takes nothing MLflow knows no signature
        return None
    try:
        outputs = _schema(signature.outputs) if signature.outputs else None
        inputs = _schema(signature.inputs, fed=True)
        if signature.columns:
            inputs = Schema([ColSpec(DataType.double, name) for name in signature.columns])
        mlmodel.signature = ModelSignature(inputs=inputs, outputs=outputs)
    except Exception as error:  # noqa: BLE001 - a signature must not cost the model
        return f"it has no signature in MLflow, which can't describe it: {type(error).__name__}: {error}"
    return None


def _schema(specs: tuple[TensorSpec, ...], *, fed: bool = False) -> Schema:
    """MLflow's schema.

    Args:
        specs: Of the tensors.
        fed: Whether it is of inputs. MLflow's type ``str`` refuses bytes and arrays of Python objects, which
            is how frames hold text. One-dimensional objects are its type that takes all of them, of any shape
            (``_enforce_tensor_spec`` in ``mlflow/models/utils.py``).
    """
    # numpy is MLflow's own dependency; its dtypes are how MLflow spells a tensor's type.
    import numpy as np  # noqa: PLC0415 - only where there is a signature

    def made(spec: TensorSpec) -> MlflowTensorSpec:
        if fed and spec.dtype == "str":
            return MlflowTensorSpec(np.dtype("object"), [-1], spec.name)
        return MlflowTensorSpec(np.dtype(spec.dtype), list(spec.shape), spec.name)

    return Schema([made(spec) for spec in specs])
