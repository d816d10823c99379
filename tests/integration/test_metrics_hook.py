"""An Estimator's training with the hook: real ones, of TensorFlow 2.15."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from mlwrap import model_run, tracked_training
from mlwrap._run.run import recorder_of
from mlwrap.errors import MlwrapWarning, OptionError
from mlwrap.testing import capture_runs

tf = pytest.importorskip("tensorflow")
HERE = hasattr(tf, "estimator")
if HERE:
    from mlwrap.estimator import MetricsHook
there = pytest.mark.skipif(not HERE, reason="tf.estimator left TensorFlow in 2.16")

X = np.linspace(0, 1, 12, dtype="float32")


def data():
    """An input function without an end."""
    return tf.data.Dataset.from_tensors({"x": X}).repeat()


def model_fn(features, mode, params):
    """One weight, and a loss that grows without an end if the rate is large."""
    weight = tf.compat.v1.get_variable("weight", initializer=0.5)
    loss = tf.reduce_mean((features["x"] * weight - 3.0) ** 2)
    tf.identity(weight * 2, name="twice")
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(params["rate"])
    step = tf.compat.v1.train.get_global_step()
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss, global_step=step))


def accumulating_fn(features, mode, params):
    """The same, whose step counts so many calls as one, as where gradients are accumulated."""
    weight = tf.compat.v1.get_variable("weight", initializer=0.5)
    calls = tf.compat.v1.get_variable("calls", initializer=tf.constant(0, "int64"))
    loss = tf.reduce_mean((features["x"] * weight - 3.0) ** 2)
    trained = tf.compat.v1.train.GradientDescentOptimizer(0.25).minimize(loss)
    with tf.control_dependencies([trained]):
        counted = tf.compat.v1.assign_add(calls, 1) // params["each"]
        train_op = tf.compat.v1.assign(tf.compat.v1.train.get_global_step(), counted)
    tf.compat.v1.add_to_collection(tf.compat.v1.GraphKeys.TRAIN_OP, train_op)
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)


def in_event_files(folder):
    """The steps whose loss the Estimator itself has written down."""
    files = Path(folder).glob("events.out.*")
    events = (event for file in files for event in tf.compat.v1.train.summary_iterator(str(file)))
    return {event.step for event in events for value in event.summary.value if value.tag == "loss"}


@pytest.fixture
def estimator(tmp_path):
    """Summaries every two steps."""
    config = tf.estimator.RunConfig(save_summary_steps=2, log_step_count_steps=1000)
    return tf.estimator.Estimator(model_fn, str(tmp_path / "model"), config, {"rate": 0.25})


@there
def test_steps_are_logged_and_found_once(estimator):
    """Over two trainings; what the event files remember of other steps is there as well."""
    with capture_runs() as runs:

        @tracked_training
        def train():
            estimator.train(data, hooks=[MetricsHook(every=3, tensors={"twice": "twice:0"})], max_steps=7)
            seen = dict(runs[0].metrics)
            estimator.train(data, hooks=[MetricsHook(every=3)], max_steps=10)
            assert [step for step, _ in seen["loss"]] == [1, 4, 7]
            assert [step for step, _ in seen["twice"]] == [1, 4, 7]
            return estimator

        train()
    found = runs[0].metrics["loss"]
    assert sorted(step for step, _ in found) == sorted({1, 4, 7, 8} | in_event_files(estimator.model_dir))


@there
@pytest.mark.parametrize("each", [1, 2, 4], ids="a step of {} calls".format)
def test_whenever_tensorflow_reads_the_step(tmp_path, each):
    """Before it was counted or after it, as its threads go: the steps that are logged are the same."""

    class ReadLate(MetricsHook):
        def begin(self):
            super().begin()
            trained = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.TRAIN_OP)
            assert trained
            with tf.control_dependencies(trained):
                self.late = tf.compat.v1.train.get_global_step().read_value()

        def before_run(self, run_context):
            asked = super().before_run(run_context)
            return asked._replace(fetches={**asked.fetches, "step": self.late})

    seen = []
    for hook in ReadLate(every=3), MetricsHook(every=3):
        estimator = tf.estimator.Estimator(
            accumulating_fn, str(tmp_path / type(hook).__name__), params={"each": each}
        )
        with capture_runs() as runs, model_run("r"):
            estimator.train(data, hooks=[hook], max_steps=11)
        seen.append([step for step, _ in runs[0].metrics["loss"]])
    assert seen[0] == seen[1] == ([1, 4, 7, 10] if each == 1 else [0, 3, 6, 9])


@there
def test_outside_a_run(estimator):
    """It is said, and training goes on; silently in a disabled run."""
    with pytest.warns(MlwrapWarning, match="used outside a run"):
        estimator.train(data, hooks=[MetricsHook()], max_steps=2)
    with model_run("r", disabled=True):
        estimator.train(data, hooks=[MetricsHook(every=1)], max_steps=4)
    with model_run("over", delivery="off") as over:
        pass
    with pytest.warns(MlwrapWarning, match="has ended"):
        estimator.train(data, hooks=[MetricsHook(over)], max_steps=6)
    assert estimator.get_variable_value("global_step") == 6


@there
def test_what_is_not_there(estimator):
    """A tensor that the graph has not is said, and costs no other; a wrong option is found at once."""
    with (
        capture_runs() as runs,
        model_run("r"),
        pytest.warns(MlwrapWarning, match="'other'.*not in the graph"),
    ):
        estimator.train(data, hooks=[MetricsHook(tensors={"other": "other:0"})], max_steps=2)
    assert set(runs[0].metrics) == {"loss"}
    with pytest.raises(OptionError, match="every=0"):
        MetricsHook(every=0)


@there
def test_what_breaks_in_it_ends_no_training(estimator, monkeypatch: pytest.MonkeyPatch):
    """It is said once."""
    with capture_runs(), model_run("r") as run:
        monkeypatch.setattr(recorder_of(run).metrics, "write", lambda record: 1 / 0)
        with pytest.warns(MlwrapWarning, match="MetricsHook failed and logs no more"):
            estimator.train(data, hooks=[MetricsHook(every=1)], max_steps=3)
    assert estimator.get_variable_value("global_step") == 3


@there
def test_what_diverges_stops_the_training(tmp_path):
    """If it is infinite; of NaN TensorFlow's own hook makes an error."""
    wild = tf.estimator.Estimator(model_fn, str(tmp_path / "wild"), params={"rate": 1e20})
    said = pytest.warns(MlwrapWarning, match="was asked to stop: metric 'loss' is inf")
    with capture_runs() as runs, model_run("r", nonfinite="stop"), said:
        wild.train(data, hooks=[MetricsHook(every=1)], max_steps=100)
    assert int(runs[0].tags["mlwrap.first_nonfinite_step"]) == wild.get_variable_value("global_step") < 10
    assert runs[0].status == "FINISHED"


@pytest.mark.skipif(HERE, reason="here is a tf.estimator")
def test_without_estimators():
    """The module says what it needs, and what there is instead."""
    with pytest.raises(ImportError, match=r"left TensorFlow in 2\.16.*MetricsCallback"):
        importlib.import_module("mlwrap.estimator")
