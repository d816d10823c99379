"""Paths to what TensorFlow wrote, given back by stock MLflow and by mlwrap."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import pyfunc
from mlflow import tensorflow as mlflow_tensorflow

from mlwrap._returned.unpack import unpack
from mlwrap._savers import saver_registry
from mlwrap._savers.tensorflow import model_paths
from mlwrap.errors import LoadError, MlwrapWarning, SaveError, SpoolError

tf = pytest.importorskip("tensorflow")

X = np.arange(6, dtype="float32").reshape(2, 3)


class Doubler(tf.Module):
    """Can be called with one tensor."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def __call__(self, x):
        return {"doubled": x * self.factor}


@pytest.fixture
def saved_model(tmp_path) -> Path:
    """A folder that holds a SavedModel."""
    folder = tmp_path / "export" / "1700000000"
    tf.saved_model.save(Doubler(), str(folder))
    return folder


@pytest.fixture
def checkpoints(tmp_path) -> Path:
    """A folder with two checkpoints of one variable: 1.0, then 2.0."""
    folder = tmp_path / "ckpts"
    value = tf.Variable(1.0)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=value), str(folder), max_to_keep=3)
    manager.save()
    value.assign(2.0)
    manager.save()
    return folder


class TestSavedModel:
    """A folder that tf.saved_model.save wrote."""

    def test_it_comes_back(self, keep, saved_model):
        """By MLflow's pyfunc and tensorflow flavors and by mlwrap, after the folder itself is gone."""
        kept = keep(saved_model)
        shutil.rmtree(saved_model)
        assert (kept.saver.name, kept.saver.default_name) == ("saved_model_folder", "saved_model")
        for doubled in (
            kept.pyfunc().predict(X)["doubled"],
            pyfunc.load_model(str(kept.folder)).predict(X)["doubled"],
            mlflow_tensorflow.load_model(str(kept.folder))(X)["doubled"],
            kept.load()(X)["doubled"],
        ):
            np.testing.assert_array_equal(doubled, X * 2)
        (given,) = kept.saved.signature.inputs
        assert (given.dtype, given.shape) == ("float32", (-1, 3))

    @pytest.mark.parametrize("form", [str, os.fsencode, Path])
    def test_any_form_of_its_path(self, saved_model, form):
        """An Estimator's export_saved_model returns bytes."""
        assert saver_registry.find(form(saved_model)).name == "saved_model_folder"
        found = unpack({"served": form(saved_model)}).models
        assert [(model.name, model.value) for model in found] == [("served", saved_model)]

    def test_signatures_alone(self, keep, tmp_path):
        """Fed by name, as an Estimator's export is."""
        module = Doubler()
        tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.__call__)
        (tmp_path / "m" / "assets.extra").mkdir()
        assert keep(tmp_path / "m").saved.signature is not None

    def test_a_damaged_one_is_an_error(self, keep, saved_model):
        """No graph, a graph that can't be read, a missing shard: each with its sentence."""
        (saved_model / "variables" / "variables.data-00000-of-00001").rename(saved_model / "shard")
        with pytest.raises(SaveError, match=r"variables\.data-00000-of-00001 is missing"):
            keep(saved_model)
        (saved_model / "shard").rename(saved_model / "variables" / "variables.data-00000-of-00001")
        (saved_model / "saved_model.pb").write_bytes(b"not a protobuf")
        with pytest.raises(SaveError, match=r"no SavedModel that .*saved_model\.pb is damaged \("):
            keep(saved_model)
        (saved_model / "saved_model.pb").unlink()
        with pytest.raises(SaveError, match=r"looks like a SavedModel, and its saved_model\.pb is missing"):
            keep(saved_model)

    def test_links_in_it_are_refused(self, keep, saved_model):
        """It would carry away what lies elsewhere."""
        (saved_model / "assets" / "link").symlink_to("/etc/hostname")
        with pytest.raises(SpoolError, match="assets/link is a link"):
            keep(saved_model)

    def test_nothing_to_call_is_a_warning(self, keep, tmp_path):
        """It loads, and can't predict."""
        tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
        with pytest.warns(MlwrapWarning, match="nothing in it can be called"):
            kept = keep(tmp_path / "m")
        assert kept.saved.pyfunc is None
        assert kept.load() is not None

    def test_without_tensorflow_it_is_logged_unread(self, keep, saved_model, monkeypatch):
        """Where a process only passes on what another one wrote."""
        monkeypatch.delitem(model_paths.sys.modules, "tensorflow")
        monkeypatch.setattr(model_paths, "find_spec", lambda name: None)
        kept = keep(saved_model)
        monkeypatch.undo()
        assert (kept.saved.pyfunc, kept.saved.signature) == (None, None)
        np.testing.assert_array_equal(kept.load()(X)["doubled"], X * 2)


class TestCheckpoints:
    """Of objects, as tf.train.Checkpoint and its manager write them."""

    @pytest.mark.parametrize(("name", "value"), [("ckpt-1", 1.0), ("ckpt-2.index", 2.0), ("", 2.0)])
    def test_one_is_restored(self, keep, checkpoints, name, value):
        """By its prefix, its index file, or the latest of its folder."""
        kept = keep(checkpoints / name)
        shutil.rmtree(checkpoints)
        assert (kept.saver.name, kept.saver.default_name) == ("checkpoint_files", "checkpoint")
        target = tf.train.Checkpoint(v=tf.Variable(0.0))
        assert kept.load(into=target) is target
        assert float(target.v) == value
        with pytest.raises(LoadError, match="into="):
            kept.load()

    def test_the_folder_may_have_moved(self, keep, checkpoints, tmp_path):
        """A state file with the path of then; what lies beside it counts."""
        moved = checkpoints.rename(tmp_path / "elsewhere")
        state = (moved / "checkpoint").read_text().replace('"ckpt', f'"{checkpoints}/ckpt')
        (moved / "checkpoint").write_text(state)
        assert str(checkpoints) in state
        target = {"v": tf.Variable(0.0)}
        keep(moved).load(into=target)
        assert float(target["v"]) == 2.0

    def test_a_missing_shard_is_named(self, keep, checkpoints):
        """Half a checkpoint is none."""
        (checkpoints / "ckpt-2.data-00000-of-00001").unlink()
        with pytest.raises(SaveError, match=r"not whole: ckpt-2\.data-00000-of-00001 is missing"):
            keep(checkpoints)
        (checkpoints / "ckpt-2.index").unlink()
        with pytest.raises(
            SaveError, match=r"not whole: ckpt-2\.index, ckpt-2\.data-00000-of-00001 is missing"
        ):
            keep(checkpoints)

    @pytest.mark.parametrize("state", ["", "\udcff", "nonsense", 'model_checkpoint_path: "x'])
    def test_a_file_of_that_name_alone_is_none(self, tmp_path, state):
        """A folder with something else named checkpoint in it is a folder."""
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "checkpoint").write_bytes(state.encode("utf-8", "surrogateescape"))
        assert saver_registry.find(tmp_path / "f") is None

    def test_of_a_graph(self, keep, tmp_path):
        """What an Estimator or a Saver of TensorFlow 1 wrote comes back as a folder to go on from."""
        folder = tmp_path / "model_dir"
        folder.mkdir()
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            weight = tf.compat.v1.get_variable("w", initializer=3.0)
            session.run(weight.initializer)
            tf.compat.v1.train.Saver().save(session, str(folder / "model.ckpt"), global_step=7)
            loss = tf.compat.v1.Summary.Value(tag="loss", simple_value=0.5)
            with tf.compat.v1.summary.FileWriter(str(folder)) as writer:
                writer.add_summary(tf.compat.v1.Summary(value=[loss]), 7)
        (folder / "graph.pbtxt").write_text("node {}")
        kept = keep(folder)
        assert (kept.saver.name, kept.saver.default_name) == ("estimator_folder", "estimator_checkpoint")
        assert [(m.step, m.numbers()) for m in kept.saver.metrics(folder)] == [(7, {"loss": 0.5})]
        shutil.rmtree(folder)
        back = kept.load()
        assert (back / "graph.pbtxt").is_file()
        latest = tf.train.latest_checkpoint(str(back))
        assert latest == str(back / "model.ckpt-7")
        assert tf.train.load_variable(latest, "w") == 3.0


@pytest.mark.skipif(not hasattr(tf, "estimator"), reason="tf.estimator left TensorFlow in 2.16")
def test_what_an_estimator_left_behind(keep, tmp_path):
    """Its model_dir goes on where it stopped; its export, whose path is bytes, predicts as it did."""
    x = {"x": X}

    def data():
        return tf.data.Dataset.from_tensor_slices((x, X.sum(axis=1))).repeat().batch(2)

    def fed():
        given = tf.compat.v1.placeholder(tf.float32, [None, 3])
        return tf.estimator.export.ServingInputReceiver({"x": given}, {"x": given})

    columns = [tf.feature_column.numeric_column("x", shape=(3,))]
    estimator = tf.estimator.LinearRegressor(columns, model_dir=str(tmp_path / "model_dir"))
    estimator.train(data, steps=5)
    exported = estimator.export_saved_model(str(tmp_path / "exports"), fed)
    expected = [float(row["predictions"][0]) for row in estimator.predict(lambda: data().take(1))]
    served, kept = keep(exported), keep(estimator.model_dir)
    remembered = list(kept.saver.metrics(estimator.model_dir))
    assert remembered == list(saver_registry.find(estimator).metrics(estimator)) != []
    shutil.rmtree(tmp_path / "model_dir")
    assert isinstance(exported, bytes)
    assert served.saver.name == "saved_model_folder"
    np.testing.assert_allclose(served.pyfunc().predict(x)["predictions"][:, 0], expected, rtol=1e-6)
    again = tf.estimator.LinearRegressor(columns, model_dir=str(kept.load()))
    assert again.get_variable_value("global_step") == 5
    found = [float(row["predictions"][0]) for row in again.predict(lambda: data().take(1))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    again.train(data, steps=2)
    assert again.get_variable_value("global_step") == 7


def test_a_path_that_is_no_model_has_no_saver(tmp_path):
    """Whatever it is, and whether it is there or not."""
    (tmp_path / "a.txt").write_text("a")
    for path in (tmp_path, tmp_path / "a.txt", tmp_path / "gone", "", "x\0y", b"\xff", "x" * 5000):
        assert saver_registry.find(path) is None
