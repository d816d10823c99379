"""Keras 3, Keras 2 and tf_keras models: saved by their own package, loaded by stock MLflow and by us."""

import importlib
import sys

import numpy as np
import pytest

from mlwrap._journal.records import TensorSpec
from mlwrap._savers import saver_registry
from mlwrap._savers.signature import of_keras
from mlwrap.errors import LoadError, MlwrapWarning, SaveError

X = np.arange(12, dtype="float32").reshape(3, 4) / 12


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request):
    """Each Keras that is installed here."""
    pytest.importorskip("tensorflow")
    return pytest.importorskip(request.param, reason=f"{request.param} is not in this environment")


def is_keras_3(keras):
    """The generation whose models MLflow has a flavor of its own for."""
    return keras.__name__ == "keras" and keras.__version__.startswith("3.")


def sequential(keras):
    """The plainest model."""
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])


def two_in_two_out(keras, *, names):
    """A functional model with dictionaries or lists of inputs and outputs."""
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b", dtype="int32")
    p = keras.layers.Dense(2, name="p")(a)
    q = keras.layers.Embedding(5, 1, name="q")(b)
    if names:
        return keras.Model({"a": a, "b": b}, {"p": p, "q": q})
    return keras.Model([a, b], [p, q])


_MODULE = """
import {keras} as keras

@keras.saving.register_keras_serializable("tests")
class Tiny(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)
"""


@pytest.fixture
def registered(keras, tmp_path, monkeypatch):
    """A module of the user's own, on the path, that registers a model."""
    name = f"models_of_{keras.__name__}_{tmp_path.name}"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / f"{name}.py").write_text(_MODULE.format(keras=keras.__name__))
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    return importlib.import_module(name)


def unregistered(keras):
    """A model that is a class of the user's, and that Keras was told nothing of."""

    class Tiny(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    return Tiny()


def test_layout_is_what_stock_loaders_look_for(keras, keep):
    """The files and the flavor are MLflow's own."""
    kept = keep(sequential(keras))
    files = {str(path.relative_to(kept.folder)) for path in kept.folder.rglob("*") if path.is_file()}
    (flavor,) = kept.saved.flavors
    assert flavor == ("keras" if is_keras_3(keras) else "tensorflow")
    if flavor == "keras":
        assert files == {"MLmodel", "data/model.keras"}
    else:
        assert files == {"MLmodel", "data/model.keras", "data/keras_module.txt", "data/save_format.txt"}
        assert kept.folder.joinpath("data/keras_module.txt").read_text() == keras.__name__
    told = {"keras": keras.__name__, "version": keras.__version__}
    own = {"backend": "tensorflow"} if keras.__version__.startswith("3.") else {}
    assert kept.saved.details == told | own
    assert set(kept.saved.packages) == {"tensorflow", keras.__name__}


@pytest.mark.parametrize("flavor", ["pyfunc", "own"])
def test_stock_loaders_predict_the_same(keras, keep, flavor):
    """``mlflow.pyfunc`` and the flavor's own loader give back a model that predicts what it did."""
    model = sequential(keras)
    kept = keep(model)
    if flavor == "pyfunc":
        again = kept.pyfunc()
    else:
        (name,) = kept.saved.flavors
        again = importlib.import_module(f"mlflow.{name}").load_model(str(kept.folder))
        assert type(again).__module__.split(".")[0] == keras.__name__
    np.testing.assert_allclose(again.predict(X), model.predict(X, verbose=0), rtol=1e-6)


def test_load_gives_back_a_compiled_model_of_the_same_keras(keras, keep):
    """Our own loader restores optimizer and loss too, so that training can go on."""
    model = sequential(keras)
    model.compile("adam", "mse")
    model.fit(X, X[:, :2], verbose=0)
    again = keep(model).load()
    assert type(again) is type(model)
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 1
    np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6)


@pytest.mark.parametrize("names", [True, False], ids=["dictionary", "list"])
def test_several_inputs_are_fed_by_name(keras, keep, names):
    """Inputs and outputs of a model with several are named in its signature, and pyfunc takes them so."""
    model = two_in_two_out(keras, names=names)
    kept = keep(model)
    assert kept.saved.signature is not None
    assert kept.saved.signature.inputs == (
        TensorSpec(name="a", dtype="float32", shape=(-1, 4)),
        TensorSpec(name="b", dtype="int32", shape=(-1, 3)),
    )
    assert kept.saved.signature.outputs == (
        TensorSpec(name="p", dtype="float32", shape=(-1, 2)),
        TensorSpec(name="q", dtype="float32", shape=(-1, 3, 1)),
    )
    feed = {"a": X, "b": np.zeros((3, 3), "int32")}
    expected = model.predict(feed, verbose=0)
    again = kept.load().predict(feed, verbose=0)
    for key in expected if names else range(2):
        np.testing.assert_allclose(again[key], expected[key], rtol=1e-6)
    if not is_keras_3(keras):  # MLflow's Keras 3 wrapper can't hand back several outputs, whoever saved them
        served = kept.pyfunc().predict(feed)
        for key in expected if names else range(2):
            np.testing.assert_allclose(served[key], expected[key], rtol=1e-6)


def test_signature_of_a_single_input_is_unnamed_with_a_free_batch(keras, keep):
    """A model that saw only batches of three still takes any batch."""
    model = keras.Sequential([keras.layers.Dense(2)])
    model(X)
    signature = keep(model).saved.signature
    assert signature.inputs == (TensorSpec(dtype="float32", shape=(-1, 4)),)
    assert signature.outputs == (TensorSpec(dtype="float32", shape=(-1, 2)),)


def test_nested_inputs_are_named_by_their_places(keras):
    """A dictionary in a dictionary, a list in a list: each tensor has a name of its own."""
    a, b, c = keras.Input((4,)), keras.Input((None, 2), dtype="int32"), keras.Input((1,), name="c")
    out = keras.layers.Dense(1)(a)
    in_dictionary = of_keras(keras.Model({"x": {"left": a, "right": b}, "c": c}, out))
    assert {(s.name, s.dtype, s.shape) for s in in_dictionary.inputs} == {
        ("x/left", "float32", (-1, 4)),
        ("x/right", "int32", (-1, -1, 2)),
        ("c", "float32", (-1, 1)),
    }
    in_list = of_keras(keras.Model([c, [a, b]], out))
    assert [(s.name, s.shape) for s in in_list.inputs] == [
        ("c", (-1, 1)),
        ("1/0", (-1, 4)),
        ("1/1", (-1, -1, 2)),
    ]


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_a_subclassed_model_tells_what_it_was_fed(keras, call):
    """Types of what it took in, and not of what it computes in; of two types it tells none."""
    model = unregistered(keras)
    model.compile("sgd", "mse")
    whole = np.ones((3, 4), "int32")

    def feed(x):
        arguments = (x,) if call == "predict" else (x, X[:, :2])
        getattr(model, call)(*arguments, verbose=0)

    feed(whole)
    assert of_keras(model).inputs == (TensorSpec(dtype="int32", shape=(-1, 4)),)
    feed(X)
    if is_keras_3(keras):  # Keras 2 keeps what came first
        assert of_keras(model) is None


def test_a_subclassed_model_with_unnamed_inputs_tells_none(keras):
    """There is no name to feed them by."""

    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs[0]) + self.dense(inputs[1])

    model = Two()
    model.predict([X, X], verbose=0)
    signature = of_keras(model)
    assert signature is None or all(spec.name for spec in signature.inputs)


def test_a_subclassed_model_comes_back_if_its_class_is_registered(keras, keep, registered):
    """Registered classes need nothing else, and their module is noted."""
    model = registered.Tiny()
    model(X)
    kept = keep(model)
    assert kept.saved.modules == (registered.__name__,)
    np.testing.assert_allclose(kept.pyfunc().predict(X), model.predict(X, verbose=0), rtol=1e-6)
    assert kept.saved.signature.inputs == (TensorSpec(dtype="float32", shape=(-1, 4)),)


def test_an_unregistered_class_is_named_at_save_time(keras, keep):
    """What will not load is said when it is saved, with the cure; loading says it again."""
    model = unregistered(keras)
    model(X)
    with pytest.warns(MlwrapWarning, match=r"can't find \S*Tiny by name.*register_keras_serializable"):
        kept = keep(model)
    with pytest.raises(LoadError, match="register_keras_serializable"):
        kept.load()


def test_an_unregistered_function_is_named_and_built_in_ones_are_not(keras, keep):
    """A function is looked up by its bare name: Keras's own are found, others only if registered."""

    def twice(x):
        return 2 * x

    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(2, "relu"), keras.layers.Activation(twice)]
    )
    model.compile("adam", loss="mse", metrics=["mae"])
    with pytest.warns(MlwrapWarning, match="can't find twice by name"):
        keep(model)


def test_a_lambda_needs_trust(keras, keep):
    """Code that came with the model runs only where the caller says so."""
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    with pytest.warns(MlwrapWarning, match="lambda"):
        kept = keep(model)
    with pytest.raises(LoadError, match="trust=True"):
        kept.load()
    np.testing.assert_allclose(kept.load(trust=True).predict(X, verbose=0), X * 2)


def test_a_vocabulary_in_a_file_is_taken_along_or_named(keras, keep, tmp_path):
    """Keras 3 writes it into the model's file; Keras 2 wants the very path, which is elsewhere not there."""
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    lookup = keras.layers.StringLookup(vocabulary=str(tmp_path / "words.txt"))
    model = keras.Sequential([keras.layers.Input((1,), dtype="string"), lookup])
    if not is_keras_3(keras):
        with pytest.warns(MlwrapWarning, match=r"StringLookup .*reads its vocabulary from .*words\.txt"):
            keep(model)
        return
    kept = keep(model)
    (tmp_path / "words.txt").unlink()
    assert kept.load().layers[-1].get_vocabulary() == ["[UNK]", "cat", "dog"]


def test_operations_of_tensorflow_are_no_trouble(keras, keep):
    """Keras 2 writes them as layers of their own, by their names."""
    tf = pytest.importorskip("tensorflow")
    if is_keras_3(keras):
        pytest.skip("Keras 3 has operations of its own")
    inputs = keras.Input((4,))
    hidden = tf.nn.relu(tf.concat([inputs, inputs * 2.0], axis=-1)) + tf.math.square(inputs[:, :1])
    model = keras.Model(inputs, keras.backend.l2_normalize(hidden))
    np.testing.assert_allclose(
        keep(model).load().predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6
    )


def test_a_model_without_weights_is_refused(keras, keep):
    """A model that was never built has nothing to save; the error carries it and says what to do."""
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(SaveError, match=r"no weights yet.*Call it on data once") as caught:
        keep(model)
    assert caught.value.value is model


def test_metrics_come_from_the_history_that_the_model_keeps(keras):
    """A body that returns only the model still gives its epochs; one that never trained gives none."""
    model = sequential(keras)
    saver = saver_registry.find(model)
    assert list(saver.metrics(model)) == []
    model.compile("sgd", "mse")
    history = model.fit(X, X[:, :2], epochs=5, initial_epoch=2, verbose=0)
    records = list(saver.metrics(model))
    assert [record.step for record in records] == [2, 3, 4]
    assert [record.numbers()["loss"] for record in records] == history.history["loss"]


def test_validation_every_other_epoch_keeps_its_epochs(keras):
    """Values of a metric that has fewer than epochs are spaced evenly."""
    model = sequential(keras)
    model.compile("sgd", "mse")
    model.fit(X, X[:, :2], epochs=4, validation_data=(X, X[:, :2]), validation_freq=2, verbose=0)
    records = saver_registry.find(model).metrics(model)
    assert [record.step for record in records if "val_loss" in record.values] == [1, 3]


@pytest.mark.parametrize(
    ("details", "cure"),
    [
        ({"keras": "keras", "version": "99.0.0"}, "pip install keras==99.0.0"),
        ({"keras": "keras", "version": "1.15.0"}, r"tensorflow==1\.15\.\*"),
        ({"keras": "tf_keras", "version": "99.0.0"}, "pip install tf-keras==99.0.0"),
    ],
)
def test_the_wrong_keras_is_named_with_what_to_install(tmp_path, details, cure):
    """A model of another Keras is not tried: the error says which one to install."""
    pytest.importorskip("keras")
    with pytest.raises(LoadError, match=cure):
        saver_registry.by_name("keras").load(tmp_path, details)


def test_a_keras_2_model_is_read_by_tf_keras_where_keras_is_3(keep):
    """tf_keras is what became of Keras 2, and reads its files."""
    keras = pytest.importorskip("tf_keras", reason="where Keras 2 is installed it reads its own")
    model = sequential(keras)
    kept = keep(model)
    again = kept.saver.load(kept.folder, {"keras": "keras", "version": "2.15.0"})
    np.testing.assert_allclose(again.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6)


def test_keras_saver_is_not_asked_before_keras_is_imported(monkeypatch):
    """``find`` looks into sys.modules before it asks."""
    for name in ("keras", "tf_keras", "tensorflow", "tensorflow_estimator"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    Model = type("Model", (), {"__module__": "keras.models"})  # noqa: N806
    assert saver_registry.find(Model()) is None


def test_an_optimizer_is_not_a_model(keras):
    """A part of a model that is trackable, too; a layer alone has a saver of its own."""
    assert saver_registry.find(keras.layers.Dense(2)).name == "keras_layer"
    assert saver_registry.find(keras.optimizers.Adam()) is None
