"""Estimators: a checkpoint that can move, a SavedModel that can serve, metrics of the event files."""

import shutil
from pathlib import Path

import mlflow.tensorflow
import numpy as np
import pytest

from mlwrap._journal.records import TensorSpec
from mlwrap._savers import saver_registry
from mlwrap.errors import LoadError, MlwrapWarning, SaveError

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_estimator", reason="tf.estimator left TensorFlow in 2.16")
if not hasattr(tf, "estimator"):
    pytest.skip("tf.estimator left TensorFlow in 2.16", allow_module_level=True)

X = np.linspace(0, 1, 24, dtype="float32").reshape(12, 2)
Y = (X.sum(axis=1) > 1).astype("int64")


def data():
    """An input function without an end."""
    return tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).repeat().batch(4)


def model_fn(features, labels, mode):
    """One weight, trained by gradient descent."""
    weight = tf.compat.v1.get_variable("weight", initializer=0.5)
    predictions = {"score": tf.reduce_sum(features["x"], axis=1) * weight}
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions=predictions)
    loss = tf.reduce_mean((predictions["score"] - tf.cast(labels, tf.float32)) ** 2)
    step = tf.compat.v1.train.get_global_step()
    train = tf.compat.v1.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=step)
    return tf.estimator.EstimatorSpec(mode, predictions=predictions, loss=loss, train_op=train)


def receiver():
    """A serving input receiver that is fed with plain arrays."""
    x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
    return tf.estimator.export.ServingInputReceiver({"x": x}, {"x": x})


def canned(folder, config):
    """One of TensorFlow's own."""
    return tf.estimator.DNNClassifier(
        [3], [tf.feature_column.numeric_column("x", shape=(2,))], model_dir=str(folder), config=config
    )


def custom(folder, config):
    """One with a model function of the user's."""
    return tf.estimator.Estimator(model_fn, model_dir=str(folder), config=config)


def from_keras(folder, config):
    """One that was a Keras model."""
    x = tf.keras.Input((2,), name="x")
    model = tf.keras.Model({"x": x}, tf.keras.layers.Dense(1, name="out")(x))
    model.compile("sgd", "mse")
    return tf.keras.estimator.model_to_estimator(model, model_dir=str(folder), config=config)


def global_step(folder):
    """The step's name, which is longer in a checkpoint of a Keras model."""
    (name,) = [name for name, _ in tf.train.list_variables(folder) if "global_step" in name]
    return name


KINDS = {"canned": canned, "custom": custom, "from Keras": from_keras}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def make(request, tmp_path):
    """Make an Estimator of each kind, all in one folder of this test."""
    config = tf.estimator.RunConfig(save_summary_steps=2, log_step_count_steps=2, save_checkpoints_steps=4)
    return lambda: request.param(tmp_path / "model_dir", config)


@pytest.fixture
def trained(make):
    """An Estimator of each kind after ten steps."""
    return make().train(data, steps=10)


def test_the_latest_checkpoint_is_saved_whole_and_can_move(trained, keep, tmp_path):
    """All its files and none of the older ones; TensorFlow reads the same values wherever the folder lies."""
    kept = keep(trained)
    assert kept.saved.flavors == {}
    assert kept.saved.pyfunc is None
    names = {path.name for path in kept.folder.glob("checkpoint/*")}
    assert {"checkpoint", "graph.pbtxt", "model.ckpt-10.index", "model.ckpt-10.meta"} <= names
    assert not [name for name in names if name.startswith("model.ckpt") and "ckpt-10." not in name]
    moved = shutil.move(kept.folder, tmp_path / "elsewhere")
    shutil.rmtree(trained.model_dir)
    latest = tf.train.latest_checkpoint(kept.saver.load(Path(moved), kept.saved.details))
    assert latest == str(tmp_path / "elsewhere" / "checkpoint" / "model.ckpt-10")
    assert tf.train.load_variable(latest, global_step(latest)) == 10


def test_variables_are_equal(trained, keep):
    """Every variable of the checkpoint has the value that the Estimator tells."""
    folder = keep(trained).load()
    assert [name for name, _ in tf.train.list_variables(folder)] == sorted(trained.get_variable_names())
    for name in trained.get_variable_names():
        np.testing.assert_array_equal(tf.train.load_variable(folder, name), trained.get_variable_value(name))


def test_training_goes_on_from_what_was_loaded(tmp_path, keep):
    """The folder is taken as ``model_dir``, and as text for ``warm_start_from``."""
    estimator = custom(tmp_path / "model_dir", None).train(data, steps=5)
    folder = keep(estimator).load()
    warm = tf.estimator.Estimator(model_fn, model_dir=str(tmp_path / "warm"), warm_start_from=str(folder))
    assert warm.train(data, steps=1).get_variable_value("global_step") == 1
    resumed = tf.estimator.Estimator(model_fn, model_dir=folder)
    assert resumed.get_variable_value("weight") == estimator.get_variable_value("weight")
    assert resumed.train(data, steps=1).get_variable_value("global_step") == 6


def test_with_a_serving_function_stock_mlflow_predicts(trained, keep):
    """``mlflow.pyfunc`` and ``mlflow.tensorflow`` open the export, and predict what the Estimator does."""
    kept = keep(trained, serving_input_receiver_fn=receiver)
    flavor = kept.saved.flavors["tensorflow"]
    assert flavor["model_type"] == "tf1-estimator"
    assert flavor["saved_model_dir"] == "tfmodel"
    assert sorted(path.name for path in kept.folder.iterdir()) == ["MLmodel", "checkpoint", "code", "tfmodel"]
    assert kept.saved.signature.inputs == (TensorSpec(name="x", dtype="float32", shape=(-1, 2)),)
    served = kept.pyfunc().predict({"x": X})
    direct = mlflow.tensorflow.load_model(str(kept.folder))(x=tf.constant(X))
    once = lambda: tf.data.Dataset.from_tensors({"x": X})
    expected = list(trained.predict(once))
    for key in {"score", "probabilities", "out"} & set(served):
        values = np.array([row[key] for row in expected])
        assert served[key].shape == values.shape
        np.testing.assert_allclose(served[key], values, rtol=1e-5)
        np.testing.assert_allclose(direct[key].numpy(), values, rtol=1e-5)
    assert {"score", "probabilities", "out"} & set(served)


def test_serialized_examples_can_be_served_too(tmp_path, keep):
    """A parsing receiver takes text; the signature says so."""
    columns = [tf.feature_column.numeric_column("x", shape=(2,))]
    spec = tf.feature_column.make_parse_example_spec(columns)
    parse = tf.estimator.export.build_parsing_serving_input_receiver_fn(spec)
    estimator = canned(tmp_path / "model_dir", None).train(data, steps=2)
    kept = keep(estimator, serving_input_receiver_fn=parse)
    assert kept.saved.flavors["tensorflow"]["signature_def_key"] == "serving_default"
    assert kept.saved.signature.inputs == (TensorSpec(name="inputs", dtype="str", shape=(-1,)),)


def test_a_serving_function_that_fails_costs_the_export_and_not_the_checkpoint(trained, keep):
    """The training's result is kept; what went wrong is said."""

    def broken():
        raise RuntimeError("no such column")

    with pytest.warns(MlwrapWarning, match="could not be exported.*RuntimeError: no such column"):
        kept = keep(trained, serving_input_receiver_fn=broken)
    assert kept.saved.pyfunc is None
    assert sorted(path.name for path in kept.folder.iterdir()) == ["MLmodel", "checkpoint"]
    assert tf.train.load_variable(kept.load(), global_step(kept.load())) == 10


def test_metrics_are_those_of_the_event_files(make):
    """Losses and evaluations, with their steps, with times in milliseconds, and no doubles."""
    estimator = make()
    saver = saver_registry.find(estimator)
    assert list(saver.metrics(estimator)) == []
    estimator.train(data, steps=6)
    first = estimator.evaluate(data, steps=1)
    named = estimator.evaluate(data, steps=1, name="holdout")
    estimator.train(data, steps=4)
    second = estimator.evaluate(data, steps=1)
    points = {}
    records = list(saver.metrics(estimator))
    for record in records:
        for name, value in record.numbers().items():
            assert (name, record.step) not in points
            points[name, record.step] = value
    # TensorFlow itself numbers the summary of a Keras model's loss.
    assert {step for name, step in points if name in {"loss", "loss_1"}} >= {1, 3, 5, 7, 9}
    assert any(name == "global_step/sec" for name, _ in points)
    assert points["eval/loss", 6] == pytest.approx(first["loss"])
    assert points["eval_holdout/loss", 6] == pytest.approx(named["loss"])
    assert points["eval/loss", 10] == pytest.approx(second["loss"])
    assert not [name for name, _ in points if "checkpoint_path" in name or "activation" in name]
    times = [record.time for record in records]
    assert times == sorted(times)
    assert 1.5e12 < times[0] < 1e13


def test_a_torn_event_file_gives_what_is_whole(tmp_path):
    """A process that was killed leaves half a record at the end of its file."""
    estimator = custom(tmp_path / "model_dir", tf.estimator.RunConfig(save_summary_steps=1))
    estimator.train(data, steps=5)
    saver = saver_registry.find(estimator)
    whole = list(saver.metrics(estimator))
    (file,) = tmp_path.glob("model_dir/events.*")
    content = file.read_bytes()
    file.write_bytes(content[: content.rindex(b"loss") + 2])
    torn = list(saver.metrics(estimator))
    assert 0 < len(torn) < len(whole)
    assert torn == whole[: len(torn)]


def test_an_untrained_estimator_has_nothing_to_save(make, keep):
    """The error says so, and carries the Estimator."""
    estimator = make()
    with pytest.raises(SaveError, match=r"has no checkpoint.*Call train") as caught:
        keep(estimator)
    assert caught.value.value is estimator


def test_a_missing_shard_is_named(trained, keep):
    """Half a checkpoint is none."""
    last = max(Path(trained.model_dir).glob("model.ckpt-10.data-*"))
    last.unlink()
    with pytest.raises(SaveError, match="is missing") as caught:
        keep(trained)
    assert last.name.endswith(("-00000-of-00001", "-00001-of-00002"))
    assert last.name.partition("-of-")[0] in str(caught.value)


def test_a_checkpoint_that_is_not_there_is_a_load_error(trained, keep):
    """What was expected where is said."""
    kept = keep(trained)
    shutil.rmtree(kept.folder / "checkpoint")
    with pytest.raises(LoadError, match=r"checkpoint/model\.ckpt-10"):
        kept.load()
