"""Paths to what Keras wrote, of every Keras that is here."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile

import h5py
import mlflow.keras
import mlflow.tensorflow
import numpy as np
import pytest

from mlwrap._returned.unpack import unpack
from mlwrap._savers import saver_registry
from mlwrap._savers.keras import files
from mlwrap.errors import LoadError, MlwrapWarning, SaveError

tf = pytest.importorskip("tensorflow")

X = np.arange(6, dtype="float32").reshape(2, 3)


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request):
    """Each Keras of this environment."""
    return pytest.importorskip(request.param, reason=f"{request.param} is not in this environment")


@pytest.fixture
def model(keras):
    """A small model, compiled."""
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    made.compile("sgd", "mse")
    return made


def test_a_keras_file_comes_back(keep, keras, model, tmp_path):
    """By stock MLflow and by mlwrap as a model of the Keras that wrote it, after the file is gone."""
    path = tmp_path / "best.keras"
    model.save(path)
    expected = model.predict(X, verbose=0)
    kept = keep(path)
    path.unlink()
    assert (kept.saver.name, kept.saver.default_name) == ("keras_file", "keras_model")
    flavor = mlflow.keras if "keras" in kept.saved.flavors else mlflow.tensorflow
    for loaded in (kept.load(), flavor.load_model(str(kept.folder))):
        assert type(loaded) is type(model)
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    np.testing.assert_array_equal(kept.pyfunc().predict(X), expected)


def test_it_is_told_as_the_model_itself_would_be(keep, keras, model, tmp_path):
    """Flavors, packages and details as of the model in memory; of its signature the inputs."""
    model.save(tmp_path / "m.keras")
    file, object_ = keep(tmp_path / "m.keras"), keep(model)
    for field in ("flavors", "pyfunc", "packages"):
        assert getattr(file.saved, field) == getattr(object_.saved, field)
    # Nothing in a file tells which backend it was trained on.
    assert file.saved.details == {k: v for k, v in object_.saved.details.items() if k != "backend"}
    paths = [{path.name for path in kept.folder.glob("data/*")} for kept in (file, object_)]
    assert paths[0] == paths[1]
    assert file.saved.signature.inputs == object_.saved.signature.inputs
    assert file.saved.signature.outputs == ()


def test_inputs_of_every_shape(keep, keras, tmp_path):
    """Several in a list or by name; what is ragged or was never built is not told."""
    layers = keras.layers
    a, b = layers.Input((3,), name="a"), layers.Input((4, None), dtype="int32", name="b")
    dense = layers.Dense(1)(a)
    for number, inputs in enumerate((a, [a, b], {"x": a, "y": b})):
        made = keras.Model(inputs, dense)
        made.save(tmp_path / f"{number}.keras")
        kept, expected = keep(tmp_path / f"{number}.keras").saved.signature, keep(made).saved.signature
        if isinstance(inputs, list):
            assert [(s.name, s.dtype, s.shape) for s in kept.inputs] == [
                ("a", "float32", (-1, 3)),
                ("b", "int32", (-1, 4, -1)),
            ]
        else:
            assert kept.inputs == expected.inputs

    @keras.saving.register_keras_serializable("files")
    class Own(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    own = Own()
    own(X)
    own.save(tmp_path / "own.keras")
    with pytest.warns(MlwrapWarning, match="files>Own is registered here, but it is made inside a function"):
        kept = keep(tmp_path / "own.keras")
    assert kept.saved.signature is None
    np.testing.assert_array_equal(kept.load()(X), own(X))


def _zip(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_json", ".json").replace("_h5", ".h5"), content)
    return made.getvalue()


_META, _CONFIG, _WEIGHTS = b'{"keras_version": "3.0.0"}', b"{}", {"model.weights_h5": b""}
DAMAGED = {
    "no zip": b"nothing",
    "empty": b"",
    "half a zip": _zip(metadata_json=_META, config_json=_CONFIG, **_WEIGHTS)[:-30],
    "no members": _zip(),
    "no weights": _zip(metadata_json=_META, config_json=_CONFIG),
    "no JSON": _zip(metadata_json=b"{", config_json=_CONFIG, **_WEIGHTS),
    "no object": _zip(metadata_json=b"[]", config_json=_CONFIG, **_WEIGHTS),
    "no version": _zip(metadata_json=b"{}", config_json=_CONFIG, **_WEIGHTS),
    "an odd version": _zip(metadata_json=b'{"keras_version": "new"}', config_json=_CONFIG, **_WEIGHTS),
    "a bomb": _zip(metadata_json=_META, config_json=b" " * ((1 << 26) + 1), **_WEIGHTS),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_keras_file_is_an_error(keep, tmp_path, content):
    """It names the file, and says what is wrong."""
    path = tmp_path / "x.keras"
    path.write_bytes(content)
    with pytest.raises(
        SaveError, match=r"x\.keras is no \.keras file that loads \(\w+: .*Save the model again"
    ):
        keep(path)


def test_keras_is_not_imported_to_log_a_file(model, tmp_path):
    """A process may pass on what another one wrote."""
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "out").mkdir()
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from mlwrap._savers import saver_registry as registry\nfrom mlwrap.savers import SaveOptions\n"
        f"here = Path({str(tmp_path)!r})\n"
        "saver = registry.find(here / 'm.keras')\n"
        "print(sorted(saver.save(here / 'm.keras', here / 'out', SaveOptions()).flavors))\n"
        "print(registry.find(here / 'm.weights.h5').name)\n"
        "print(sorted({'keras', 'tf_keras', 'tensorflow', 'mlflow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    flavors, weights, heavy = done.stdout.splitlines()
    assert (
        flavors == "['keras']" if type(model).__module__.startswith("keras.src.models") else "['tensorflow']"
    )
    assert (weights, heavy) == ("keras_weights", "[]")


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_whole_model_in_hdf5_needs_trust(keep, keras, model, tmp_path):
    """Stock MLflow reads it; mlwrap asks first, for the format can bring code."""
    path = tmp_path / "old.h5"
    model.compile("sgd", keras.losses.MeanSquaredError())
    model.save(path)
    expected = model.predict(X, verbose=0)
    kept = keep(path)
    path.unlink()
    assert (kept.saver.name, kept.saver.default_name) == ("keras_hdf5", "keras_model")
    assert kept.saved.flavors["tensorflow"]["save_format"] == "h5"
    (given,) = kept.saved.signature.inputs
    assert given.shape == (-1, 3)
    with pytest.raises(LoadError, match="trust=True"):
        kept.load()
    for loaded in (kept.load(trust=True), mlflow.tensorflow.load_model(str(kept.folder))):
        assert type(loaded) is type(model)
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    np.testing.assert_array_equal(kept.pyfunc().predict(X), expected)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_an_hdf5_model_comes_back_without_what_it_was_compiled_with(keep, keras, model, tmp_path):
    """Keras 3 writes a loss given by name so that it can't read it; the model itself is as good as ever."""
    if not keras.__version__.startswith("3."):
        pytest.skip("Keras 2 reads what it writes")
    model.save(tmp_path / "m.h5")
    with pytest.warns(MlwrapWarning, match=r"comes back without.*keras\.metrics\.mse"):
        loaded = keep(tmp_path / "m.h5").load(trust=True)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert not loaded.compiled


def test_a_damaged_hdf5_model_is_an_error(keep, keras, tmp_path):
    """When it is saved, if it does not say whose it is; when it is loaded, if it is no model after all."""
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
    with pytest.raises(SaveError, match=r"m\.h5 does not say which Keras wrote it"):
        keep(path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = keras.__version__
    with pytest.raises(LoadError, match="could not be rebuilt"):
        keep(path).load(trust=True)


def weights_file(keras, model, tmp_path, ending):
    """A file of ``model``'s weights; of the older kind, where this Keras writes it."""
    path = tmp_path / f"m{ending}"
    if ending == ".h5" and keras.__version__.startswith("3."):
        pytest.skip("Keras 3 writes .weights.h5 only")
    model.save_weights(path)
    return path


@pytest.mark.parametrize("ending", [".weights.h5", ".h5"])
def test_weights_come_back_into_a_model(keep, keras, model, tmp_path, ending):
    """Of the same layers; what does not fit is an error."""
    path = weights_file(keras, model, tmp_path, ending)
    kept = keep(path)
    path.unlink()
    assert (kept.saver.name, kept.saver.default_name) == ("keras_weights", "weights")
    fresh = keras.models.clone_model(model)
    assert kept.load(into=fresh) is fresh
    np.testing.assert_array_equal(fresh.predict(X, verbose=0), model.predict(X, verbose=0))
    for other in (None, "a model"):
        with pytest.raises(LoadError, match="expected into= with a Keras model"):
            kept.load(into=other)
    with pytest.raises(LoadError, match="do not fit"):
        kept.load(into=keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(7)]))


def test_weights_that_lead_elsewhere_are_not_read(keep, keras, model, tmp_path):
    """A link to another file would read whatever lies there."""
    path = weights_file(keras, model, tmp_path, ".weights.h5")
    with h5py.File(path, "a") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(LoadError, match="elsewhere is a link that leads elsewhere"):
        keep(path).load(into=model)


def test_weights_that_are_no_hdf5(keep, tmp_path):
    """The ending promises it."""
    (tmp_path / "m.weights.h5").write_bytes(b"nothing")
    with pytest.raises(SaveError, match=r"m\.weights\.h5 is no HDF5 file"):
        keep(tmp_path / "m.weights.h5")


def test_other_hdf5_files_are_files(tmp_path):
    """Data, and what only has the ending."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.zeros(3)
    (tmp_path / "text.h5").write_text("text")
    for name in ("data.h5", "text.h5"):
        assert saver_registry.find(tmp_path / name) is None
        assert [output.path for output in unpack(tmp_path / name).outputs] == [name]


@pytest.mark.parametrize(
    ("version", "package"),
    [("2.15.0", "keras"), ("2.16.0", "tf_keras"), ("3.0.1", "keras"), ("2.4.0-tf", "keras")],
)
def test_a_version_tells_the_package(version, package):
    """Keras 2 ended with 2.15; what counts on is tf_keras."""
    assert files.package_of(version) == package


def test_the_configuration_of_a_nested_type(tmp_path):
    """A type that is itself a configuration, as Keras 3 writes some."""
    layer = {"name": "i", "batch_shape": [None, 2], "dtype": {"config": {"name": "float16"}}}
    config = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "InputLayer", "config": layer}]},
    }
    signature = files.declared_inputs(json.loads(json.dumps(config)))
    assert [(s.name, s.dtype, s.shape) for s in signature.inputs] == [(None, "float16", (-1, 2))]
