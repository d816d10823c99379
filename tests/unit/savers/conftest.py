"""What every saver's test does: save, add the MLmodel that delivery would write, load with stock MLflow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from mlwrap import savers
from mlwrap._journal.records import Saved, Signature
from mlwrap._mlflow.model_files.files import assemble
from mlwrap._savers import saver_registry

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Kept(NamedTuple):
    """A model that was saved, as it would lie in an artifact store."""

    folder: Path
    saved: Saved
    saver: savers.Saver

    def load(self, **options: Any) -> Any:
        return self.saver.load(self.folder, self.saved.details, **options)

    def pyfunc(self) -> Any:
        return pyfunc.load_model(str(self.folder))


def _schema(specs: Any) -> Any:
    return Schema([TensorSpec(np.dtype(spec.dtype), spec.shape, spec.name) for spec in specs])


def _mlflow_signature(signature: Signature) -> Any:
    outputs = _schema(signature.outputs) if signature.outputs else None
    return ModelSignature(inputs=_schema(signature.inputs), outputs=outputs)


def write_mlmodel(folder: Path, saved: Saved) -> None:
    """Zip what is to be, and write the ``MLmodel`` through MLflow's public functions."""
    assemble(folder, saved.zips, folder)
    model = Model()
    for name, config in saved.flavors.items():
        model.add_flavor(name, **config)
    if saved.pyfunc is not None:
        pyfunc.add_to_model(model, **saved.pyfunc)
    if saved.signature is not None:
        model.signature = _mlflow_signature(saved.signature)
    model.save(str(folder / "MLmodel"))


@pytest.fixture
def as_model():
    """Describe what a saver wrote into a folder, as delivery would."""

    def as_model(folder: Path, saved: Saved, saver: savers.Saver) -> Kept:
        write_mlmodel(folder, saved)
        return Kept(folder, saved, saver)

    return as_model


@pytest.fixture
def keep(tmp_path):
    """Save a value with the saver that fits it."""

    def keep(value, **options):
        saver = saver_registry.find(value)
        assert saver is not None
        folder = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        saved = saver.save(value, folder, savers.SaveOptions(**options))
        write_mlmodel(folder, saved)
        assert not [path for path in folder.rglob("*") if path.suffix in {".pkl", ".pickle", ".cloudpickle"}]
        return Kept(folder, saved, saver)

    return keep
