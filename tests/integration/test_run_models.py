"""Which model a run stands for, and what MLflow knows of each."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner

from mlwrap import current_run, load_model, model_run, tracked_training
from mlwrap._cli import commands
from mlwrap.errors import LoadError, MlwrapWarning
from mlwrap.keras import MetricsCallback

tf = pytest.importorskip("tensorflow")
keras = tf.keras

X = np.ones((8, 2), "float32")


def made(value: float = 1.0):
    """A Keras model whose only weight is ``value``."""
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    model.set_weights([np.full((2, 1), value, "float32")])
    return model


def weight(source) -> float:
    """Of a model that :func:`made` made."""
    return float(load_model(source).get_weights()[0][0, 0])


def entity(run, label: str):
    """What MLflow has of the run's model that is called so."""
    (model,) = [m for m in run.models if m.label == label]
    return mlflow.get_logged_model(model.uri.removeprefix("models:/"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """A run whose function returns the model that it logged checkpoints of, and that model."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fitted")
        patch.chdir(folder)
        patch.setenv("MLWRAP_SPOOL", str(folder / "spool"))

        @tracked_training(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment="models")
        def train(units: int = 1, lr: float = 0.1):
            model = made()
            callback = MetricsCallback(checkpoint_every=1, best="loss", batch_size=2)
            model.fit(X, X[:, :1] * lr, epochs=3, verbose=0, callbacks=[callback])
            return model

        model = train()
        yield train.last_run, model


@pytest.fixture
def fitted(trained):
    """The same, where MLflow looks."""
    mlflow.set_tracking_uri(trained[0].tracking_uri)
    yield trained
    mlflow.set_tracking_uri(None)


def test_model_uri_is_the_returned_model_not_a_checkpoint(fitted):
    """So is what ``load_model`` gives for the run and for its id."""
    run, model = fitted
    expected = float(model.get_weights()[0][0, 0])
    for source in (run.model_uri, run, run.run_id, f"runs:/{run.run_id}"):
        assert weight(source) == expected
    assert run.model_uri == entity(run, "keras_model").model_uri


def test_a_logged_model_has_the_parameters_and_newest_metrics_of_its_run(fitted):
    """MLflow finds it by them; how fast the training went is not among them."""
    run, _ = fitted
    logged = entity(run, "keras_model")
    assert (logged.params["units"], logged.params["lr"]) == ("1", "0.1")
    loss = {m.step: m.value for m in mlflow.MlflowClient().get_metric_history(run.run_id, "loss")}
    assert {(m.key, m.step, m.value) for m in logged.metrics} >= {("loss", 2, loss[2])}
    names = {m.key for m in logged.metrics}
    assert not {n for n in names if "seconds" in n or "per_second" in n}
    experiment = logged.experiment_id
    found = mlflow.search_logged_models([experiment], "params.units = '1'", output_format="list")
    assert {m.name for m in found} == {"checkpoint", "best", "keras_model"}


def test_a_checkpoint_has_the_metrics_of_its_epoch(fitted):
    """And a tag for its step."""
    run, _ = fitted
    loss = {m.step: m.value for m in mlflow.MlflowClient().get_metric_history(run.run_id, "loss")}
    logged = entity(run, "checkpoint@1")
    assert {(m.key, m.step, m.value) for m in logged.metrics} >= {("loss", 1, loss[1])}
    assert not {m.key for m in logged.metrics if "seconds" in m.key or "per_second" in m.key}
    assert (logged.tags["mlwrap.step"], logged.tags["mlwrap.checkpoint"]) == ("1", "true")
    assert "mlwrap.step" not in entity(run, "keras_model").tags


def test_the_step_names_one_of_several_checkpoints(fitted):
    """Without a step the last one is meant."""
    run, _ = fitted
    uri = f"runs:/{run.run_id}/checkpoint"
    weights = [weight(f"{uri}@{step}") for step in range(3)]
    assert len(set(weights)) == 3
    assert weight(uri) == weights[2]
    assert "checkpoint@1" in repr(run.models)
    with pytest.raises(LoadError, match=r"no model 'checkpoint@7'.*checkpoint@2"):
        load_model(f"{uri}@7")


def test_points_that_a_model_has_are_once_in_the_run(fitted):
    """Though MLflow is told them with the model's id."""
    run, _ = fitted
    history = mlflow.MlflowClient().get_metric_history(run.run_id, "loss")
    assert [m.step for m in history] == [0, 1, 2]


def test_model_uri_of_a_block_is_the_last_logged_model(store: str):
    """Of those that are no checkpoints."""
    with model_run("r") as run:
        run.log_model(made(1), "first")
        run.log_metric("loss", 0.5)
        run.log_model(made(2), "second")
        run.log_model(made(3), "state", step=4, checkpoint=True)
        assert run.model_uri is None
    assert [weight(source) for source in (run.model_uri, run, run.run_id)] == [2, 2, 2]


def test_model_uri_lists_several_returned_models(store: str):
    """And each has its own metrics."""

    @tracked_training
    def train():
        return {"generator": made(1), "critic": made(2), "generator/loss": 0.5, "critic/loss": 0.25}

    train()
    run = train.last_run
    for look in (lambda: run.model_uri, lambda: load_model(run), lambda: load_model(run.run_id)):
        with pytest.raises(LoadError, match="has several models") as caught:
            look()
        assert f"runs:/{run.run_id}/critic" in str(caught.value)
    assert {m.key for m in entity(run, "critic").metrics} == {"critic/loss"}


def test_model_uri_of_checkpoints_only(store: str):
    """The last one; of several names one has to be named."""
    with model_run("one") as run:
        run.log_model(made(1), "checkpoint", step=0, checkpoint=True)
        run.log_model(made(2), "checkpoint", step=1, checkpoint=True)
    assert [weight(source) for source in (run.model_uri, run, run.run_id)] == [2, 2, 2]
    with model_run("two") as run:
        run.log_model(made(1), "checkpoint", step=0, checkpoint=True)
        run.log_model(made(2), "best", step=1, checkpoint=True)
    with pytest.raises(LoadError, match=r"/checkpoint@0.*/best@1"):
        _ = run.model_uri


def test_model_uri_is_none_where_the_returned_model_could_not_be_saved(store: str):
    """An earlier one never takes its place without a word."""

    @tracked_training
    def train():
        current_run().log_model(made(1), "state", step=1, checkpoint=True)
        return keras.Sequential([keras.layers.Dense(2)])  # which was never built

    with pytest.warns(MlwrapWarning, match="could not be saved"):
        train()
    assert train.last_run.model_uri is None
    with pytest.raises(LoadError, match=r"could not be saved.*has another one: .*/state@1"):
        load_model(train.last_run)
    with pytest.raises(LoadError, match="was never saved: the model 'keras_model' is FAILED"):
        load_model(train.last_run.run_id)
    assert weight(f"runs:/{train.last_run.run_id}/state") == 1


def test_show_names_the_step(fitted, monkeypatch: pytest.MonkeyPatch):
    """``mlwrap show`` calls a checkpoint as ``load_model`` takes it."""
    run, _ = fitted
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(commands.cli, ["show", run.run_id, "--tracking-uri", run.tracking_uri])
    assert "checkpoint@1" in shown.output
