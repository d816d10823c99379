"""SavedModels: the way in that the MLmodel names is one that stock MLflow can go."""

import mlflow
import mlflow.tensorflow
import numpy as np
import pandas as pd
import pytest

from mlwrap._journal.records import Signature, TensorSpec
from mlwrap._savers import saver_registry, signature
from mlwrap.errors import LoadError, MlwrapWarning, SaveError

tf = pytest.importorskip("tensorflow")

X = np.arange(6, dtype="float32").reshape(2, 3)
ANY_BATCH = tf.TensorSpec([None, 3], tf.float32, name="x")


class Callable(tf.Module):
    """Callable for any batch."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[ANY_BATCH])
    def __call__(self, x):
        return x * self.factor


class Traced(tf.Module):
    """Callable in the ways that it was called."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    @tf.function
    def __call__(self, x, training=False):
        return {"scaled": x * self.factor, "sum": tf.reduce_sum(x, axis=1)}


class Served(tf.Module):
    """Not callable, with one function that can be served."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    @tf.function(input_signature=[ANY_BATCH])
    def serve(self, x):
        return {"scaled": x * self.factor}


class Python(tf.Module):
    """Callable in Python only."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    def __call__(self, x):
        return x * self.factor


def trackable():
    """No class of its own: attributes that TensorFlow tracks."""
    model = tf.__internal__.tracking.AutoTrackable()
    model.factor = tf.Variable(2.0)
    model.serve = tf.function(lambda x: {"scaled": x * model.factor}, input_signature=[ANY_BATCH])
    return model


def stock(kept):
    """What the flavor's own loader gives."""
    return mlflow.tensorflow.load_model(str(kept.folder))


def unnamed(*shape):
    """A tensor that needs no name, being alone."""
    return TensorSpec(dtype="float32", shape=shape)


def test_a_callable_module_is_opened_as_a_module(keep):
    """``tf2-module``, in the folder that MLflow itself would use, with the signature of ``__call__``."""
    model = Callable()
    kept = keep(model)
    assert kept.saved.flavors == {"tensorflow": {"saved_model_dir": "tf2model", "model_type": "tf2-module"}}
    assert kept.saved.signature == Signature(inputs=(unnamed(-1, 3),), outputs=(unnamed(-1, 3),))
    expected = model(X).numpy()
    np.testing.assert_array_equal(kept.pyfunc().predict(X), expected)
    np.testing.assert_array_equal(stock(kept)(X), expected)
    np.testing.assert_array_equal(kept.load()(X), expected)


def test_of_several_forms_the_one_that_covers_the_others_is_told(keep):
    """Without an input signature the traces tell: of one batch size, of any, and for training."""
    model = Traced()
    model(tf.zeros([1, 3]))
    model.__call__.get_concrete_function(tf.TensorSpec([None, 3]), training=True)
    model.__call__.get_concrete_function(tf.TensorSpec([None, 3]))
    kept = keep(model)
    assert kept.saved.signature.inputs == (unnamed(-1, 3),)
    np.testing.assert_array_equal(kept.pyfunc().predict(X)["scaled"], X * 2)


def test_forms_of_which_none_covers_the_others_have_no_single_signature(keep):
    """Batches of one and of two: either is taken, and nothing said of both is true."""
    model = Traced()
    model(X[:1])
    model(X)
    kept = keep(model)
    assert kept.saved.signature is None
    np.testing.assert_array_equal(kept.pyfunc().predict(X)["scaled"], X * 2)


def test_outputs_of_a_call_are_named_if_they_are_a_dictionary(keep):
    """The form that was traced for any batch gives the signature."""
    model = Traced()
    model.__call__.get_concrete_function(tf.TensorSpec([None, 3]))
    assert keep(model).saved.signature == Signature(
        inputs=(unnamed(-1, 3),),
        outputs=(
            TensorSpec(name="scaled", dtype="float32", shape=(-1, 3)),
            TensorSpec(name="sum", dtype="float32", shape=(-1,)),
        ),
    )


def test_a_call_traced_for_one_batch_size_promises_no_other(keep):
    """The sizes in the signature are those of the graph, and MLflow refuses others before it does."""
    model = Traced()
    model(X)
    kept = keep(model)
    assert kept.saved.signature.inputs == (unnamed(2, 3),)
    np.testing.assert_array_equal(kept.pyfunc().predict(X)["scaled"], X * 2)
    with pytest.raises(mlflow.MlflowException, match="shape"):
        kept.pyfunc().predict(X[:1])


@pytest.mark.parametrize("make", [Served, trackable], ids=["module", "AutoTrackable"])
def test_without_a_call_the_signature_is_the_way_in(keep, make):
    """Fed from a dictionary or a DataFrame; for ``mlflow.tensorflow`` it is a ``tf1-estimator``."""
    kept = keep(make())
    assert kept.saved.flavors["tensorflow"] == {
        "model_type": "tf1-estimator",
        "saved_model_dir": "tf2model",
        "meta_graph_tags": ["serve"],
        "signature_def_key": "serving_default",
    }
    assert kept.saved.signature.inputs == (TensorSpec(name="x", dtype="float32", shape=(-1, 3)),)
    model = kept.pyfunc()
    np.testing.assert_array_equal(model.predict({"x": X})["scaled"], X * 2)
    frame = model.predict(pd.DataFrame({"x": [row.tolist() for row in X]}))
    np.testing.assert_array_equal(np.stack(frame["scaled"]), X * 2)
    np.testing.assert_array_equal(stock(kept)(x=tf.constant(X))["scaled"], X * 2)


class Columns(tf.Module):
    """Two outputs, of which one has one column."""

    @tf.function(input_signature=[ANY_BATCH])
    def __call__(self, x):
        return {"scaled": x * 2.0, "total": tf.reduce_sum(x, axis=-1, keepdims=True)}


def test_several_outputs_of_one_input_are_whole_arrays(keep):
    """MLflow's own loader would give tensors, which its server can't write as JSON."""
    kept = keep(Columns())
    assert kept.saved.signature.inputs == (unnamed(-1, 3),)
    for found in (kept.pyfunc().predict(X), kept.pyfunc().predict(pd.DataFrame(X))):
        assert {name: (type(part), part.shape) for name, part in found.items()} == {
            "scaled": (np.ndarray, X.shape),
            "total": (np.ndarray, (len(X), 1)),
        }
        np.testing.assert_allclose(found["total"][:, 0], X.sum(axis=1), rtol=1e-6)


def test_what_was_loaded_is_saved_again_and_can_still_do_it(keep):
    """A loaded SavedModel is an object of TensorFlow's own, and keeps its calls and signatures."""
    once = keep(Callable()).load()
    again = keep(once)
    np.testing.assert_array_equal(again.pyfunc().predict(X), X * 2)
    assert set(again.load().signatures) == set(once.signatures) == {"serving_default"}
    served = keep(keep(Served()).load())
    np.testing.assert_array_equal(served.pyfunc().predict({"x": X})["scaled"], X * 2)


@pytest.mark.parametrize("make", [Python, Traced], ids=["plain method", "never traced"])
def test_nothing_callable_is_said_at_save_time(keep, make):
    """MLflow can still load it; what it can't do, and the cure, is said now."""
    with pytest.warns(
        MlwrapWarning, match=rf"{make.__name__}.*nothing in the SavedModel can be called.*__call__"
    ):
        kept = keep(make())
    assert kept.saved.pyfunc is None
    assert kept.saved.signature is None
    assert float(stock(kept).factor) == float(kept.load().factor) == 2.0


def test_text_and_types_that_numpy_lacks():
    """Text is ``str``; a bfloat16 input has no name in a signature, which is then left out."""
    spec = signature.specs(tf.TensorSpec([None], tf.string))
    assert spec == (TensorSpec(dtype="str", shape=(-1,)),)
    for odd in (
        tf.TensorSpec([None], tf.bfloat16),
        tf.TensorSpec(None, tf.float32),
        tf.TensorSpec([], tf.float32),
        tf.RaggedTensorSpec([None, None], tf.float32),
        tf.SparseTensorSpec([None, 3], tf.float32),
    ):
        with pytest.raises(signature.Unknown):
            signature.specs(odd)


def test_text_goes_in(keep):
    """A signature of text feeds stock MLflow with text."""

    class Length(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def serve(self, text):
            return {"length": tf.strings.length(text)}

    predicted = keep(Length()).pyfunc().predict({"text": np.array(["a", "abc"])})
    assert list(predicted["length"]) == [1, 3]


def test_tensorflows_own_helpers_are_not_models():
    """Random generators, variables and datasets are trackable, and no model."""
    for value in (
        tf.random.Generator.from_seed(1),
        tf.Variable([1.0]),
        tf.constant([1.0]),
        tf.data.Dataset.range(3),
    ):
        assert saver_registry.find(value) is None


class Several(tf.Module):
    """Two functions, of which neither is the one to serve."""

    @tf.function(input_signature=[ANY_BATCH])
    def encode(self, x):
        return x * 2.0

    @tf.function(input_signature=[ANY_BATCH])
    def decode(self, x):
        return x / 2.0


class Untraced(Callable):
    """One function of a part was never called."""

    def __init__(self):
        super().__init__()
        self.part = Traced()


class CallsPython(tf.Module):
    """Goes through numpy, in a process that has the function."""

    @tf.function(input_signature=[ANY_BATCH])
    def __call__(self, x):
        return tf.ensure_shape(tf.numpy_function(lambda a: a * 2, [x], tf.float32), [None, 3])


class Looks(tf.Module):
    """A table that is read from a file."""

    def __init__(self, words, *, holds=True):
        super().__init__()
        file = tf.lookup.TextFileInitializer(
            str(words),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        table = tf.lookup.StaticHashTable(file, -1)
        if holds:
            self.table = table
        self.look = tf.function(table.lookup, input_signature=[tf.TensorSpec([None], tf.string, name="word")])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            Several,
            r"nothing in the SavedModel can be called.*predict or serve.*What it has is decode, encode",
        ),
        (Untraced, r"without part\.__call__, which was never called.*Call it once"),
        (CallsPython, r"__call__ in it runs Python code.*TensorFlow's own operations"),
    ],
    ids=["several functions", "a function never traced", "numpy_function"],
)
def test_what_a_saved_model_will_not_be_able_to_do_is_said_at_save_time(keep, make, says):
    """Read from the file, with the function at fault and the cure; it is saved nonetheless."""
    with pytest.warns(MlwrapWarning, match=says):
        kept = keep(make())
    assert kept.load(trust=make is CallsPython) is not None


def test_of_several_functions_the_one_that_is_called_so_is_served(keep):
    """``predict`` is a way in; the others come back with the object."""

    class Named(Several):
        @tf.function(input_signature=[ANY_BATCH])
        def predict(self, x):
            return x * 3.0

    kept = keep(Named())
    np.testing.assert_array_equal(kept.pyfunc().predict({"x": X})["output_0"], X * 3)
    np.testing.assert_array_equal(kept.load().encode(X), X * 2)


def test_a_dictionary_goes_in_by_its_keys_and_nested_ones_come_out_by_theirs(keep):
    """TensorFlow alone would number the inputs, and serve nothing whose outputs are nested."""

    class Nested(tf.Module):
        @tf.function(
            input_signature=[
                {
                    "passenger": {"age": tf.TensorSpec([None], tf.int32)},
                    "fare paid": tf.TensorSpec([None, None, 2], tf.float64),
                },
            ]
        )
        def __call__(self, row):
            age, fare = row["passenger"]["age"], row["fare paid"]
            return {"sum": {"age": age + 1, "fare": [fare, fare * 2]}, "adult": age >= 18}

    kept = keep(Nested())
    assert kept.saved.flavors["tensorflow"]["signature_def_key"] == "serving_default"
    assert kept.saved.signature.inputs == (
        TensorSpec(name="fare_paid", dtype="float64", shape=(-1, -1, 2)),
        TensorSpec(name="passenger_age", dtype="int32", shape=(-1,)),
    )
    assert {spec.name for spec in kept.saved.signature.outputs} == {
        "adult",
        "sum_age",
        "sum_fare_0",
        "sum_fare_1",
    }
    fares = np.ones((2, 4, 2))
    predicted = kept.pyfunc().predict({"fare_paid": fares, "passenger_age": np.array([17, 18], "int32")})
    assert (predicted["sum_age"].tolist(), predicted["adult"].tolist()) == ([18, 19], [False, True])
    np.testing.assert_array_equal(predicted["sum_fare_1"], fares * 2)


def test_python_arguments_keep_the_values_that_were_traced(keep):
    """Several tensors, one by keyword, among values that are no tensors; traced for training as well."""

    class Mixed(tf.Module):
        @tf.function
        def __call__(self, x, training=False, *, mask):
            return x * mask if training else x + mask

    model = Mixed()
    model(X, mask=X, training=True)
    model(X, mask=X)
    kept = keep(model)
    assert [spec.name for spec in kept.saved.signature.inputs] == ["mask", "x"]
    np.testing.assert_array_equal(kept.pyfunc().predict({"x": X, "mask": X})["output_0"], X + X)


def test_a_scalar_input_is_told(keep):
    """Not everything has a batch axis: a signature says what the graph takes."""

    class Powers(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None], tf.float32, "x"), tf.TensorSpec([], tf.float32, "p")]
        )
        def __call__(self, x, p):
            return x**p

    kept = keep(Powers())
    assert {spec.name: spec.shape for spec in kept.saved.signature.inputs} == {"x": (-1,), "p": ()}
    fed = {"x": np.array([1.0, 2.0], "float32"), "p": np.array(3.0, "float32")}
    assert kept.pyfunc().predict(fed)["output_0"].tolist() == [1.0, 8.0]


def test_ragged_tensors_go_in_by_their_parts(keep):
    """MLflow has no word for one; TensorFlow serves its values and row splits, the object takes it whole."""

    class Ragged(tf.Module):
        @tf.function(input_signature=[tf.RaggedTensorSpec([None, None])])
        def __call__(self, x):
            return tf.reduce_sum(x, axis=1)

    kept = keep(Ragged())
    assert sorted((spec.dtype, spec.shape) for spec in kept.saved.signature.inputs) == [
        ("float32", (-1,)),
        ("int64", (-1,)),
    ]
    assert kept.load()(tf.ragged.constant([[1.0, 2.0], [3.0]])).numpy().tolist() == [3.0, 3.0]


def test_what_a_function_alone_uses_is_saved_with_it(keep, tmp_path):
    """Variables and tables that it closes over, the object that it is a method of."""
    factor, model = tf.Variable(3.0), Served()
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [7]), -1)
    spec = tf.TensorSpec([None], tf.string, name="word")
    scaled = tf.function(lambda x: x * factor, input_signature=[ANY_BATCH])
    for function in (scaled, scaled.get_concrete_function()):
        np.testing.assert_array_equal(keep(function).pyfunc().predict(X), X * 3)
    np.testing.assert_array_equal(keep(model.serve).load()(X)["scaled"], X * 2)
    looks = keep(tf.function(lambda word: table[word], input_signature=[spec]))
    assert looks.pyfunc().predict(np.array(["a", "b"])).tolist() == [7, -1]


def test_functions_of_a_loaded_model_are_saved_again(keep):
    """A restored function, and a signature, which is one too."""
    loaded = keep(Served()).load()
    np.testing.assert_array_equal(keep(loaded.serve).pyfunc().predict(X)["scaled"], X * 2)
    alone = keep(loaded.signatures["serving_default"])
    np.testing.assert_array_equal(alone.pyfunc().predict({"x": X})["scaled"], X * 2)


def test_a_function_that_was_never_called_has_nothing_to_save(keep):
    """The error says how it gets a graph, and carries the function."""
    function = tf.function(lambda x: x)
    with pytest.raises(SaveError, match=r"never called.*Call it once.*input_signature") as caught:
        keep(function)
    assert caught.value.value is function


def test_what_does_not_hang_on_the_model_is_named_as_the_reason(keep, tmp_path):
    """TensorFlow's words come with the cure."""
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    with pytest.raises(SaveError, match=r"does not hang on it .*self\.table = table"):
        keep(Looks(words, holds=False))


def test_a_table_travels_with_its_file(keep, tmp_path):
    """The file that it was read from is an asset of the SavedModel."""
    words = tmp_path / "words.txt"
    words.write_text("a\nb\n")
    kept = keep(Looks(words))
    words.unlink()
    asked = np.array(["b", "c"])
    assert kept.pyfunc().predict({"word": asked})["output_0"].tolist() == [1, -1]
    kept.folder.joinpath("tf2model/assets/words.txt").unlink()
    with pytest.raises(LoadError, match=r"assets/words\.txt is missing"):
        kept.load()


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("saved_model.pb", r"saved_model\.pb is not there"),
        ("variables/variables.index", r"variables/variables\.index is missing"),
        ("variables/variables.data-00000-of-00001", r"variables\.data-00000-of-00001 is missing"),
    ],
)
def test_a_saved_model_that_lost_a_part_names_it(keep, part, says):
    """Before TensorFlow is asked to make sense of it."""
    kept = keep(Callable())
    kept.folder.joinpath("tf2model", part).unlink()
    with pytest.raises(LoadError, match=says):
        kept.load()


@pytest.mark.parametrize("content", [b"", b"\xff" * 64], ids=["empty", "garbage"])
def test_a_saved_model_whose_graph_is_damaged(keep, content):
    """An empty file is one that holds no graph."""
    kept = keep(Callable())
    kept.folder.joinpath("tf2model/saved_model.pb").write_bytes(content)
    with pytest.raises(LoadError, match=r"saved_model\.pb is damaged"):
        kept.load()


def test_a_saved_model_whose_variables_are_cut_short(keep):
    """What only reading finds is TensorFlow's to say."""
    kept = keep(Callable())
    kept.folder.joinpath("tf2model/variables/variables.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(LoadError, match="can't be read"):
        kept.load()


def test_a_missing_saved_model_is_a_load_error(tmp_path):
    """A folder without the SavedModel is named."""
    with pytest.raises(LoadError, match="can't be read"):
        saver_registry.by_name("saved_model").load(tmp_path, {})
