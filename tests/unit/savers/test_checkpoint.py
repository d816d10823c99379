"""Checkpoints: what the object holds now, or what the manager kept, restored into objects alike."""

import shutil
from pathlib import Path

import pytest

from mlwrap._savers import saver_registry
from mlwrap.errors import LoadError, MlwrapWarning, SaveError

tf = pytest.importorskip("tensorflow")


def checkpoint(value=1.0, **more):
    """Two variables, and what else is given."""
    return tf.train.Checkpoint(weights=tf.Variable([value, value]), step=tf.Variable(7), **more)


def weights(holder):
    """The values that are looked at."""
    return holder.weights.numpy().tolist()


@pytest.mark.parametrize("saved_before", [False, True])
@pytest.mark.parametrize("restored_before", [False, True])
def test_it_restores_into_a_checkpoint(keep, tmp_path, saved_before, restored_before):
    """Whether or not either end ever counted its saves, everything matches."""
    source, target = checkpoint(3.0), checkpoint(0.0)
    for used, holder in ((saved_before, source), (restored_before, target)):
        if used:
            holder.save(str(tmp_path / "users" / "ckpt"))
    assert keep(source).load(into=target) is target
    assert weights(target) == [3.0, 3.0]


def test_the_users_own_numbering_goes_on(keep, tmp_path):
    """Saving for the run does not count as one of the user's saves."""
    source = checkpoint()
    keep(source)
    assert source.save(str(tmp_path / "users" / "ckpt")).endswith("ckpt-1")


def test_it_restores_into_named_objects(keep):
    """A mapping is what would be given to ``tf.train.Checkpoint``."""
    into = {"weights": tf.Variable([0.0, 0.0]), "step": tf.Variable(0)}
    assert keep(checkpoint(3.0)).load(into=into) is into
    assert into["weights"].numpy().tolist() == [3.0, 3.0]


def test_the_folder_can_move(keep, tmp_path):
    """The state file is relative: TensorFlow finds the latest checkpoint wherever the folder lies."""
    kept = keep(checkpoint(3.0))
    moved = shutil.move(kept.folder / "checkpoint", tmp_path / "elsewhere")
    latest = tf.train.latest_checkpoint(moved)
    assert latest == str(tmp_path / "elsewhere" / "ckpt")
    assert tf.train.load_variable(latest, "weights/.ATTRIBUTES/VARIABLE_VALUE").tolist() == [3.0, 3.0]


@pytest.fixture
def manager(tmp_path):
    """A manager that keeps two of three, and whose variables went on since."""
    source = checkpoint()
    manager = tf.train.CheckpointManager(source, str(tmp_path / "managed"), max_to_keep=2)
    for value in (1.0, 2.0, 3.0):
        source.weights.assign([value, value])
        manager.save()
    source.weights.assign([9.0, 9.0])
    return manager


def test_of_a_manager_the_latest_is_restored(keep, tmp_path, manager):
    """What the manager saved last counts, not what the variables became since."""
    kept = keep(manager)
    assert kept.saved.details == {"checkpoint": "checkpoint/ckpt-3", "kept": ["ckpt-2", "ckpt-3"]}
    assert kept.saved.flavors == {}
    assert kept.saved.pyfunc is None
    target = checkpoint(0.0)
    other = tf.train.CheckpointManager(target, str(tmp_path / "other"), max_to_keep=2)
    assert kept.load(into=other) is other
    assert weights(target) == [3.0, 3.0]


def test_a_manager_goes_on_in_a_folder_with_all_that_were_kept(keep, tmp_path, manager):
    """Its files are put there, under its numbers, and it removes the oldest as it always did."""
    folder = keep(manager).load(into=tmp_path / "resumed")
    assert folder == tmp_path / "resumed"
    target = checkpoint(0.0)
    resumed = tf.train.CheckpointManager(target, str(folder), max_to_keep=2)
    assert [Path(path).name for path in resumed.checkpoints] == ["ckpt-2", "ckpt-3"]
    target.restore(resumed.checkpoints[0])
    assert weights(target) == [2.0, 2.0]
    resumed.restore_or_initialize()
    assert weights(target) == [3.0, 3.0]
    assert resumed.save() == str(folder / "ckpt-4")
    assert [Path(path).name for path in resumed.checkpoints] == ["ckpt-3", "ckpt-4"]
    assert sorted(path.name for path in folder.glob("*.index")) == ["ckpt-3.index", "ckpt-4.index"]


def test_checkpoints_of_a_training_are_not_written_over(keep, tmp_path, manager):
    """A folder that a training has used is refused."""
    with pytest.raises(LoadError, match=r"holds checkpoints of a training already.*new folder"):
        keep(manager).load(into=tmp_path / "managed")


def test_an_older_checkpoint_that_is_not_whole_costs_a_warning(keep, tmp_path, manager):
    """The latest one is what counts."""
    (tmp_path / "managed" / "ckpt-2.index").unlink()
    with pytest.warns(MlwrapWarning, match=r"ckpt-2\.index is missing"):
        kept = keep(manager)
    assert kept.saved.details["kept"] == ["ckpt-3"]


def test_of_a_manager_that_saved_nothing_what_its_checkpoint_holds(keep, tmp_path):
    """A manager is a way to save; without a save there is still something to keep."""
    manager = tf.train.CheckpointManager(checkpoint(3.0), str(tmp_path / "managed"), max_to_keep=2)
    target = checkpoint(0.0)
    keep(manager).load(into=target)
    assert weights(target) == [3.0, 3.0]
    assert manager.latest_checkpoint is None


def test_half_a_checkpoint_is_refused(keep, tmp_path):
    """A file that is missing from the manager's latest is named, and the manager comes with the error."""
    manager = tf.train.CheckpointManager(checkpoint(), str(tmp_path / "managed"), max_to_keep=2)
    latest = manager.save()
    for shard in tmp_path.glob("managed/*.data-*"):
        shard.unlink()
    with pytest.raises(SaveError, match=r"ckpt-1\.data-00000-of-00001 is missing") as caught:
        keep(manager)
    assert latest in str(caught.value)
    assert caught.value.value is manager


@pytest.mark.parametrize(
    ("into", "says"),
    [
        (lambda: None, "expected into="),
        (lambda: 7, r"got a builtins\.int"),
        (lambda: checkpoint(extra=tf.Variable(1.0)), "does not fit"),
        (
            lambda: tf.train.Checkpoint(weights=tf.Variable([1.0, 2.0, 3.0]), step=tf.Variable(1)),
            "does not fit",
        ),
        (lambda: {"weights": 1}, "does not fit"),
    ],
    ids=["nothing", "something else", "an object too many", "another shape", "no trackable"],
)
def test_what_does_not_fit_says_what_to_do(keep, into, says):
    """Restoring in part would be worse than an error."""
    with pytest.raises(LoadError, match=says):
        keep(checkpoint()).load(into=into())


def test_a_checkpoint_that_is_not_there_is_a_load_error(keep):
    """What was expected where is said."""
    kept = keep(checkpoint())
    for file in kept.folder.glob("checkpoint/ckpt.*"):
        file.unlink()
    with pytest.raises(LoadError, match=r"checkpoint/ckpt in .* ckpt\.index is not there"):
        kept.load(into=checkpoint())


def test_a_shard_that_is_missing_is_a_load_error(keep, tmp_path):
    """Named, whether objects or a folder are to be restored."""
    kept = keep(checkpoint())
    kept.folder.joinpath("checkpoint/ckpt.data-00000-of-00001").unlink()
    for into in (checkpoint(), tmp_path / "new"):
        with pytest.raises(LoadError, match=r"ckpt\.data-00000-of-00001 is not there"):
            kept.load(into=into)


@pytest.mark.parametrize("name", ["../ckpt", "/tmp/ckpt", "checkpoint/../../ckpt"])
def test_a_description_that_leads_elsewhere_is_refused(keep, name: str):
    """It is not of the model's own files."""
    kept = keep(checkpoint())
    with pytest.raises(LoadError, match="not among its own files"):
        saver_registry.by_name("checkpoint").load(kept.folder, {"checkpoint": name}, into=checkpoint())


def test_a_shard_that_is_cut_short_is_a_load_error(keep):
    """What only reading finds is TensorFlow's to say."""
    kept = keep(checkpoint())
    kept.folder.joinpath("checkpoint/ckpt.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(LoadError, match="can't be read"):
        kept.load(into=checkpoint())


def test_variables_that_are_yet_to_come_are_restored_when_they_come(keep):
    """A model that is not built is given its values as it is built."""
    source, target = tf.train.Checkpoint(), tf.train.Checkpoint()
    source.inner, target.inner = tf.Module(), tf.Module()
    source.inner.weights = tf.Variable([3.0, 3.0])
    keep(source).load(into=target)
    target.inner.weights = tf.Variable([0.0, 0.0])
    assert weights(target.inner) == [3.0, 3.0]


def keras_net(keras, kind, *, built):
    """A net whose layers are built as it is called, alone or within another object."""
    layer = keras.layers.Dense(2)
    if kind == "layer":
        net = layer
    elif kind == "sequential":
        net = keras.Sequential([layer])
    else:

        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.inner = layer

            def call(self, inputs):
                return self.inner(inputs)

        net = Net()
    if built:
        net(tf.ones((1, 3)))
    return net


def kernel(net):
    """The values of a net's first weight."""
    return net.weights[0].numpy().tolist()


@pytest.mark.parametrize("kind", ["layer", "sequential", "subclassed"])
@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_load_into_unbuilt_layers(keep, package, kind):
    """Keras 3 takes no part in TensorFlow's restoring on creation: an error; the others are restored."""
    keras = pytest.importorskip(package)
    source, target = keras_net(keras, kind, built=True), keras_net(keras, kind, built=False)
    kept = keep(tf.train.Checkpoint(net=source, count=tf.Variable(7)))
    count = tf.Variable(1)
    if keras.__version__.startswith("3"):
        with pytest.raises(LoadError, match=r"not built.*net.*build\(shape\)"):
            kept.load(into=tf.train.Checkpoint(net=target, count=count))
        assert count.numpy() == 1  # nothing is restored in part
        target(tf.ones((1, 3)))
    kept.load(into=tf.train.Checkpoint(net=target, count=count))
    target(tf.ones((1, 3)))
    assert kernel(target) == kernel(source)
    assert count.numpy() == 7


def test_load_into_unbuilt_model_of_built_parts(keep):
    """A GAN or a VAE is never called itself: what has variables is restored; its optimizer's come later."""
    keras = pytest.importorskip("keras")

    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.critic = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])

    source, target = Pair(), Pair()
    source.compile(keras.optimizers.Adam(), "mse")
    source.optimizer.build(source.critic.trainable_variables)
    keep(tf.train.Checkpoint(net=source)).load(into=tf.train.Checkpoint(net=target))
    assert kernel(target.critic) == kernel(source.critic)


def test_it_is_not_taken_for_a_saved_model():
    """A checkpoint is an AutoTrackable as well; the checkpoint saver is asked first."""
    assert saver_registry.find(checkpoint()).name == "checkpoint"
    assert list(saver_registry.find(checkpoint()).metrics(checkpoint())) == []
