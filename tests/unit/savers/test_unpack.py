"""Taking returned values apart: as people return them."""

import dataclasses
import math
from collections import OrderedDict, UserDict, deque
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwrap import savers
from mlwrap._journal import Metrics
from mlwrap.errors import MlwrapWarning
from mlwrap.savers import _registry, unpack


class Model:
    """Stands for a model of some kind; remembers one epoch."""

    def __init__(self, loss=None, history=None):
        self.loss = loss
        self.history = history


class ModelSaver:
    """Knows models, and what they remember."""

    name = "model"
    format = 1
    default_name = "model"
    frameworks = ("sys",)

    def matches(self, value):
        return isinstance(value, Model)

    def save(self, value, folder, options):
        raise NotImplementedError

    def metrics(self, value):
        if value.loss == "broken":
            raise OSError("gone")
        return () if value.loss is None else [Metrics.of({"loss": value.loss}, step=4, time=1)]

    def load(self, folder, details, *, into=None, trust=False):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _with_models(monkeypatch):
    monkeypatch.setattr(_registry, "_savers", [ModelSaver(), *_registry._savers])


class Scores(NamedTuple):
    """Named results."""

    loss: float
    accuracy: float


@dataclasses.dataclass
class Result:
    """A result object."""

    model: Model
    scores: Scores


def numbers(unpacked):
    """All points, by name and step."""
    return {
        (name, record.step): value for record in unpacked.metrics for name, value in record.numbers().items()
    }


M = Model()

NUMBERS = {
    "a bare number": (0.5, {("result", 0): 0.5}),
    "an integer": (3, {("result", 0): 3.0}),
    "numpy": (np.float32(0.5), {("result", 0): 0.5}),
    "a 0-d array": (np.array(2, "int8"), {("result", 0): 2.0}),
    "a fraction": (Fraction(1, 2), {("result", 0): 0.5}),
    "a decimal": (Decimal("0.5"), {("result", 0): 0.5}),
    "named": ({"loss": 0.1, "acc": 0.9}, {("loss", 0): 0.1, ("acc", 0): 0.9}),
    "nested": ({"test": {"loss": 0.1}, "val": {"loss": 0.2}}, {("test/loss", 0): 0.1, ("val/loss", 0): 0.2}),
    "side by side": ((0.1, 0.9), {("result", 0): 0.1, ("result_2", 0): 0.9}),
    "beside a model": ((M, 0.9), {("result", 0): 0.9}),
    "a series": ({"loss": [3.0, 2.0, 1.0]}, {("loss", 0): 3.0, ("loss", 1): 2.0, ("loss", 2): 1.0}),
    "a named tuple": (Scores(0.1, 0.9), {("loss", 0): 0.1, ("accuracy", 0): 0.9}),
    "a dataclass": (Result(M, Scores(0.1, 0.9)), {("scores/loss", 0): 0.1, ("scores/accuracy", 0): 0.9}),
    "other mappings": (OrderedDict(a=UserDict(b=1)), {("a/b", 0): 1.0}),
    "keys that are no text": ({1: 0.5, (2, 3): 0.6}, {("1", 0): 0.5, ("(2, 3)", 0): 0.6}),
    "the same name twice": ([{"loss": 1}, {"loss": 2}], {("loss", 0): 1.0, ("loss_2", 0): 2.0}),
    "infinity": ({"loss": math.inf}, {("loss", 0): math.inf}),
    "no numbers": ([None, True, "0.5", b"1", np.bool_(True), np.str_("a")], {}),
}


@pytest.mark.parametrize(("value", "expected"), NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_become_metrics(value, expected):
    """By the names of their keys, at step 0 or as a series; nothing of it is unknown."""
    unpacked = unpack(value)
    assert numbers(unpacked) == expected
    assert unpacked.unknown == []


MODELS = {
    "alone": (M, ["model"]),
    "in a tuple": ((M, None), ["model"]),
    "by key": ({"generator": Model(), "critic": Model()}, ["generator", "critic"]),
    "by nested key": ({"gan": {"generator": Model()}}, ["gan_generator"]),
    "several without a name": ([Model(), Model(), Model()], ["model", "model_2", "model_3"]),
    "several under one key": ({"member": [Model(), Model()]}, ["member", "member_2"]),
    "the same object twice": ((M, {"best": M}), ["model"]),
    "a key that is no name": ({"a/b: 50%": Model()}, ["a_b_ 50_"]),
    "in a dataclass": (Result(M, Scores(0, 1)), ["model"]),
    "in a deque": (deque([M]), ["model"]),
    "in a set": ({M}, ["model"]),
    "none": (None, []),
}


@pytest.mark.parametrize(("value", "names"), MODELS.values(), ids=MODELS.keys())
def test_models_get_distinct_names(value, names):
    """From their keys, or from their kind."""
    found = unpack(value).models
    assert [model.name for model in found] == names
    assert all(isinstance(model.value, Model) and model.saver.name == "model" for model in found)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (M, ["mine"]),
        ({"m": M}, ["mine"]),
        ((Model(), Model()), ["mine", "mine_2"]),
        ({"a": M, "b": Model()}, ["a", "b"]),
    ],
)
def test_a_given_name_is_for_the_single_model(value, names):
    """Of several it names those that have no key."""
    assert [model.name for model in unpack(value, name="mine").models] == names


def test_metrics_of_models_keep_their_names_if_there_is_one_training():
    """Only where several trainings meet does each get its model's name."""
    assert numbers(unpack({"model": Model(loss=0.5), "other": Model()})) == {("loss", 4): 0.5}
    several = unpack({"generator": Model(loss=0.5), "critic": Model(loss=0.25)})
    assert numbers(several) == {("generator/loss", 4): 0.5, ("critic/loss", 4): 0.25}


def test_a_model_whose_metrics_fail_still_counts():
    """Event files may lie on a disk that went away."""
    with pytest.warns(MlwrapWarning, match="could not read the metrics of a Model: OSError: gone"):
        unpacked = unpack((Model(loss="broken"), 0.5))
    assert len(unpacked.models) == 1
    assert numbers(unpacked) == {("result", 0): 0.5}


def test_the_unknown_is_told_with_its_place_once_for_each_type():
    """A warning can say what lies where."""
    value = {"data": [object(), object(), 1.0], "ns": SimpleNamespace(), "array": np.zeros(3)}
    assert unpack(value).unknown == [
        ("['data'][0]", "builtins.object"),
        ("['ns']", "types.SimpleNamespace"),
        ("['array']", "numpy.ndarray"),
    ]
    assert unpack(object()).unknown == [("the returned value", "builtins.object")]


def test_circles_and_depth_come_to_an_end():
    """A list that holds itself, and ten thousand lists in each other."""
    circle = [1.0, "a"]
    circle.append(circle)
    assert numbers(unpack(circle)) == {("result", 0): 1.0}
    deep = 0.5
    for _ in range(10_000):
        deep = [deep, None]
    assert numbers(unpack(deep)) == {("result", 0): 0.5}


def test_a_container_that_breaks_is_unknown():
    """What can't be opened is told, not raised."""

    class Broken(UserDict):
        def __iter__(self):
            raise RuntimeError("no")

    unpacked = unpack((Broken(), 10**400, 0.5))
    assert numbers(unpacked) == {("result", 0): 0.5}
    assert [kind.rpartition(".")[2] for _, kind in unpacked.unknown] == ["Broken", "int"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3) | st.floats() | st.integers() | st.binary(max_size=2),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=20,
    )
)
def test_every_number_counts_once_however_it_is_nested(value):
    """As many points as numbers, and never an exception."""

    def count(item):
        if isinstance(item, dict):
            return sum(map(count, item.values()))
        if isinstance(item, list):
            return sum(map(count, item))
        return isinstance(item, int | float) and not isinstance(item, bool)

    points = [name for record in unpack(value).metrics for name in record.values]
    assert len(points) == count(value)
    assert unpack(value).unknown == []


class TestWithKeras:
    """Histories, tensors and variables, of every Keras that is here."""

    @pytest.fixture(params=["keras", "tf_keras"])
    def keras(self, request):
        pytest.importorskip("tensorflow")
        return pytest.importorskip(request.param, reason=f"{request.param} is not in this environment")

    @staticmethod
    def trained(keras):
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model, model.fit(np.zeros((4, 2)), np.ones((4, 1)), epochs=3, verbose=0)

    def test_model_and_history_count_once(self, keras):
        """The history that is returned is the one that the model keeps."""
        model, history = self.trained(keras)
        expected = {("loss", step): value for step, value in enumerate(history.history["loss"])}
        for value in (model, (model, history), {"history": history, "model": model}, history):
            assert numbers(unpack(value)) == expected
        assert numbers(unpack((model, history.history)))["loss", 2] == history.history["loss"][2]

    def test_two_trainings_are_told_apart(self, keras):
        """Two models, or the same model fitted twice with the first history kept."""
        (one, first), (two, second) = self.trained(keras), self.trained(keras)
        named = unpack({"generator": (one, first), "critic": (two, second)})
        assert {name for name, _ in numbers(named)} == {"generator/loss", "critic/loss"}
        assert {name for name, _ in numbers(unpack((one, two)))} == {"keras_model/loss", "keras_model_2/loss"}
        again = one.fit(np.zeros((4, 2)), np.ones((4, 1)), verbose=0)
        names = {name for name, _ in numbers(unpack((one, first, again)))}
        assert names == {"keras_model/loss", "history/loss"}

    def test_a_history_that_somebody_changed_gives_what_is_still_numbers(self, keras):
        """The dictionary of a history is the user's to write into."""
        model, history = self.trained(keras)
        history.history.update(note="good", seconds=[1, None, "3"], empty=[], n=5)
        points = numbers(unpack((model, history)))
        assert {name for name, _ in points} == {"loss", "seconds"}
        assert points["seconds", 0] == 1.0

    def test_tensors_and_variables_are_numbers_if_they_are_scalars(self, keras):
        """What has axes is not a metric; what is a boolean or text is not a number."""
        tf = pytest.importorskip("tensorflow")
        value = {
            "tensor": tf.constant(0.5),
            "half": tf.constant(0.5, tf.bfloat16),
            "variable": tf.Variable(3),
            "keras": keras.Variable(2.0) if hasattr(keras, "Variable") else tf.Variable(2.0),
        }
        assert numbers(unpack(value)) == {
            ("tensor", 0): 0.5,
            ("half", 0): 0.5,
            ("variable", 0): 3.0,
            ("keras", 0): 2.0,
        }
        others = unpack([tf.constant(True), tf.constant("0.5"), tf.constant([1.0])])
        assert others.metrics == []
        assert len(others.unknown) == 1

    def test_a_model_of_the_users_own_containers(self, keras):
        """TensorFlow's wrappers around tracked containers are opened like the containers."""
        tf = pytest.importorskip("tensorflow")
        module = tf.Module()
        module.scores = {"loss": 0.5, "series": [1.0, 2.0]}
        expected = {("loss", 0): 0.5, ("series", 0): 1.0, ("series", 1): 2.0}
        assert numbers(unpack(module.scores)) == expected

    def test_the_saver_is_the_one_for_the_kind(self, keras):
        """A Keras model is saved by the Keras saver, whichever Keras it is of."""
        model, _ = self.trained(keras)
        assert unpack(model).models == [savers.Found("keras_model", model, savers.by_name("keras"))]
