"""Whatever a run logged comes back by any of its names."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlwrap import load_model, model_run
from mlwrap.errors import LoadError, MlwrapWarning, SaveError

tf = pytest.importorskip("tensorflow")
keras = tf.keras


@pytest.fixture
def model():
    """A small Keras model with weights."""
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    made.compile("sgd", "mse")
    return made


X = np.ones((2, 3), "float32")


def test_every_name_of_a_model(model, store: str, tmp_path: Path):
    """By its id, through its run, by version and alias of the registry, and by its folder."""
    with model_run("r") as run:
        run.log_model(model, "net")
    expected = model.predict(X, verbose=0)
    version = mlflow.register_model(run.model_uri, "registered")
    mlflow.MlflowClient().set_registered_model_alias("registered", "champion", version.version)
    location = mlflow.get_logged_model(run.model_uri.removeprefix("models:/")).artifact_location
    for uri in (
        run.model_uri,
        f"runs:/{run.run_id}/net",
        "models:/registered/1",
        "models:/registered/latest",
        "models:/registered@champion",
        location,
        Path(location),
    ):
        np.testing.assert_array_equal(load_model(uri).predict(X, verbose=0), expected)
    assert list((tmp_path / "home").rglob("model.keras")) == []  # loaded where it lies, not from a copy


def test_several_models_have_their_own_names(model, store: str):
    """A dict's keys."""
    with model_run("r") as run:
        run.record({"generator": model, "critic": keras.models.clone_model(model), "loss": 0.5})
    assert {m.name: m.status for m in run.models} == {"generator": "READY", "critic": "READY"}
    np.testing.assert_array_equal(
        load_model(f"runs:/{run.run_id}/generator").predict(X, verbose=0), model.predict(X, verbose=0)
    )


def test_a_checkpoint_is_restored_into_another(store: str):
    """tf.train.Checkpoint: the variables' values come back into the object given."""
    with model_run("r") as run:
        run.log_model(tf.train.Checkpoint(v=tf.Variable([1.0, 2.0]), step=tf.Variable(7)))
    assert run.models[0].name == "checkpoint"
    target = tf.train.Checkpoint(v=tf.Variable([0.0, 0.0]), step=tf.Variable(0))
    load_model(run.model_uri, into=target)
    assert (target.v.numpy().tolist(), int(target.step)) == ([1.0, 2.0], 7)
    with pytest.raises(LoadError, match="into="):
        load_model(run.model_uri)


def test_an_optimizer_and_a_step_are_restored(store: str):
    """A training loop of one's own goes on with its momentum."""

    def state():
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        weight = tf.Variable([1.0, 2.0])
        optimizer.build([weight])
        return tf.train.Checkpoint(optimizer=optimizer, weight=weight, step=tf.Variable(0))

    def train(held):
        held.optimizer.apply_gradients([(tf.constant([1.0, -1.0]), held.weight)])
        held.step.assign_add(1)

    source, target = state(), state()
    train(source)
    with model_run("r") as run:
        run.log_model(source)
    assert load_model(run.model_uri, into=target) is target
    for held in (source, target):
        train(held)
    assert int(target.step) == int(target.optimizer.iterations) == 2
    np.testing.assert_array_equal(target.weight, source.weight)


def test_a_manager_goes_on_from_all_that_it_kept(store: str, tmp_path: Path):
    """Through MLflow into a folder of another training: the latest is restored, the older ones are known."""
    source = tf.train.Checkpoint(v=tf.Variable(0.0))
    manager = tf.train.CheckpointManager(source, str(tmp_path / "first"), max_to_keep=2)
    for value in (1.0, 2.0, 3.0):
        source.v.assign(value)
        manager.save()
    with model_run("r") as run:
        run.log_model(manager)
    folder = load_model(run.model_uri, into=tmp_path / "second")
    state = tf.train.get_checkpoint_state(str(folder))
    assert [Path(path).name for path in state.all_model_checkpoint_paths] == ["ckpt-2", "ckpt-3"]
    target = tf.train.Checkpoint(v=tf.Variable(0.0))
    resumed = tf.train.CheckpointManager(target, str(folder), max_to_keep=2)
    assert resumed.restore_or_initialize() == str(folder / "ckpt-3")
    assert float(target.v) == 3.0


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("models:/m-0123456789abcdef", "can't be found"),
        ("runs:/0123456789abcdef/net", "can't be found"),
        ("models:/nobody/1", "not in the registry"),
        ("nowhere", "no MLmodel"),
        ("s3://bucket/model", "names no model: expected models:/<id>"),
    ],
)
def test_a_model_that_is_not_there_is_a_sentence(store: str, uri: str, words: str):
    """It names what was asked for."""
    with pytest.raises(LoadError, match=words) as caught:
        load_model(uri)
    assert uri in str(caught.value)


def test_a_run_names_the_models_that_it_has(model, store: str):
    """Where another one was asked for."""
    with model_run("r") as run:
        run.log_model(model)
    with pytest.raises(LoadError, match="has no model 'other'; its models are: keras_model"):
        load_model(f"runs:/{run.run_id}/other")


def test_a_model_that_mlwrap_did_not_log(store: str, tmp_path: Path):
    """Says whose it is."""
    (tmp_path / "MLmodel").write_text("flavors:\n  sklearn: {}\n")
    with pytest.raises(LoadError, match=r"not logged by mlwrap; its flavors are: sklearn\."):
        load_model(tmp_path)


def test_a_model_that_cannot_be_saved(store: str):
    """A loud warning, FAILED in MLflow, and the object; with strict=True an error that carries it."""
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    with (
        model_run("r") as run,
        pytest.warns(MlwrapWarning, match=r"'keras_model' could not be saved.*no weights"),
    ):
        run.record(unbuilt)
    (logged,) = run.models
    assert logged.status == "FAILED"
    assert mlflow.get_logged_model(logged.uri.removeprefix("models:/")).status.value == "FAILED"
    assert mlflow.get_run(run.run_id).info.status == "FINISHED"
    with pytest.raises(SaveError, match="no weights") as caught, model_run("s", strict=True) as run:
        run.record([unbuilt])
    assert caught.value.value == [unbuilt]


def test_a_history_counts_once(model, store: str):
    """Logged with the model, returned beside it, and remembered by it."""
    history = model.fit(X, X[:, :2], epochs=2, verbose=0)
    with model_run("r") as run:
        run.log_model(model)
        run.record((model, history))
    points = mlflow.MlflowClient().get_metric_history(run.run_id, "loss")
    assert [p.step for p in points] == [0, 1]
