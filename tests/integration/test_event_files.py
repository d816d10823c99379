"""TensorBoard event folders that the user names: real ones, written by TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

from mlwrap import model_run
from mlwrap.errors import MlwrapWarning
from mlwrap.testing import capture_runs

tf = pytest.importorskip("tensorflow")


def write(folder, **series):
    """Scalars, and what is none, as TensorBoard's own functions write them; they need a package of theirs."""
    with tf.summary.create_file_writer(str(folder)).as_default():
        for name, values in series.items():
            for step, value in enumerate(values):
                tf.summary.write(name, np.float32(value), step=step)
                tf.summary.write("weights", np.arange(3.0), step=step)


def test_a_folder_of_event_files(tmp_path):
    """Each folder's name before its own; a second time, and what was logged live, changes nothing."""
    write(tmp_path / "logs", loss=[0.5, 0.25])
    write(tmp_path / "logs" / "validation", loss=[0.75, np.nan])
    with capture_runs() as runs, model_run("r") as run:
        run.log_metric("loss", 0.5, step=0)
        for _ in range(2):
            run.log_event_files(tmp_path / "logs")
        run.log_event_files(str(tmp_path / "logs" / "validation"), prefix="other/")
    found = {name: [(step, str(value)) for step, value in points] for name, points in runs[0].metrics.items()}
    validation = [(0, "0.75"), (1, "nan")]
    assert found == {
        "loss": [(0, "0.5"), (1, "0.25")],
        "validation/loss": validation,
        "other/loss": validation,
    }
    assert runs[0].tags["mlwrap.first_nonfinite_metric"] == "validation/loss"


def test_their_times_are_kept(tmp_path, store: str):
    """A single file will do."""
    import mlflow  # noqa: PLC0415 - of this test alone

    write(tmp_path / "logs", loss=[0.5])
    (file,) = (tmp_path / "logs").iterdir()
    (*_, event) = tf.compat.v1.train.summary_iterator(str(file))
    with model_run("r") as run:
        run.log_event_files(file)
    (point,) = mlflow.MlflowClient().get_metric_history(run.run_id, "loss")
    assert point.timestamp == pytest.approx(event.wall_time * 1000, abs=1000)


def test_what_is_no_folder_of_event_files(tmp_path):
    """Is said, and ends nothing; a damaged file gives what is whole."""
    write(tmp_path / "logs", loss=[0.5, 0.25])
    (file,) = (tmp_path / "logs").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    with capture_runs() as runs, model_run("r") as run:
        for path in (tmp_path / "nothing", tmp_path):
            if path == tmp_path:
                run.log_event_files(path)
                continue
            with pytest.warns(MlwrapWarning, match="has no event files"):
                run.log_event_files(path)
    assert runs[0].metrics == {"logs/loss": [(0, 0.5), (1, 0.25)]}
