"""A model that is saved while it is trained on: what is written is what it was. Keras 3, TensorFlow."""

from __future__ import annotations

import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from mlwrap import model_run
from mlwrap._journal.records import Zip
from mlwrap._run.run import recorder_of
from mlwrap._savers.keras.model import KerasSaver
from mlwrap._savers.keras.snapshot import Snapshot, take_snapshot
from mlwrap.errors import MlwrapWarning, SaveError
from mlwrap.keras import MetricsCallback
from mlwrap.savers import SaveOptions
from tests.snapshots import hashes, saved
from tests.spools import folder_of

if not hasattr(keras, "StatelessScope"):
    pytest.skip("Keras 2 has no scope in which variables have other values", allow_module_level=True)

layers, optimizers = keras.layers, keras.optimizers
X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
WORDS = np.random.default_rng(0).integers(0, 20, size=(32, 8))
Y = X[:, :1]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    """Small models are worth it, too."""
    monkeypatch.setattr("mlwrap._savers.keras.snapshot.MIN_BYTES", 0)


def dense(**options):
    """With statistics of its own, and numbers by chance."""
    model = keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(16, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(1),
        ]
    )
    model.compile(loss="mse", metrics=["mae"], **options)
    return model


def words(**options):
    """Most of what it knows is not changed by a batch: updates are sparse."""
    model = keras.Sequential(
        [layers.Input((8,)), layers.Embedding(1000, 4), layers.Flatten(), layers.Dense(1)]
    )
    model.compile(loss="mse", **options)
    return model


def fit(model, epochs=1, *callbacks):
    """Four batches an epoch."""
    x = WORDS if any(isinstance(layer, layers.Embedding) for layer in model.layers) else X
    return model.fit(x, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks))


def written_by_a_thread(taken: Snapshot, folder: Path) -> dict[str, str]:
    """Save in another thread, as it is done in the background."""
    found = []
    thread = threading.Thread(target=lambda: found.append(saved(taken, folder)))
    thread.start()
    thread.join()
    return found[0]


KINDS = {
    "adam": lambda: dense(optimizer=optimizers.Adam(0.01)),
    "momentum": lambda: dense(optimizer=optimizers.SGD(0.01, momentum=0.9)),
    "average": lambda: dense(optimizer=optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3)),
    "accumulation": lambda: dense(optimizer=optimizers.Adam(0.01, gradient_accumulation_steps=2)),
    "schedule": lambda: dense(optimizer=optimizers.Adam(optimizers.schedules.CosineDecay(0.1, 9))),
    "loss scale": lambda: dense(optimizer=optimizers.LossScaleOptimizer(optimizers.Adam(0.01))),
    "eager": lambda: dense(optimizer="adam", run_eagerly=True),
    "several steps": lambda: dense(optimizer="adam", steps_per_execution=4),
    "xla": lambda: dense(optimizer="adam", jit_compile=True),
    "no xla": lambda: dense(optimizer="adam", jit_compile=False),
    "sparse": lambda: words(optimizer="sgd", jit_compile=False),
    "sparse momentum": lambda: words(optimizer=optimizers.SGD(0.1, momentum=0.9), jit_compile=False),
    "sparse adagrad": lambda: words(optimizer=optimizers.Adagrad(0.1), jit_compile=False),
    "sparse adam": lambda: words(optimizer="adam", jit_compile=False),
    "sparse xla": lambda: words(optimizer="adam", jit_compile=True),
    "mixed_float16": lambda: dense(optimizer="adam"),
    "mixed_bfloat16": lambda: dense(optimizer="adam"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_was(kind: str, tmp_path: Path):
    """Row 56. However the training, and what is assigned, changes it in the meantime."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(kind if kind.startswith("mixed") else before)
    try:
        model = KINDS[kind]()
    finally:
        keras.config.set_dtype_policy(before)
    fit(model)
    expected = saved(model, tmp_path / "now")
    taken = take_snapshot(model)
    fit(model, 2)
    for variable in model.trainable_variables:
        variable.assign_add(keras.ops.ones_like(variable))
        variable.assign(2 * variable)
    assert written_by_a_thread(taken, tmp_path / "background") == expected
    changed = saved(model, tmp_path / "later")
    assert {name for name in expected if changed[name] != expected[name]} > {"vars/0"} & set(expected)
    assert changed != expected


def test_a_fit_goes_on_while_checkpoints_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Row 56. Each is the model of its epoch, although the next epoch has begun when it is written."""
    went_on, real = threading.Event(), Snapshot.write_folder

    def late(self: Snapshot, folder: Path) -> Zip:
        assert went_on.wait(60)
        return real(self, folder)

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            expected.append(saved(self.model, tmp_path / f"epoch{epoch}"))

        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations == 6:
                went_on.set()

    expected: list[dict[str, str]] = []
    monkeypatch.setattr(Snapshot, "write_folder", late)
    with model_run("r", delivery="off") as run:
        fit(dense(optimizer="adam"), 2, Keep(), MetricsCallback(checkpoint_every=1))
    logged = recorder_of(run).models.logged
    assert [model.status for model in logged.values()] == ["STAGED", "STAGED"]
    folder = folder_of(run).path
    assert [hashes(folder / staged / "data/model.unzipped") for staged in logged] == expected
    assert expected[0] != expected[1]


def test_what_a_callback_changes_in_the_configuration(tmp_path: Path):
    """Between the snapshot and the save: layers that are frozen, a rate that is lowered."""
    model = dense(optimizer="adam")
    fit(model)
    expected, taken = saved(model, tmp_path / "now"), take_snapshot(model)
    model.layers[0].trainable = False
    model.optimizer.learning_rate = 1.0
    assert written_by_a_thread(taken, tmp_path / "background") == expected


def test_a_snapshot_costs_nothing_until_the_training_goes_on():
    """TensorFlow's variables share their memory with it."""
    model = dense(optimizer="adam")
    fit(model)
    taken = take_snapshot(model)
    for variable in model.variables:
        (there, kept) = (
            np.asarray(memoryview(value)).__array_interface__["data"]
            for value in (variable.value.read_value(), taken._values[id(variable)])
        )
        assert there == kept


class Remembers(layers.Layer):
    """Writes what is in no variable."""

    def save_own_variables(self, store):
        store["calls"] = np.ones(3)


class SavesItself(keras.Sequential):
    """Its own way of saving is not known to read variables alone."""

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)


def remembers():
    """A layer with more than variables."""
    return keras.Sequential([layers.Input((8,)), Remembers(), layers.Dense(1)])


def saves_itself():
    """A model likewise."""
    return SavesItself([layers.Input((8,)), layers.Dense(1)])


@pytest.mark.parametrize("make", [remembers, saves_itself])
def test_what_writes_more_than_variables_is_saved_at_once(make):
    """Nothing says that it would be what it was."""
    assert take_snapshot(make()) is None


def test_where_there_is_little_memory_it_is_saved_at_once(monkeypatch: pytest.MonkeyPatch):
    """As by a limit of the shell's."""
    model = dense(optimizer="adam")
    assert take_snapshot(model) is not None
    monkeypatch.setattr("mlwrap._savers.keras.snapshot.free_memory", lambda: 100)
    assert take_snapshot(model) is None


def test_a_variable_that_was_not_found_is_an_error(tmp_path: Path):
    """And no checkpoint with a value of another step in it; the model is saved at once from then on."""
    model = dense(optimizer="adam")
    fit(model)
    taken = take_snapshot(model)
    taken._values = dict(list(taken._values.items())[1:])
    with pytest.raises(SaveError, match="of which no value was kept"):
        taken.write_folder(tmp_path / "model")
    assert take_snapshot(model) is None


def logged_files(model, folder: Path) -> dict[str, str]:
    """Save a model as ``log_model`` does where the training waits."""
    folder.mkdir()
    KerasSaver().save(model, folder, SaveOptions())
    return hashes(folder / "data" / "model.unzipped")


def test_a_model_that_is_waited_for_is_copied_once_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is written as Keras writes it, without the copy that TensorFlow makes of a variable that is read."""
    model = dense(optimizer="adam")
    fit(model)
    expected = saved(model, tmp_path / "by_keras")
    copied, kind = [], type(model.layers[0].kernel.value)
    copy = kind.numpy
    monkeypatch.setattr(kind, "numpy", lambda variable: copied.append(len(variable.shape)) or copy(variable))
    assert logged_files(model, tmp_path / "logged") == expected
    assert not any(copied)  # but for numbers, such as the learning rate


def test_a_model_whose_snapshot_fails_is_saved_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is left of the attempt, and nobody hears of it."""

    def fails(self, folder):
        (folder / "half").mkdir(parents=True)
        raise ValueError("no snapshot")

    model = dense(optimizer="adam")
    fit(model)
    expected = saved(model, tmp_path / "by_keras")
    monkeypatch.setattr(Snapshot, "write_folder", fails)
    assert logged_files(model, tmp_path / "logged") == expected
    assert not (tmp_path / "logged/data/model.unzipped/half").exists()


def test_a_strategys_model_is_saved_at_once():
    """Its variables are several arrays."""
    import tensorflow as tf  # noqa: PLC0415 - Keras may be on another backend

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        assert take_snapshot(dense(optimizer="adam")) is None


def test_a_saver_whose_snapshot_fails(monkeypatch: pytest.MonkeyPatch):
    """Saves as ever, and says so."""

    def fails(self, value):
        raise ValueError("no snapshot")

    monkeypatch.setattr(KerasSaver, "snapshot", fails)
    with model_run("r", delivery="off") as run:
        with pytest.warns(MlwrapWarning, match="no snapshot"):
            run.log_model(dense(optimizer="adam"), background=True)
        assert run.models[0].status == "STAGED"
