"""``ParameterServerStrategy(variable_partitioner=…)``: what is cut into shards is logged as one model."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlwrap import load_model
from tests.faults.servers import free_port

pytest.importorskip("tensorflow")

TRAIN = """
import os, sys, warnings
import numpy as np
import tensorflow as tf
import {keras} as keras
from mlwrap import model_run
from mlwrap.errors import MlwrapWarning

ports = {ports}
cluster = tf.train.ClusterSpec({{
    "worker": [f"127.0.0.1:{{ports[0]}}"], "ps": [f"127.0.0.1:{{port}}" for port in ports[1:]],
}})
servers = [
    tf.distribute.Server(cluster, job_name=job, task_index=task, protocol="grpc", start=True)
    for job in cluster.jobs for task in range(cluster.num_tasks(job))
]
strategy = tf.distribute.ParameterServerStrategy(
    tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc"),
    variable_partitioner=tf.distribute.experimental.partitioners.FixedShardsPartitioner(2),
)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(6)

    def call(self, x):
        return self.dense(x)


class Stuck(Subclassed):
    def get_config(self):
        raise NotImplementedError("it has no configuration")


data = tf.data.Dataset.from_tensors((np.ones((4, 4), "float32"), np.ones((4, 1), "float32"))).repeat()
with strategy.scope():
    layers = [keras.layers.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(1)]
    model, subclassed, stuck = keras.Sequential(layers), Subclassed(), Stuck()
    for each in (model, subclassed, stuck):
        each.compile("adam", "mse")
for each in (model, subclassed, stuck):
    each.fit(data, steps_per_epoch=2, verbose=0)
with model_run("r") as run:
    run.log_model(model, "layers")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run.log_model(subclassed, "subclassed")
        run.log_model(stuck, "stuck")
whole = [np.concatenate(model.weights[first : first + 2]) for first in (0, 2)]
np.savez("whole.npz", *whole)
kernel, bias = (np.concatenate(subclassed.weights[first : first + 2]) for first in (0, 2))
np.save("predicted.npy", np.ones((2, 4), "float32") @ kernel + bias)
print("said", [str(one.message) for one in said if one.category is MlwrapWarning], flush=True)
print("run", run.run_id, flush=True)
os._exit(0)  # the servers never end
"""


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_shards_are_joined(store: str, python, package: str):
    """Weights and the optimizer's state; what can't be built again is FAILED, with the true reason."""
    keras = pytest.importorskip(package)
    if keras.__version__.startswith("3."):
        pytest.skip("Keras 3 knows no parameter servers")
    done = python(TRAIN.format(keras=package, ports=[free_port() for _ in range(3)]))
    run_id = done.stdout.split()[-1]
    model = load_model(f"runs:/{run_id}/layers")
    with np.load("whole.npz") as whole:
        for found, name in zip(model.get_weights(), whole.files, strict=False):
            np.testing.assert_array_equal(found, whole[name])
    assert [weight.shape for weight in model.get_weights()] == [(4, 6), (6,), (6, 1), (1,)]
    assert int(model.optimizer.iterations) == 2
    x = np.ones((2, 4), "float32")
    stock = mlflow.pyfunc.load_model(f"runs:/{run_id}/layers")
    np.testing.assert_allclose(stock.predict(x), model.predict(x, verbose=0), rtol=1e-5)
    assert not list(Path().glob("*.keras"))
    stock = mlflow.pyfunc.load_model(f"runs:/{run_id}/subclassed")
    np.testing.assert_allclose(stock.predict(x), np.load("predicted.npy"), rtol=1e-5)
    failed = {m.name: m.tags.get("mlwrap.error") for m in mlflow.search_logged_models(output_format="list")}
    assert "cut into shards by its strategy's variable_partitioner" in failed["stuck"]
