"""Several processes train one model together: one run, recorded by the chief."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlwrap
from mlwrap.errors import OptionError
from tests.faults.servers import free_port

OF_KERAS = """
import sys, numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import mlwrap

@mlwrap.tracked_training
def train(*, units: int = 4):
    with strategy.scope():
        model = tf.keras.Sequential([
            tf.keras.layers.Dense(units), tf.keras.layers.BatchNormalization(), tf.keras.layers.Dense(1),
        ])
        model.compile("sgd", "mse")
    x = np.arange(32, dtype="float32").reshape(16, 2) / 32
    model.fit(x, x.sum(1), epochs=2, batch_size=8, verbose=0)
    return model

model = train()
run = train.last_run
print("recording", run.recording, float(model(np.ones((1, 2), "float32"))[0, 0]))
"""
# Keras 3 on TensorFlow knows no strategy over several workers; a loop of one's own does.
OF_A_LOOP = """
import sys, numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import mlwrap

class Line(tf.Module):
    def __init__(self):
        super().__init__()
        self.weight = tf.Variable([[0.0], [0.0]])
        self.seen = tf.Variable(
            0.0, synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.SUM,
            trainable=False,
        )

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    def __call__(self, x):
        return x @ self.weight

@mlwrap.tracked_training
def train(*, rate: float = 0.1):
    with strategy.scope():
        line = Line()
    x = tf.reshape(tf.range(32.0), (16, 2)) / 32

    @tf.function
    def step():
        def replica():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((line(x) - tf.reduce_sum(x, 1, keepdims=True)) ** 2)
            (gradient,) = tape.gradient(loss, [line.weight])
            total = tf.distribute.get_replica_context().all_reduce("sum", gradient)
            line.weight.assign_sub(rate * total)
            line.seen.assign_add(1.0)
            return loss
        return strategy.run(replica)

    for number in range(5):
        loss = step()
        mlwrap.current_run().log_metric("loss", float(strategy.reduce("mean", loss, axis=None)), step=number)
    return line

line = train()
run = train.last_run
print("recording", run.recording, float(line(tf.ones((1, 2)))[0, 0]))
"""


def test_two_workers_make_one_run(store: str, spool: Path, tmp_path: Path):
    """The chief records; the other saves where it has to, in vain, and what is logged loads and predicts."""
    keras_2 = tf.__version__.startswith("2.15")
    outputs = together(OF_KERAS if keras_2 else OF_A_LOOP, tmp_path)
    told = [line.split() for out in outputs for line in out.splitlines() if line.startswith("recording")]
    assert [recording for _, recording, _ in told] == ["True", "False"]
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.params == ({"units": "4"} if keras_2 else {"rate": "0.1"})
    assert "loss" in run.data.metrics
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert model.status.value == "READY"
    loaded = mlwrap.load_model(model.model_uri)
    assert float(loaded(np.ones((1, 2), "float32"))[0, 0]) == pytest.approx(float(told[0][2]), rel=1e-5)
    assert [path.name for path in spool.rglob("*") if path.is_file()] == ["delivered.jsonl"]


def together(source: str, folder: Path) -> list[str]:
    """What two workers on this machine print, who know each other by TF_CONFIG."""
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(2)]}
    script = folder / "train.py"
    script.write_text(source)
    workers = [
        subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            },
        )
        for index in range(2)
    ]
    try:
        ended = [worker.communicate(timeout=240) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], ended
    return [out for out, _ in ended]


def test_a_worker_by_rank_records_nothing(store: str, spool: Path, monkeypatch: pytest.MonkeyPatch):
    """Its run does nothing; what the setting says goes before what is found."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with mlwrap.model_run("other") as run:
        run.log_metric("loss", 1.0)
        assert run.log_model(tf.Module()) is None
    assert (run.recording, run.status, run.run_id) == (False, "FINISHED", None)
    assert not spool.exists()
    with mlwrap.model_run("mine", chief=True) as run:
        run.log_metric("loss", 1.0)
    assert run.run_id is not None


@pytest.mark.parametrize("told_by", ["RANK", "TF_CONFIG"])
@pytest.mark.parametrize("by_option", [False, True])
def test_a_worker_knows_the_run_that_its_launcher_made(
    store: str, spool: Path, monkeypatch: pytest.MonkeyPatch, told_by: str, by_option: bool
):
    """Whether it takes part in saving or not; it writes nothing on the run, and does not end it."""
    client = mlflow.MlflowClient(store)
    made = client.create_run(client.create_experiment("launched")).info.run_id
    worker = {
        "RANK": {"RANK": "1", "WORLD_SIZE": "2"},
        "TF_CONFIG": {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
            )
        },
    }[told_by]
    for name, value in worker.items() if by_option else [*worker.items(), ("MLFLOW_RUN_ID", made)]:
        monkeypatch.setenv(name, value)
    with mlwrap.model_run("other", run_id=made if by_option else None) as run:
        run.log_metric("loss", 1.0)
        assert run.run_id == made
    assert (run.recording, run.run_id) == (False, made)
    found = client.get_run(made)
    assert (found.info.status, found.data.metrics) == ("RUNNING", {})


def test_a_tf_config_that_does_not_say_who_this_is(monkeypatch: pytest.MonkeyPatch, spool: Path):
    """A sentence before anything runs."""
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}))

    @mlwrap.tracked_training
    def train():
        raise AssertionError("it must not run")

    with pytest.raises(OptionError, match="does not say which of them this process is"):
        train()
    assert not spool.exists()


def test_what_dead_workers_leave_is_swept(store: str, spool: Path):
    """Nobody delivers it: it goes at the next sync."""
    left = spool / "workers" / ("a" * 32)
    left.mkdir(parents=True)
    (left / "journal.jsonl").write_text("{}\n")
    assert mlwrap.sync() == []
    assert not left.exists()
