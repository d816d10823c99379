"""A Keras 3 model is written as a folder whose weights have room for a zip file's header before them."""

from __future__ import annotations

import errno
import importlib
import resource
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from mlwrap._journal.records import Saved  # noqa: E402
from mlwrap._mlflow.model_files.files import assemble  # noqa: E402
from mlwrap._savers.keras import folder_writer  # noqa: E402
from mlwrap._savers.keras.folder_writer import can_write_folders  # noqa: E402
from mlwrap._savers.keras.model import KerasSaver  # noqa: E402
from mlwrap.errors import SaveError  # noqa: E402
from mlwrap.savers import SaveOptions  # noqa: E402
from tests.snapshots import hashes, saved  # noqa: E402

if not can_write_folders(keras):
    pytest.skip("this Keras writes no folders", allow_module_level=True)

FILE = "data/model.keras"


def dense(units: int = 3):
    """Trained a little, so that its optimizer has variables."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(units)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 4)), np.ones((2, units)), verbose=0)
    return model


def words():
    """With a vocabulary, which is an asset."""
    layer = keras.layers.TextVectorization()
    layer.adapt(["to be", "or not"])
    return keras.Sequential([keras.layers.Input((1,), dtype="string"), layer])


def half():
    """Of a type that HDF5 does not know."""
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, dtype="bfloat16")])


def shared():
    """A layer in two places, and others in a list."""
    inner = keras.layers.Dense(4)
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Concatenate()([inner(inner(x)), keras.layers.Dense(1)(x)]))


@keras.saving.register_keras_serializable("tests")
class OwnWay(keras.Sequential):
    """Its own way to be saved is the user's."""

    def save(self, filepath, **options):
        super().save(filepath, **options)
        Path(filepath, "assets").mkdir(exist_ok=True)
        Path(filepath, "assets/own.txt").write_text("own")


def write(model, folder: Path) -> Saved:
    """Save a model as ``log_model`` does."""
    folder.mkdir()
    return KerasSaver().save(model, folder, SaveOptions())


@pytest.mark.parametrize("make", [dense, words, half, shared])
def test_it_is_what_keras_writes(make, tmp_path: Path):
    """Each array, each asset and the configuration; and what is made of it holds just that."""
    model = make()
    expected = saved(model, tmp_path / "by_keras")
    zips = write(model, tmp_path / "logged").zips
    folder = tmp_path / "logged/data/model.unzipped"
    assert zips[FILE].around == "model.weights.h5"
    assert hashes(folder) == expected
    for asset in (tmp_path / "by_keras/assets").rglob("*"):
        if asset.is_file():
            assert (folder / asset.relative_to(tmp_path / "by_keras")).read_bytes() == asset.read_bytes()
    size = (folder / "model.weights.h5").stat().st_size
    assert (zips[FILE].start, zips[FILE].start + zips[FILE].length) == (512, size)
    assert (folder / "model.weights.h5").read_bytes()[:512] == bytes(512)
    assert (folder / "model.weights.h5").stat().st_mode & 0o777 == 0o600  # and so is what it becomes
    assemble(tmp_path / "logged", zips, tmp_path / "logged")
    with zipfile.ZipFile(tmp_path / "logged" / FILE) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert hashes(tmp_path / "unpacked") == expected
    back = keras.saving.load_model(tmp_path / "logged" / FILE)
    for one, other in zip(back.variables, model.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


@pytest.mark.parametrize("why", ["another Keras", "a way of its own"])
def test_where_it_can_not_be_so_keras_writes_the_folder(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And its files are copied."""
    model = dense()
    if why == "another Keras":
        monkeypatch.setattr(folder_writer, "_PARTS", ("H5IOStore", "what_there_is_not"))
    else:
        model = OwnWay([keras.layers.Input((4,)), *model.layers])
    zips = write(model, tmp_path / "logged").zips
    assert zips[FILE].around == ""
    assert (tmp_path / "logged/data/model.unzipped/assets/own.txt").exists() == (why == "a way of its own")
    assemble(tmp_path / "logged", zips, tmp_path / "logged")
    back = keras.saving.load_model(tmp_path / "logged" / FILE)
    np.testing.assert_array_equal(
        back.predict(np.ones((1, 4)), verbose=0), model.predict(np.ones((1, 4)), verbose=0)
    )


@pytest.mark.parametrize("most", [700, 100_000, 1_000_000])
def test_a_disk_that_takes_no_more_is_told_as_such(most: int, tmp_path: Path):
    """Whenever it is full, at the header or within an array; and HDF5 works on afterwards."""
    model = dense(100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failure:
            write(model, tmp_path / "logged")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failure.value.errno == errno.EFBIG
    write(model, tmp_path / "again")
    assert hashes(tmp_path / "again/data/model.unzipped") == saved(model, tmp_path / "by_keras")


def test_what_can_not_be_written_is_told_in_keras_words(tmp_path: Path):
    """And the file is closed."""

    class Bad(keras.layers.Dense):
        def save_own_variables(self, store):
            store["0"] = object()

    model = keras.Sequential([keras.layers.Input((4,)), Bad(2)])
    with pytest.raises(SaveError, match="can't write the model"):
        write(model, tmp_path / "logged")
    assert not [path for path in Path("/proc/self/fd").iterdir() if "model.weights" in str(path.resolve())]


def test_several_threads_write_at_once(tmp_path: Path):
    """Each its own, as trials of a sweep do."""
    models = [dense(units) for units in (3, 4, 5, 6)]
    threads = [
        threading.Thread(target=write, args=(model, tmp_path / f"logged{number}"))
        for number, model in enumerate(models)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, model in enumerate(models):
        folder = tmp_path / f"logged{number}/data/model.unzipped"
        assert hashes(folder) == saved(model, tmp_path / f"by_keras{number}")


def test_saving_makes_no_layers(tmp_path: Path):
    """As Keras does to see what all of them have, in each save; what Keras keeps for its own is as before."""
    state = importlib.import_module("keras.src.backend.common.global_state")
    kept = state.get_global_attribute("saving_attr_skiplist_Layer")

    def number() -> int:
        return int(keras.layers.Layer().name.removeprefix("layer").removeprefix("_") or 0)

    model = dense()
    write(model, tmp_path / "first")
    before = number()
    write(model, tmp_path / "second")
    assert number() == before + 1
    assert state.get_global_attribute("saving_attr_skiplist_Layer") is kept
