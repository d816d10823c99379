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


def test_what_a_run_logged_is_loaded_as_it_is_at_hand(model, store: str):
    """By the Run, by what it says of its model, and by its id."""
    with model_run("r") as run:
        run.log_model(model)
    for source in (run, run.models[0], run.run_id, f"runs:/{run.run_id}"):
        np.testing.assert_array_equal(load_model(source).predict(X, verbose=0), model.predict(X, verbose=0))


def test_of_several_models_one_has_to_be_named(model, store: str):
    """The error lists how; of several with one name the last one counts."""
    first, last = keras.models.clone_model(model), model
    with model_run("r") as run:
        run.log_model(first, step=0)
        run.log_model(last, step=1)
    np.testing.assert_array_equal(load_model(run).predict(X, verbose=0), last.predict(X, verbose=0))
    with model_run("s") as run:
        run.record({"generator": model, "critic": first})
    for source in (run, run.run_id):
        with pytest.raises(LoadError, match="has several models") as caught:
            load_model(source)
        for name in ("generator", "critic"):
            assert f"runs:/{run.run_id}/{name}" in str(caught.value)


def test_a_run_that_has_no_model_to_load(store: str):
    """None at all, none that could be saved, or none that MLflow has yet."""
    with model_run("empty") as run:
        pass
    with pytest.raises(LoadError, match="logged no model"):
        load_model(run)
    with pytest.raises(LoadError, match=r"None names no model.*load_model\(run\) says"):
        load_model(run.model_uri)
    with pytest.raises(LoadError, match="has no model"):
        load_model(run.run_id)
    with model_run("failed") as run, pytest.warns(MlwrapWarning, match="could not be saved"):
        run.log_model(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(LoadError, match=r"no model that could be saved \(keras_model\)"):
        load_model(run)
    with pytest.raises(LoadError, match="could not be saved"):
        load_model(run.models[0])
    with pytest.raises(LoadError, match=r"was never saved: the model 'keras_model' is FAILED \(.*no weights"):
        load_model(run.models[0].uri)


def test_a_model_that_is_not_finished(model, store: str):
    """PENDING in MLflow, or still in the spool: what brings it there is named."""
    experiment = mlflow.create_experiment("other")
    pending = mlflow.MlflowClient().create_logged_model(experiment, name="net")
    with pytest.raises(LoadError, match=r"as PENDING.*mlwrap sync"):
        load_model(pending.model_uri)
    with model_run("r", delivery="off") as run:
        run.log_model(model)
    with pytest.raises(LoadError, match=r"does not have the model 'keras_model' yet.*mlwrap sync"):
        load_model(run)


def _change(folder: Path) -> None:
    with (folder / "data" / "model.keras").open("r+b") as file:
        file.seek(100)
        file.write(b"changed")


def _link(folder: Path) -> None:
    (folder / "data" / "model.keras").rename(folder.parent / "elsewhere")
    (folder / "data" / "model.keras").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (_change, r"data/model\.keras is not the file that was logged"),
        (_link, r"data/model\.keras is a link"),
        (lambda it: (it / "data" / "model.keras").unlink(), r"data/model\.keras was logged .* not there"),
        (lambda it: (it / "data" / "weights.pkl").touch(), r"data/weights\.pkl was not logged"),
        (lambda it: (it / "MLmodel").write_text("flavors: ["), "MLmodel file that can't be understood"),
    ],
)
def test_a_model_that_was_changed_is_not_opened(model, store: str, tamper, words: str):
    """The file is named, before any framework has seen it; so is one that was put beside it."""
    with model_run("r") as run:
        run.log_model(model)
    folder = Path(mlflow.get_logged_model(run.model_uri.removeprefix("models:/")).artifact_location)
    (folder / "registered_model_meta").write_text("MLflow's own note")
    load_model(folder)
    tamper(folder)
    with pytest.raises(LoadError, match=words):
        load_model(run)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("saver_format: 1", "saver_format: 99", "format 99 of the saver 'keras'.* Upgrade"),
        ("saver: keras", "saver: nobody", "a saver named 'nobody'; known here are .*keras"),
        ("    format: 1", "    format: 99", "format 99 of the mlwrap flavor.* Upgrade"),
        ("saver: keras", "saver: [keras]", r"flavor mlwrap is damaged: Expected `str`, got `array`"),
        ("    manifest:", "    nothing:", "flavor mlwrap is damaged: .*manifest"),
        ("saver_format: 1", "nothing: 1", "flavor mlwrap is damaged: .*saver_format"),
    ],
)
def test_a_model_of_another_mlwrap(model, store: str, old: str, new: str, words: str):
    """Newer, or with a saver that is not here: what to do is said."""
    with model_run("r") as run:
        run.log_model(model)
    file = Path(mlflow.get_logged_model(run.model_uri.removeprefix("models:/")).artifact_location) / "MLmodel"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(LoadError, match=words):
        load_model(run)
