"""``fit`` with the callback: Keras 3 and tf_keras, or Keras 2, as the environment has them."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
import os
import signal
import threading
import warnings

import mlflow
import numpy as np
import pytest

from mlwrap import load_model, model_run, tracked_training
from mlwrap._fit.best import BestTracker
from mlwrap._run.run import recorder_of
from mlwrap._savers import saver_registry
from mlwrap._savers.keras import snapshot
from mlwrap.errors import MlwrapWarning, OptionError, SaveError
from mlwrap.keras import MetricsCallback
from mlwrap.testing import capture_runs

KERASES = [name for name in ("keras", "tf_keras") if importlib.util.find_spec(name)]
X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
Y = X[:, :1]
EPOCH = {"loss", "learning_rate", "epoch_seconds", "batches_per_second", "seconds_left"}


@pytest.fixture(params=KERASES)
def keras(request):
    """Each Keras that there is."""
    return importlib.import_module(request.param)


@pytest.fixture
def model(keras):
    """A small model that trains in three batches an epoch."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.125), "mse")
    return model


def fit(model, *callbacks, epochs=2, **more):
    """Three batches an epoch, always the same."""
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, **more}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)


def steps(run, name):
    """The steps of a metric."""
    return [step for step, _ in run.metrics[name]]


def test_epochs_are_logged_and_found_once(model):
    """What the History remembers is what was logged; with validation, and the rate at which it went."""
    with capture_runs() as runs:

        @tracked_training
        def train():
            callback = MetricsCallback(batch_size=4)
            return model, fit(model, callback, validation_data=(X, Y))

        _, history = train()
    metrics = runs[0].metrics
    assert set(metrics) == EPOCH | {"val_loss", "samples_per_second"}
    for name in ("loss", "val_loss"):
        assert metrics[name] == list(enumerate(history.history[name]))
    assert metrics["learning_rate"] == [(0, 0.125), (1, 0.125)]
    for (_, batches), (_, samples) in zip(
        metrics["batches_per_second"], metrics["samples_per_second"], strict=True
    ):
        assert samples == 4 * batches > 0
    assert metrics["seconds_left"][1].value == 0


def test_they_are_seen_while_it_trains(model, keras):
    """In the journal, from which they are delivered, after each epoch."""
    with capture_runs() as runs, model_run("r"):

        class Look(keras.callbacks.Callback):
            seen = ()

            def on_epoch_begin(self, epoch, logs=None):
                self.seen = (*self.seen, len(runs[0].metrics.get("loss", [])))

        look = Look()
        fit(model, MetricsCallback(), look, epochs=3)
    assert look.seen == (0, 1, 2)


def test_steps_go_on_over_several_fits(model):
    """With one callback or one for each; batches, too; and each History is found where it belongs."""
    callback = MetricsCallback(every=2)
    with capture_runs() as runs, model_run("r") as run:
        histories = [fit(model, callback), fit(model, callback), fit(model, MetricsCallback(every=2))]
        histories.append(fit(model, MetricsCallback(), epochs=8, initial_epoch=6))
        run.record(histories)
    (found,) = runs
    losses = [loss for history in histories for loss in history.history["loss"]]
    assert found.metrics["loss"] == list(enumerate(losses))
    assert steps(found, "batch/loss") == [2, 5, 8, 11, 14, 17]


@pytest.mark.parametrize("returned", ["histories", "model and first", "model and both"])
def test_several_fits_are_one_training(model, returned):
    """Without the callback, too, whichever of their histories are returned: their epochs go on."""
    with capture_runs() as runs, model_run("r") as run:
        first, second = fit(model), fit(model, epochs=3)
        several = {
            "histories": [first, second],
            "model and first": (model, first),
            "model and both": (model, [first, second]),
        }
        run.record(several[returned])
    losses = first.history["loss"] + second.history["loss"]
    (points,) = runs[0].metrics.values()
    assert sorted(points) == list(enumerate(losses))


def test_every_batch(model):
    """Keras's running means, the last of which is the epoch's own."""
    with capture_runs() as runs, model_run("r"):
        history = fit(model, MetricsCallback(every=1))
    assert steps(runs[0], "batch/loss") == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(
        [value for _, value in runs[0].metrics["batch/loss"]][2::3], history.history["loss"], rtol=1e-6
    )


def test_every_so_many_seconds(model):
    """Of no time at all: each batch; of an hour: none."""
    with capture_runs() as runs:
        for seconds in (1e-9, 3600):
            with model_run("r"):
                fit(model, MetricsCallback(every_seconds=seconds))
    assert steps(runs[0], "batch/loss") == [1, 2, 3, 4, 5, 6]
    assert "batch/loss" not in runs[1].metrics


def test_several_batches_at_a_time(keras):
    """``steps_per_execution`` tells of every second batch alone."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2)
    with capture_runs() as runs, model_run("r"):
        fit(model, MetricsCallback(every=1), batch_size=3)
    assert steps(runs[0], "batch/loss") == [2, 4, 6, 8]


def test_two_models_with_prefixes(keras):
    """As the two of a GAN, each under a name of its own; found at the end they count once."""
    models = {}
    with capture_runs() as runs, model_run("r") as run:
        for name in ("generator", "critic"):
            models[name] = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
            models[name].compile("sgd", "mse")
            fit(models[name], MetricsCallback(prefix=f"{name}/"))
        run.record(models)
    expected = {f"{name}/{metric}" for name in models for metric in EPOCH}
    assert set(runs[0].metrics) == expected
    assert all(len(points) == 2 for points in runs[0].metrics.values())


def test_learning_rates_of_a_schedule(keras):
    """What Keras says after each epoch: Keras 3 of the next batch, Keras 2 of the last."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, decay_steps=3, decay_rate=0.5)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    with capture_runs() as runs, model_run("r"):
        fit(model, MetricsCallback())
    after = 3 if keras.__version__.startswith("3") else 2
    expected = [0.5 ** (1 + after / 3), 0.5 ** (2 + after / 3)]
    assert [value for _, value in runs[0].metrics["learning_rate"]] == pytest.approx(expected)


def test_the_users_callbacks_are_left_alone(model, keras):
    """Neither the list nor what is in it changes; ours can be copied."""

    class Own(keras.callbacks.Callback):
        pass

    callbacks = [Own(), copy.deepcopy(MetricsCallback(every=1))]
    before = callbacks.copy()
    with capture_runs() as runs, model_run("r"):
        model.fit(X, Y, verbose=0, callbacks=callbacks)
    assert callbacks == before
    assert len(runs[0].metrics["loss"]) == 1


def test_evaluate_and_predict_take_it(model):
    """And log nothing."""
    with capture_runs() as runs, model_run("r"):
        model.evaluate(X, Y, verbose=0, callbacks=[MetricsCallback()])
        model.predict(X, verbose=0, callbacks=[MetricsCallback()])
    assert runs[0].metrics == {}


def test_outside_a_run(model):
    """It is said, and training goes on; likewise in a run that has ended, and silently in a disabled one."""
    with pytest.warns(MlwrapWarning, match="used outside a run"):
        assert len(fit(model, MetricsCallback(every=1)).history["loss"]) == 2
    with model_run("over", delivery="off") as over:
        pass
    with pytest.warns(MlwrapWarning, match="has ended"):
        fit(model, MetricsCallback(over, every=1))
    with model_run("r", disabled=True):
        fit(model, MetricsCallback(every=1, best="val_loss", checkpoint_every=1))


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"every_seconds": -1}, {"checkpoint_every": True}, {"mode": "least"}], ids=str
)
def test_options_that_can_not_be_used(options):
    """Found when the callback is made."""
    with pytest.raises(OptionError, match=f"{next(iter(options))}="):
        MetricsCallback(**options)


def test_what_diverges_is_tagged_or_stops_the_fit(keras):
    """The model, the History and the rest of the body are there; the batch that it began with is known."""
    with capture_runs() as runs:
        for policy in ("tag", "stop"):
            model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
            model.compile(keras.optimizers.SGD(1e30), "mse")
            with model_run("r", nonfinite=policy):
                if policy == "tag":
                    history = fit(model, MetricsCallback(every=1), epochs=4)
                    continue
                with pytest.warns(MlwrapWarning, match="fit.. was asked to stop.*batch/loss"):
                    stopped = fit(model, MetricsCallback(every=1), epochs=4)
    assert len(history.epoch) == 4
    assert len(stopped.epoch) == 1
    for run in runs:
        assert run.status == "FINISHED"
        assert run.tags["mlwrap.first_nonfinite_metric"] == "batch/loss"
        first = int(run.tags["mlwrap.first_nonfinite_step"])
        assert not math.isfinite(dict(run.metrics["batch/loss"])[first])


def test_checkpoints_are_models_with_metrics(store: str, model):
    """Loadable, at their step, and the best of them where it was best."""
    with model_run("r") as run:
        fit(model, MetricsCallback(checkpoint_every=2, best="loss"), epochs=2)
    client = mlflow.MlflowClient()
    models = {logged.name: [] for logged in run.models}
    for logged in run.models:
        models[logged.name].append(client.get_logged_model(logged.uri.removeprefix("models:/")))
    assert {name: len(made) for name, made in models.items()} == {"best": 2, "checkpoint": 1}
    history = {p.step: p for p in client.get_metric_history(run.run_id, "loss")}
    assert len(history) == len(client.get_metric_history(run.run_id, "loss")) == 2
    for made in [*models["best"], *models["checkpoint"]]:
        (loss,) = [metric for metric in made.metrics if metric.key == "loss"]
        assert loss.value == history[loss.step].value
    outputs = {output.model_id: output.step for output in client.get_run(run.run_id).outputs.model_outputs}
    assert [outputs[made.model_id] for made in models["best"]] == [0, 1]
    assert outputs[models["checkpoint"][0].model_id] == 1
    again = load_model(f"models:/{models['checkpoint'][0].model_id}")
    np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)


def test_checkpoints_while_the_training_goes_on(keras, store: str, monkeypatch: pytest.MonkeyPatch):
    """In a thread of its own with Keras 3, in the training's with Keras 2; the returned model comes last."""
    threads = []
    monkeypatch.setattr(snapshot, "MIN_BYTES", 0)
    real = saver_registry.save

    def save(*args):
        threads.append(threading.current_thread().name)
        return real(*args)

    monkeypatch.setattr(saver_registry, "save", save)

    @tracked_training
    def train():
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        fit(model, MetricsCallback(checkpoint_every=3, best="loss", mode="min"), epochs=3)
        return model

    model = train()
    there = "mlwrap-saves" if hasattr(keras, "StatelessScope") else "MainThread"
    assert set(threads[:-1]) == {there}
    assert threads[-1] == "MainThread"
    logged = train.last_run.models
    assert {one.status for one in logged} == {"READY"}
    names = [one.name for one in logged]
    assert names[-1] == "keras_model"
    assert set(names) == {"best", "checkpoint", "keras_model"}
    for one in (logged[-1], next(one for one in logged if one.name == "checkpoint")):
        again = load_model(one.uri)
        np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 3, 2), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_no_batch_is_lost_by_being_overtaken(order):
    """On JAX and PyTorch Keras calls from several threads at once: each batch is told, whenever it comes."""
    with capture_runs() as runs, model_run("r"):
        callback = MetricsCallback(every=1)
        callback.on_train_begin()
        for epoch in range(2):
            callback.on_epoch_begin(epoch)
            for batch in order:
                callback.on_train_batch_end(batch, {"loss": float(batch)})
            callback.on_epoch_end(epoch)
        callback.on_train_end()
    assert sorted(runs[0].metrics["batch/loss"]) == [(step + 1, step % 4) for step in range(8)]


def test_what_is_best(keras):
    """The lowest loss, the highest accuracy, or what was asked for; a name that is not there is said."""
    values = iter([0.5, 0.25, 0.75] * 3)
    with capture_runs() as runs, model_run("r"):
        for options in ({"best": "my_loss"}, {"best": "my_accuracy"}, {"best": "my_loss", "mode": "max"}):
            callback = MetricsCallback(**options)
            callback.set_model(keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)]))
            callback.on_train_begin()
            for epoch in range(3):
                callback.on_epoch_begin(epoch)
                callback.on_epoch_end(epoch, {options["best"]: next(values)})
        with pytest.warns(MlwrapWarning, match="best='val_loss' is no metric of this fit") as said:
            callback = MetricsCallback(best="val_loss")
            callback.set_model(keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)]))
            callback.on_train_begin()
            for epoch in range(2):
                callback.on_epoch_begin(epoch)
                callback.on_epoch_end(epoch, {"loss": 1.0})
            callback.on_train_end()
    assert len(said) == 1
    assert [model.step for model in runs[0].models] == [0, 1, 3, 5, 6, 8]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_dice_loss", "min"),
        ("accuracy_loss", "min"),
        ("layer2_loss", "min"),
        ("mean_squared_error", "min"),
        ("val_mae", "min"),
        ("layer2_mae_1", "min"),
        ("val_accuracy", "max"),
        ("sparse_top_k_categorical_accuracy", "max"),
        ("auc_1", "max"),
        ("mean_io_u", "max"),
        ("val_f1_score", "max"),
    ],
)
def test_best_tells_direction_by_name(name, mode):
    """A loss or an error by its end, whatever letters it holds; else the last whole word that tells."""
    best = BestTracker(name, None)
    assert [best.is_in({name: value}) for value in (2.0, 1.0, 3.0)] == [True, mode == "min", mode == "max"]


@pytest.mark.parametrize("name", ["accidents", "my_metric", "layer2", "racecar", "val_distances2"])
def test_best_needs_mode_where_nothing_tells(name):
    """Said when the callback is made, not after the training; ``mode=`` decides."""
    with pytest.raises(OptionError, match=f"best='{name}'.*mode='min' or mode='max'"):
        MetricsCallback(best=name)
    MetricsCallback(best=name, mode="max")


def test_best_asks_the_metric_object():
    """Its own direction is taken over words of the name it was given, also with an output's name before."""
    keras = pytest.importorskip("keras", minversion="3")
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanAbsoluteError(name="iou_gap"), "mae"])
    model.fit(X, Y, verbose=0)
    for name in ("val_iou_gap", "out_iou_gap"):
        best = BestTracker(name, None)
        assert [best.is_in({name: value}, model=model) for value in (2.0, 1.0)] == [True, True]


def test_best_waits_for_a_validation_that_is_not_of_every_epoch(model):
    """``validation_freq=``: nothing is said of the epochs that have none."""
    with capture_runs() as runs, model_run("r"), warnings.catch_warnings():
        warnings.simplefilter("error", MlwrapWarning)
        fit(model, MetricsCallback(best="val_loss"), epochs=4, validation_data=(X, Y), validation_freq=2)
    assert {made.step for made in runs[0].models} <= {1, 3}
    assert runs[0].models


def gan(keras, **optimizers):
    """A model that trains with optimizers of its own, and not with that of ``compile()``."""
    tf = pytest.importorskip("tensorflow")

    class Gan(keras.Model):
        def __init__(self):
            super().__init__()
            self.critic = keras.layers.Dense(1)

        def train_step(self, data):
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean(self.critic(data[0]) ** 2)
            weights = self.critic.trainable_weights
            for name in optimizers:
                getattr(self, name).apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"d_loss": loss}

    made = Gan()
    made.compile()
    for name, rate in optimizers.items():
        setattr(made, name, keras.optimizers.Adam(rate))
    return made


def test_learning_rates_of_optimizers_that_are_used(keras):
    """One alone is ``learning_rate``; of several, each has its name. ``compile()``'s own, unused, is none."""
    pytest.importorskip("tensorflow")
    with capture_runs() as runs:
        for optimizers in ({"d_optimizer": 0.125}, {"d_optimizer": 0.125, "g_optimizer": 0.25}):
            with model_run("r"):
                fit(gan(keras, **optimizers), MetricsCallback(), epochs=1)
    one, two = ({k: v[0].value for k, v in run.metrics.items() if "learning" in k} for run in runs)
    assert one == {"learning_rate": 0.125}
    assert two == {"d_optimizer/learning_rate": 0.125, "g_optimizer/learning_rate": 0.25}


class Annotated(MetricsCallback):
    """One of the user's own."""

    def __init__(self, run):
        super().__init__(run, best="loss")
        self.notes = ["before"]


def test_copies_share_the_run_and_start_afresh(keras):
    """As tuners make them, of a callback that was in a fit: the epochs go on, the best value does not."""

    def trial(callback):
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
        model.compile("sgd", "mse")
        fit(model, callback, epochs=1)

    with capture_runs() as runs, model_run("r") as run:
        callback = Annotated(run)
        trial(copy.deepcopy(callback))
        trial(callback)
        copied = copy.deepcopy(callback)
        assert (copied.model, copied.params, copied._run) == (None, {}, None)
        copied.notes.append("after")
        trial(copied)
    assert callback.notes == ["before"]
    assert steps(runs[0], "loss") == [0, 1, 2]
    assert [made.step for made in runs[0].models] == [0, 1, 2]


def test_trials_of_keras_tuner_are_series_of_their_own(tmp_path):
    """Two trials of two epochs, each fitted twice: the tuner copies the callback for every fit."""
    keras_tuner = pytest.importorskip("keras_tuner")
    import keras  # noqa: PLC0415 - the tuner's, which may be another one than this test's

    def build(hyperparameters):
        units = hyperparameters.Choice("units", [1, 2])
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    class Tuner(keras_tuner.GridSearch):
        """Its own way to a trial needs TensorBoard."""

        def run_trial(self, trial, *data, callbacks, **options):
            model = self.hypermodel.build(trial.hyperparameters)
            return [model.fit(*data, callbacks=copy.deepcopy(callbacks), **options) for _ in range(2)]

    tuner = Tuner(build, keras_tuner.Objective("loss", "min"), max_trials=2, directory=str(tmp_path))
    with capture_runs() as runs, model_run("r"):
        tuner.search(X, Y, epochs=2, verbose=0, callbacks=[MetricsCallback(prefix="search/", best="loss")])
    series = [name for name in runs[0].metrics if name.endswith("/loss")]
    assert sorted(series) == [f"search/trial_{number}/loss" for number in (0, 1)]
    assert all(steps(runs[0], name) == [0, 1, 2, 3] for name in series)


def test_a_checkpoint_that_can_not_be_saved(model, monkeypatch: pytest.MonkeyPatch):
    """Costs a warning and not the training; a strict run asked for more."""

    def fails(*_, **__):
        raise OSError("no room")

    monkeypatch.setattr("mlwrap._savers.saver_registry.save", fails)
    with capture_runs() as runs, model_run("r"), pytest.warns(MlwrapWarning, match="no room"):
        assert len(fit(model, MetricsCallback(checkpoint_every=1)).epoch) == 2
    assert [made.error for made in runs[0].models] == ["OSError: no room"] * 2
    with capture_runs(), pytest.raises(SaveError, match="no room"), model_run("r", strict=True):
        fit(model, MetricsCallback(checkpoint_every=1))


def test_what_breaks_in_it_ends_no_training(model, monkeypatch: pytest.MonkeyPatch):
    """It is said once."""
    with capture_runs(), model_run("r") as run:
        monkeypatch.setattr(recorder_of(run).metrics, "write", lambda record: 1 / 0)
        with pytest.warns(MlwrapWarning, match="on_epoch_end.. of MetricsCallback failed") as said:
            assert len(fit(model, MetricsCallback()).epoch) == 2
    assert len(said) == 1


@pytest.mark.parametrize(
    ("grace", "took", "saved"), [(30.0, 0.0, True), (30.0, 9.9, True), (30.0, 10.1, False), (0, 0.0, False)]
)
def test_a_warning_before_the_end(model, keras, grace, took, saved):
    """Row 63. The model is saved once, if that takes less than a third of the time that is left."""

    class Warned(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                os.kill(os.getpid(), signal.SIGUSR1)

    with capture_runs() as runs, model_run("r", preemption_signal="SIGUSR1"):
        callback = MetricsCallback(every=1, grace=grace)
        callback._save_seconds = took
        assert len(fit(model, Warned(), callback).epoch) == 2
    found = runs[0]
    assert [(made.name, made.error) for made in found.models] == [("preempted", None)] * saved
    assert found.tags["mlwrap.preempted"] == "SIGUSR1"
    assert (found.status, len(found.metrics["batch/loss"])) == ("FINISHED", 6)


def test_a_warning_before_the_end_of_several(model, monkeypatch: pytest.MonkeyPatch):
    """Each learns of it at a moment of its own, and they would have to save together: so none does."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with capture_runs() as runs, model_run("r", preemption_signal="SIGUSR1"):
        os.kill(os.getpid(), signal.SIGUSR1)
        fit(model, MetricsCallback(checkpoint_every=2))
    assert [made.name for made in runs[0].models] == ["checkpoint"]


def test_what_fit_is_called_with_becomes_parameters(keras):
    """As MLflow's autologging names it; the numbers as they were written."""

    @tracked_training
    def train():
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(3e-4, beta_1=0.8), "mse")
        fit(model, MetricsCallback(), batch_size=6)

    with capture_runs() as runs:
        train()
    (run,) = runs
    assert (
        run.params.items()
        >= {
            "epochs": "2",
            "batch_size": "6",
            "steps_per_epoch": "2",
            "optimizer_name": run.params["optimizer_name"],
            "optimizer_learning_rate": "0.0003",
            "optimizer_beta_1": "0.8",
        }.items()
    )
    assert run.params["optimizer_name"].lower().startswith("adam")  # Keras counts them


def test_parameters_that_are_there_already_stay(model):
    """The arguments of the function, what the body logs, and those of an earlier fit."""

    @tracked_training
    def train(epochs="three", batch_size=None):
        fit(model, MetricsCallback(), epochs=1)
        fit(model, MetricsCallback(), epochs=2, batch_size=2)

    with capture_runs() as runs:
        train()
    (run,) = runs
    assert (run.params["epochs"], run.params["batch_size"], run.params["steps_per_epoch"]) == (
        "three",
        "None",
        "3",
    )


def test_batches_of_keras_own_size_and_of_the_data(model):
    """32 for arrays; a dataset brings its own, which a generator does not tell."""
    found = []
    for data in (X, batches(), iter_batches()):
        with capture_runs() as runs, model_run("r"):
            y = Y if data is X else None
            model.fit(
                data,
                y,
                epochs=1,
                steps_per_epoch=None if data is X else 2,
                verbose=0,
                callbacks=[MetricsCallback()],
            )
        found.append({name: runs[0].params.get(name) for name in ("batch_size", "steps_per_epoch")})
    assert found == [
        {"batch_size": "32", "steps_per_epoch": "1"},
        {"batch_size": "4", "steps_per_epoch": "2"},
        {"batch_size": None, "steps_per_epoch": "2"},
    ]


def test_parameters_of_two_models(keras):
    """By the prefix."""
    with capture_runs() as runs, model_run("gan"):
        for prefix, rate in (("generator/", 0.5), ("critic/", 0.25)):
            model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
            model.compile(keras.optimizers.SGD(rate), "mse")
            fit(model, MetricsCallback(prefix=prefix))
    params = runs[0].params
    assert params["generator/optimizer_learning_rate"] == "0.5"
    assert params["critic/optimizer_learning_rate"] == "0.25"


def batches():
    """Batches of four that say so."""
    import tensorflow as tf  # noqa: PLC0415 - seconds that only this test takes

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def iter_batches():
    """Batches of four that do not."""
    while True:
        yield X[:4], Y[:4]


def small(keras):
    """A model that is not fitted."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(("freq", "epochs"), [(2, [1, 3]), (3, [2]), (5, [4]), ([1, 5], [0, 4])], ids=str)
@pytest.mark.parametrize("callbacks", [(), ({},), ({"best": "val_loss"},)], ids=["none", "callback", "best"])
def test_validation_freq_points_are_at_their_epochs(model, freq, epochs, callbacks):
    """Once each, with the callback and without, from the first fit on and after it."""
    with capture_runs() as runs, model_run("r") as run:
        for fits in (1, 2):
            made = [MetricsCallback(**options) for options in callbacks]
            history = fit(model, *made, epochs=5, validation_data=(X, Y), validation_freq=freq)
            run.record((model, history) if fits == 1 else model)
    assert steps(runs[0], "val_loss") == epochs + [5 + epoch for epoch in epochs]
    assert steps(runs[0], "loss") == list(range(10))


def test_metrics_after_evaluate(model):
    """Keras 2 and tf_keras forget the History of the fit then."""
    with capture_runs() as runs, model_run("r") as run:
        fit(model, epochs=3)
        model.evaluate(X, Y, verbose=0)
        run.record(model)
    with capture_runs() as logged, model_run("r") as run:
        fit(model, epochs=3)
        model.evaluate(X, Y, verbose=0)
        run.log_model(model)
    assert steps(runs[0], "loss") == steps(logged[0], "loss") == [0, 1, 2]


def test_live_history_is_not_read_again(model, keras):
    """Not even where another callback changes the values later; what a later one adds is read."""

    class Later(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"], logs["mine"] = -1.0, float(epoch)

    with capture_runs() as runs, model_run("r") as run:
        history = fit(model, MetricsCallback(), Later())
        run.record((model, history))
    assert [value >= 0 for _, value in runs[0].metrics["loss"]] == [True, True]
    assert steps(runs[0], "mine") in ([], [0, 1])  # Keras 2 gives each callback logs of its own
    with capture_runs() as runs, model_run("another") as run:
        run.record(history)
    assert steps(runs[0], "loss") == [0, 1]


def test_metrics_of_a_model_that_is_reloaded(model, keras, tmp_path):
    """The fit was of another object, and the returned one was never fitted."""
    with capture_runs() as runs, model_run("r") as run:
        fit(model, epochs=3)
        model.save(tmp_path / "best.keras")
        run.record(keras.models.load_model(tmp_path / "best.keras"))
    assert list(runs[0].metrics) == ["loss"]
    assert steps(runs[0], "loss") == [0, 1, 2]


def test_history_alone_brings_its_model(model):
    """With its metrics by their own names; of several models none is."""
    with capture_runs() as runs, model_run("r") as run:
        run.record(fit(model))
    assert [made.name for made in runs[0].models] == ["keras_model"]
    assert (list(runs[0].metrics), steps(runs[0], "loss")) == (["loss"], [0, 1])


@pytest.mark.parametrize("returned", ["reloaded", "histories"])
def test_trials_of_a_tuner_are_series_of_their_own(keras, tmp_path, returned):
    """Each trial has a model of its own, which the tuner lets go of."""
    with capture_runs() as runs, model_run("r") as run:
        histories = []
        for _ in range(3):
            trial = small(keras)
            history = fit(trial)
            histories += [history] * (returned == "histories")
        trial.save(tmp_path / "best.keras")
        del trial, history
        run.record(histories or keras.models.load_model(tmp_path / "best.keras"))
    names = ["history", "history_2", "history_3"]
    assert {name: [step for step, _ in points] for name, points in runs[0].metrics.items()} == {
        f"{name}/loss": [0, 1] for name in names
    }
