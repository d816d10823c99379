"""What mlwrap 0.1.0 wrote before its package was put in order is read as before: a run folder, and a model.

``tests/written_before`` holds both, as they were written then.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlwrap import load_model, sync
from tests.spools import waiting_in

WRITTEN = Path(__file__).parents[1] / "written_before"


def private_copy(folder: Path, target: Path) -> Path:
    """A copy with the modes that mlwrap gives its folders, which git does not keep."""
    shutil.copytree(folder, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return target


@pytest.mark.usefixtures("store")
def test_a_run_folder_is_delivered(spool: Path):
    """Parameters, metrics, tags and an artifact, with the run's own times and status."""
    private_copy(WRITTEN / "spool", spool)
    (done,) = sync()
    assert done.error is None
    run = mlflow.get_run(done.run_id)
    assert (run.info.run_name, run.info.status) == ("written before", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (1764200000000, 1764200000010)
    assert run.data.params == {"units": "8"}
    assert run.data.metrics["loss"] == pytest.approx(1 / 3)
    assert np.isnan(run.data.metrics["odd"])
    assert run.data.tags["phase"] == "one"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/note.txt") == "hello\n"
    assert waiting_in(spool) == []


def test_a_model_loads_and_predicts(tmp_path: Path):
    """Its manifest holds, mlwrap gives the Keras model back, and stock MLflow predicts the same."""
    pytest.importorskip("keras", minversion="3")
    folder = shutil.copytree(WRITTEN / "model", tmp_path / "model")
    x = np.arange(6, dtype="float32").reshape(2, 3)
    expected = np.load(WRITTEN / "predicted.npy")
    np.testing.assert_allclose(load_model(folder).predict(x, verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(mlflow.pyfunc.load_model(str(folder)).predict(x), expected, rtol=1e-5)
