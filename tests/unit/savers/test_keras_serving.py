"""The forms of a Keras model beside its ``.keras`` file: a SavedModel that serves, and weights alone."""

import numpy as np
import pytest

from mlwrap import savers
from mlwrap._savers import saver_registry
from mlwrap._savers.saver_interface import naming
from mlwrap._savers.tensorflow.saved_model_proto import check_saved_model
from mlwrap.errors import LoadError, MlwrapWarning

tf = pytest.importorskip("tensorflow")
X = np.arange(12, dtype="float32").reshape(3, 4) / 12


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request):
    """Each Keras that is installed here."""
    return pytest.importorskip(request.param, reason=f"{request.param} is not in this environment")


@pytest.fixture
def keras_3(keras):
    """Only Keras 3."""
    if not keras.__version__.startswith("3."):
        pytest.skip("of Keras 3")
    return keras


def block(keras):
    """A layer as published code has it: not registered, no ``**kwargs``, no ``get_config``."""

    class Block(keras.layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.dense = keras.layers.Dense(units)

        def call(self, x):
            return self.dense(x) + 1.0

        def get_config(self):
            return {**super().get_config(), "units": 2}

    return Block


def with_block(keras):
    """A functional model with such a layer, compiled with a loss of its own."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, block(keras)(2)(inputs))

    def own_loss(y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred), axis=-1)

    model.compile("adam", own_loss)
    model.fit(X, X[:, :2], verbose=0)
    return model


def net(keras, outputs=1):
    """A subclassed model with an argument that no configuration can hold."""

    class Net(keras.Model):
        def __init__(self, activation):
            super().__init__()
            self.hidden = keras.layers.Dense(3, activation)
            self.heads = [keras.layers.Dense(number + 1) for number in range(outputs)]

        def call(self, x):
            hidden = self.hidden(x)
            found = [head(hidden) for head in self.heads]
            return found[0] if len(found) == 1 else found

        def get_config(self):
            raise NotImplementedError("Please implement get_config")

    return Net(lambda x: x)


def pair(keras, **options):
    """A model of two models, trained by a ``train_step`` of its own and never called."""

    @keras.saving.register_keras_serializable("tests")
    class Pair(keras.Model):
        def __init__(self, encoder, decoder, **options):
            super().__init__(**options)
            self.encoder, self.decoder = encoder, decoder

        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self.decoder(self.encoder(data)) - data) ** 2)
            weights = self.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

        def get_config(self):
            parts = {"encoder": self.encoder, "decoder": self.decoder}
            return {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}

        @classmethod
        def from_config(cls, config):
            return cls(*map(keras.saving.deserialize_keras_object, (config["encoder"], config["decoder"])))

    layers = keras.layers
    encoder = keras.Sequential([layers.Input((4,)), layers.Dense(2)])
    model = Pair(encoder, keras.Sequential([layers.Input((2,)), layers.Dense(4)]))
    model.compile("adam")
    model.fit(X, verbose=0)
    return model


def kept_with_warning(keep, model, words, **options):
    """Keep a model that something is said of."""
    with pytest.warns(MlwrapWarning, match=words):
        return keep(model, **options)


def test_a_plain_model_has_no_serving_form(keras, keep):
    """It costs no byte: the ``.keras`` file serves."""
    kept = keep(keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)]))
    assert not (kept.folder / "serving").exists()


def test_a_layer_of_the_script_is_served(keras, keep):
    """The message says at once all that has to be done to load it: decorate, move, ``**kwargs``, trust."""
    model = with_block(keras)
    words = r"(?s)SavedModel.*find .*Block.*register_keras_serializable.*module of its own.*\*\*kwargs.*trust"
    kept = kept_with_warning(keep, model, words)
    check_saved_model(kept.folder / "serving" / "model", trust=False)
    np.testing.assert_allclose(kept.pyfunc().predict(X), model.predict(X, verbose=0), rtol=1e-5)
    with pytest.raises(LoadError, match="Block"):
        kept.load()


def test_a_registered_layer_without_kwargs_is_named(keras, keep):
    """Keras finds it, and can't make it of what it wrote."""
    registered = keras.saving.register_keras_serializable("tests")(block(keras))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, registered(2)(inputs))
    kept = kept_with_warning(keep, model, r"__init__\(\) does not take .*'trainable'")
    np.testing.assert_allclose(kept.pyfunc().predict(X), model.predict(X, verbose=0), rtol=1e-5)


def test_weights_are_kept_where_the_model_cannot_be_written(keras, keep):
    """They come back into a model that the code builds, and into nothing else."""
    model = net(keras)
    model.compile("adam", "mse")
    model.fit(X, X[:, :1], verbose=0)
    kept = kept_with_warning(keep, model, r"(?s)weights are kept.*into=model.*SavedModel.*get_config\(\)")
    again = net(keras)
    again(X)
    assert kept.load(into=again) is again
    for expected, found in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(LoadError, match="into="):
        kept.load()
    with pytest.raises(LoadError, match="do not fit"):
        kept.load(into=keras.Sequential([keras.layers.Input((9,)), keras.layers.Dense(9)]))
    np.testing.assert_allclose(kept.pyfunc().predict(X), model.predict(X, verbose=0), rtol=1e-5)


def test_a_whole_model_is_restored_into_one(keras, keep):
    """``into=`` takes the weights of any Keras model."""
    layers = keras.layers
    model, again = (keras.Sequential([layers.Input((4,)), layers.Dense(2)]) for _ in range(2))
    assert keep(model).load(into=again) is again
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_a_model_that_was_only_fitted_is_saved(keras, keep):
    """Its ``train_step`` trained parts of it; nobody called it."""
    model = pair(keras)
    kept = kept_with_warning(keep, model, "Pair is registered here.*never called")
    for expected, found in zip(model.get_weights(), kept.load().get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_of_a_model_that_was_only_fitted_and_has_no_config_are_kept(keras, keep):
    """A VAE is made of its parts: Keras can't write it, and refuses the weights of what nobody called."""

    def fitted():
        model = pair(keras)

        def get_config(self):
            raise NotImplementedError("Object VAE was created by passing non-serializable argument values")

        type(model).get_config = get_config
        return model

    model, again = fitted(), fitted()
    kept = kept_with_warning(keep, model, r"(?s)weights are kept.*into=model.*never called")
    assert kept.load(into=again) is again
    assert not again.built
    for expected, found in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("names", [False, True], ids=["list", "dictionary"])
def test_several_outputs_come_whole(keras, keep, names):
    """Each with its own shape, one of one column too; nothing more is written for it."""
    inputs = keras.Input((4,))
    outputs = {"actor": keras.layers.Dense(2, name="actor")(inputs), "critic": keras.layers.Dense(1)(inputs)}
    model = keras.Model(inputs, outputs if names else list(outputs.values()))
    kept = keep(model)
    assert not (kept.folder / "serving").exists()
    expected, found = model.predict(X, verbose=0), kept.pyfunc().predict(X)
    for key in expected if names else range(2):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-5)
        assert np.shape(found[key]) == np.shape(expected[key])


def test_several_outputs_of_the_scripts_class_have_names(keras_3, keep):
    """``output_0`` and so on, as far as nothing better is known."""
    model = net(keras_3, outputs=2)
    expected = model.predict(X, verbose=0)
    found = kept_with_warning(keep, model, "weights are kept").pyfunc().predict(X)
    assert set(found) == {"output_0", "output_1"}
    for number, wanted in enumerate(expected):
        assert type(found[f"output_{number}"]) is np.ndarray  # MLflow's server can't write tensors
        np.testing.assert_allclose(found[f"output_{number}"], wanted, rtol=1e-5)


@pytest.mark.parametrize("several", [False, True], ids=["one output", "two outputs"])
def test_several_inputs_of_the_scripts_class_are_fed_by_name(keras_3, keep, several):
    """By a dictionary, as the model's own ``predict``."""
    keras = keras_3
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    first = block(keras)(2)(keras.layers.add([a, b]))
    model = keras.Model({"a": a, "b": b}, {"p": first, "q": keras.layers.Dense(1)(b)} if several else first)
    kept = kept_with_warning(keep, model, "SavedModel")
    feed = {"a": X, "b": X + 1}
    expected, found = model.predict(feed, verbose=0), kept.pyfunc().predict(feed)
    if several:
        for key in expected:
            assert found[key].shape == expected[key].shape  # one column, too
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-5)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_text_is_served(keras_3, keep):
    """Keras 3 takes no text of numpy's: a SavedModel does."""
    keras = keras_3
    layer = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=3)
    layer.adapt(["a great movie", "an awful plot"])
    embedded = keras.layers.Embedding(9, 2)
    model = keras.Sequential(
        [keras.layers.Input((1,), dtype="string"), layer, embedded, keras.layers.Flatten()]
    )
    words = np.array([["a great movie"], ["plot"]])
    kept = keep(model)
    expected = model.predict(tf.constant(words), verbose=0)
    np.testing.assert_allclose(kept.pyfunc().predict(words), expected, rtol=1e-5)
    np.testing.assert_array_equal(kept.load().predict(tf.constant(words), verbose=0), expected)


def test_a_model_with_python_code_in_its_graph_has_no_serving_form(keras_3, keep):
    """No other process has that code: it is said, and nothing is left of it."""
    keras = keras_3

    class Outside(keras.layers.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(lambda a: 2 * a, [x], tf.float32), x.shape)

    inputs = keras.Input((4,))
    kept = kept_with_warning(keep, keras.Model(inputs, Outside()(inputs)), "runs Python code")
    assert not (kept.folder / "serving").exists()


def test_messages_name_the_model_and_the_run(keras, tmp_path):
    """Of several models and runs it is clear which one is meant."""
    model = with_block(keras)
    with naming("calm-fox", "critic"), pytest.warns(MlwrapWarning, match="'critic' of run 'calm-fox'"):
        saver_registry.find(model).save(model, tmp_path, savers.SaveOptions())


def test_feature_columns_are_served(keras, keep):
    """Keras 2 can't build such a model again of its configuration."""
    if not hasattr(keras.layers, "DenseFeatures"):
        pytest.skip("of Keras 2")
    column = tf.feature_column.bucketized_column(tf.feature_column.numeric_column("age"), [30, 40])
    model = keras.Sequential([keras.layers.DenseFeatures([column]), keras.layers.Dense(1)])
    feed = {"age": np.array([25.0, 33.0, 50.0], "float32")}
    model.compile("adam", "mse")
    model.fit(feed, np.ones(3), verbose=0)
    kept = kept_with_warning(keep, model, r"feature columns.*FeatureSpace.*into=model")
    np.testing.assert_allclose(kept.pyfunc().predict(feed), model.predict(feed, verbose=0), rtol=1e-5)
