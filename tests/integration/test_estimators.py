"""Estimators from the training through MLflow to a training that goes on: real ones, of TensorFlow 2.15."""

from __future__ import annotations

from pathlib import Path

import mlflow
import mlflow.tensorflow
import numpy as np
import pytest

from mlwrap import load_model, model_run, tracked_training
from mlwrap.errors import LoadError, MlwrapWarning

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_estimator", reason="tf.estimator left TensorFlow in 2.16")
if not hasattr(tf, "estimator"):
    pytest.skip("tf.estimator left TensorFlow in 2.16", allow_module_level=True)

X = np.linspace(0, 1, 24, dtype="float32").reshape(12, 2)
Y = (X.sum(axis=1) > 1).astype("int64")


def data():
    """An input function without an end."""
    return tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).repeat().batch(4)


def receiver():
    """A serving input receiver that is fed with plain arrays."""
    x = tf.compat.v1.placeholder(tf.float32, [None, 2], name="x")
    return tf.estimator.export.ServingInputReceiver({"x": x}, {"x": x})


def model_fn(features, labels, mode, params):
    """One weight, whose loss is told by the step in evaluations: best at step 4."""
    weight = tf.compat.v1.get_variable("weight", initializer=0.5)
    score = tf.reduce_sum(features["x"], axis=1) * weight
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode, predictions={"score": score})
    step = tf.compat.v1.train.get_global_step()
    if mode == tf.estimator.ModeKeys.EVAL:
        loss = tf.abs(tf.cast(step, tf.float32) - 4.0)
        metrics = {"mean_score": tf.compat.v1.metrics.mean(score)}
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)
    loss = tf.reduce_mean((score - tf.cast(labels, tf.float32)) ** 2)
    optimizer = tf.compat.v1.train.GradientDescentOptimizer(params["learning_rate"])
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss, global_step=step))


def config(**more):
    """Summaries and checkpoints every two steps."""
    return tf.estimator.RunConfig(
        save_summary_steps=2, save_checkpoints_steps=2, log_step_count_steps=2, **more
    )


PARAMS = {"learning_rate": 0.1, "layers": {"units": [4, 2]}, "api_key": "sk-0123456789abcdef"}


def custom(folder, warm_start_from=None, **more):
    """One with a model function and parameters of the user's."""
    return tf.estimator.Estimator(
        model_fn, model_dir=str(folder), params=PARAMS, config=config(**more), warm_start_from=warm_start_from
    )


def canned(folder):
    """One of TensorFlow's own."""
    columns = [tf.feature_column.numeric_column("x", shape=(2,))]
    return tf.estimator.DNNClassifier([3], columns, model_dir=str(folder), config=config())


def from_keras(folder):
    """One that was a Keras model."""
    x = tf.keras.Input((2,), name="x")
    model = tf.keras.Model({"x": x}, tf.keras.layers.Dense(1, name="score")(x))
    model.compile("sgd", "mse")
    return tf.keras.estimator.model_to_estimator(model, model_dir=str(folder), config=config())


def logged(estimator, **options):
    """Log an Estimator; the run and where its model lies."""
    with model_run("r") as run:
        run.log_model(estimator, **options)
    (model,) = run.models
    assert (model.name, model.status) == ("estimator_checkpoint", "READY")
    return run, model.uri


def details(uri):
    """What the saver said of what it wrote."""
    return mlflow.models.get_model_info(uri).flavors["mlwrap"]["details"]


KINDS = {"canned": canned, "custom": custom, "from Keras": from_keras}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_training_goes_on_where_it_ended(make, store: str, tmp_path: Path):
    """In a folder of its own: the step continues, every weight is what it was, the original stays."""
    first = make(tmp_path / "first").train(data, steps=6)
    _, uri = logged(first)
    assert details(uri) == {"checkpoint": "checkpoint/model.ckpt-6"}
    resumed = make(load_model(uri, into=tmp_path / "resumed"))
    assert resumed.model_dir == str(tmp_path / "resumed")
    for name in first.get_variable_names():
        np.testing.assert_array_equal(resumed.get_variable_value(name), first.get_variable_value(name))
    resumed.train(data, steps=3)
    assert resumed.latest_checkpoint().endswith("model.ckpt-9")
    assert tf.train.latest_checkpoint(str(load_model(uri))).endswith("model.ckpt-6")
    with pytest.raises(LoadError, match="holds checkpoints of a training already"):
        load_model(uri, into=resumed)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_with_a_serving_function_every_loader_predicts_the_same(make, store: str, tmp_path: Path):
    """Stock pyfunc and the flavor's own loader, as the Estimator itself does."""
    estimator = make(tmp_path / "model_dir").train(data, steps=4)
    _, uri = logged(estimator, serving_input_receiver_fn=receiver)
    rows = list(estimator.predict(lambda: tf.data.Dataset.from_tensors({"x": X})))
    key = "probabilities" if "probabilities" in rows[0] else "score"
    expected = np.array([row[key] for row in rows])
    stock = mlflow.pyfunc.load_model(uri)
    assert [(i.name, i.shape) for i in stock.metadata.signature.inputs.inputs] == [("x", (-1, 2))]
    np.testing.assert_allclose(np.reshape(stock.predict({"x": X})[key], expected.shape), expected, rtol=1e-5)
    direct = mlflow.tensorflow.load_model(uri)(x=tf.constant(X))
    np.testing.assert_allclose(direct[key].numpy(), expected, rtol=1e-5)


def test_a_warm_start_takes_the_weights_and_not_the_step(store: str, tmp_path: Path):
    """From what was loaded; and what it started is logged like any other."""
    first = custom(tmp_path / "first").train(data, steps=6)
    _, uri = logged(first)
    warm = custom(tmp_path / "warm", warm_start_from=str(load_model(uri)))
    warm.train(data, steps=1)
    assert warm.get_variable_value("global_step") == 1
    start = tf.train.load_variable(str(tmp_path / "warm" / "model.ckpt-0"), "weight")
    assert start == first.get_variable_value("weight")
    _, again = logged(warm)
    assert tf.train.load_variable(str(load_model(again)), "weight") == warm.get_variable_value("weight")


def test_the_best_checkpoint_is_kept_beside_the_latest(store: str, tmp_path: Path):
    """By the loss of the evaluations without a name; each of them is in the metrics, with its step."""
    train = tracked_training(lambda folder: evaluated(custom(folder)))
    train(str(tmp_path / "model_dir"))
    uri, run = train.last_run.model_uri, mlflow.get_run(train.last_run.run_id)
    assert details(uri) == {
        "checkpoint": "checkpoint/model.ckpt-6",
        "best": {"metric": "eval/loss", "value": 0.0, "step": 4, "checkpoint": "checkpoint/model.ckpt-4"},
    }
    folder = load_model(uri)
    assert tf.train.load_variable(str(folder), "global_step") == 6
    assert tf.train.load_variable(str(folder.parent / "best"), "global_step") == 4
    warm = custom(tmp_path / "warm", warm_start_from=str(folder.parent / "best")).train(data, steps=1)
    start = tf.train.load_variable(str(tmp_path / "warm" / "model.ckpt-0"), "weight")
    assert start == tf.train.load_variable(str(tmp_path / "model_dir" / "model.ckpt-4"), "weight")
    assert warm.get_variable_value("global_step") == 1

    history = mlflow.MlflowClient().get_metric_history
    for name in ("eval/loss", "eval_holdout/loss", "eval/mean_score", "eval_holdout/mean_score"):
        assert [point.step for point in history(run.info.run_id, name)] == [2, 4, 6]
    assert [point.value for point in history(run.info.run_id, "eval/loss")] == [2.0, 0.0, 2.0]
    assert {point.step for point in history(run.info.run_id, "loss")} >= {1, 3, 5}


def test_what_evaluate_returned_has_the_names_of_the_event_files(store: str, tmp_path: Path):
    """Each number once: the files have told it, or it is named as they name it."""

    @tracked_training
    def train(folder):
        estimator = custom(folder).train(data, steps=2)
        measured = estimator.evaluate(data, steps=1)
        return estimator, measured, {"later": {**measured, "global_step": 7, "mean_score": 0.5}}

    train(str(tmp_path / "model_dir"))
    metrics = mlflow.get_run(train.last_run.run_id).data.metrics
    assert not {
        name for name in metrics if name.startswith(("evaluation/", "later/")) or name == "global_step"
    }
    points = mlflow.MlflowClient().get_metric_history(train.last_run.run_id, "eval/mean_score")
    assert [point.step for point in points] == [2, 7]


def evaluated(estimator):
    """Train six steps with an evaluation after every second one, on two sets."""
    for _ in range(3):
        estimator.train(data, steps=2)
        estimator.evaluate(data, steps=1)
        estimator.evaluate(data, steps=1, name="holdout")
    return estimator


def test_of_a_best_checkpoint_that_is_gone_the_evaluation_is_told(store: str, tmp_path: Path):
    """The Estimator keeps one checkpoint, as it was told."""
    estimator = evaluated(custom(tmp_path / "model_dir", keep_checkpoint_max=1))
    _, uri = logged(estimator)
    assert details(uri)["best"] == {"metric": "eval/loss", "value": 0.0, "step": 4}
    assert not (load_model(uri).parent / "best").exists()


def test_params_of_the_model_function_are_parameters_of_the_run(store: str, tmp_path: Path):
    """Nested ones flattened, secrets left out; those of a model with a name of its own under that name."""
    estimator = custom(tmp_path / "model_dir").train(data, steps=1)
    with model_run("r") as run:
        run.record({"estimator_checkpoint": estimator})
        run.log_model(estimator, "champion")
    params = mlflow.get_run(run.run_id).data.params
    assert params["params.learning_rate"] == params["champion.params.learning_rate"] == "0.1"
    assert params["params.layers.units"] == "[4, 2]"
    assert "sk-0123456789abcdef" not in str(params)


def test_exports_of_exporters_are_kept_and_the_newest_is_served(store: str, tmp_path: Path):
    """Of ``train_and_evaluate`` with a best, a latest and a final exporter: the newest of each."""
    estimator = canned(tmp_path / "model_dir")
    exporters = [
        tf.estimator.BestExporter("best", receiver),
        tf.estimator.LatestExporter("latest", receiver),
        tf.estimator.FinalExporter("final", receiver),
    ]
    evaluation = tf.estimator.EvalSpec(
        data, steps=1, exporters=exporters, start_delay_secs=0, throttle_secs=0
    )
    tf.estimator.train_and_evaluate(estimator, tf.estimator.TrainSpec(data, max_steps=4), evaluation)
    _, uri = logged(estimator)
    found = details(uri)
    assert sorted(found["exports"]) == ["export/best", "export/final", "export/latest"]
    assert mlflow.models.get_model_info(uri).flavors["tensorflow"]["saved_model_dir"] == found["exports"][-1]
    expected = [
        row["probabilities"] for row in estimator.predict(lambda: tf.data.Dataset.from_tensors({"x": X}))
    ]
    stock = mlflow.pyfunc.load_model(uri)
    assert stock.metadata.signature.inputs.inputs[0].shape == (-1, 2)
    np.testing.assert_allclose(stock.predict({"x": X})["probabilities"], expected, rtol=1e-5)
    root = load_model(uri).parent
    for export in found["exports"]:
        served = tf.saved_model.load(str(root / export)).signatures["predict"](x=tf.constant(X))
        assert served["probabilities"].shape == (12, 2)


def test_an_estimator_that_was_never_trained_reaches_the_caller(store: str, tmp_path: Path):
    """With a warning that says what is missing; the model is FAILED."""
    train = tracked_training(lambda: canned(tmp_path / "model_dir"))
    with pytest.warns(MlwrapWarning, match=r"has no checkpoint.*Call train"):
        returned = train()
    assert returned.latest_checkpoint() is None
    assert [model.status for model in train.last_run.models] == ["FAILED"]
