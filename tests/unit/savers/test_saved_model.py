"""SavedModels: the way in that the MLmodel names is one that stock MLflow can go."""

import mlflow.tensorflow
import numpy as np
import pandas as pd
import pytest

from mlwrap import savers
from mlwrap._journal import Signature, TensorSpec
from mlwrap.errors import LoadError, MlwrapWarning
from mlwrap.savers import _signature

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


def test_a_call_with_two_forms_has_no_single_signature(keep):
    """Without an input signature the traces tell; those that differ in ``training`` only are one form."""
    model = Traced()
    model(tf.zeros([1, 3]))
    model.__call__.get_concrete_function(tf.TensorSpec([None, 3]), training=True)
    model.__call__.get_concrete_function(tf.TensorSpec([None, 3]))
    kept = keep(model)
    # Batches of one and of any size were traced: two forms, and no single signature for them.
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
    """MLflow wants a free batch axis; where the graph has none there is no signature."""
    model = Traced()
    model(X)
    kept = keep(model)
    assert kept.saved.signature is None
    np.testing.assert_array_equal(kept.pyfunc().predict(X)["scaled"], X * 2)


@pytest.mark.parametrize("make", [Served, trackable], ids=["module", "AutoTrackable"])
def test_without_a_call_the_signature_is_the_way_in(keep, make):
    """``tf1-estimator`` feeds a named signature, from a dictionary or a DataFrame."""
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
    spec = _signature.specs(tf.TensorSpec([None], tf.string))
    assert spec == (TensorSpec(dtype="str", shape=(-1,)),)
    for odd in (
        tf.TensorSpec([None], tf.bfloat16),
        tf.TensorSpec(None, tf.float32),
        tf.TensorSpec([], tf.float32),
        tf.RaggedTensorSpec([None, None], tf.float32),
        tf.SparseTensorSpec([None, 3], tf.float32),
    ):
        with pytest.raises(_signature.Unknown):
            _signature.specs(odd)


def test_text_goes_in(keep):
    """A signature of text feeds stock MLflow with text."""

    class Length(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def serve(self, text):
            return {"length": tf.strings.length(text)}

    predicted = keep(Length()).pyfunc().predict({"text": np.array(["a", "abc"])})
    assert list(predicted["length"]) == [1, 3]


def test_tensorflows_own_helpers_are_not_models():
    """Random generators, variables, functions and datasets are trackable, and no model."""
    for value in (
        tf.random.Generator.from_seed(1),
        tf.Variable([1.0]),
        tf.constant([1.0]),
        tf.function(lambda: 1),
        tf.data.Dataset.range(3),
    ):
        assert savers.find(value) is None


def test_a_missing_saved_model_is_a_load_error(tmp_path):
    """A folder without the SavedModel is named."""
    with pytest.raises(LoadError, match="can't be read"):
        savers.by_name("saved_model").load(tmp_path, {})
