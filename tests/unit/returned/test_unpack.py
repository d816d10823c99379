"""Taking returned values apart: as people return them."""

import dataclasses
import enum
import math
import os
import time
from collections import OrderedDict, UserDict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import NamedTuple

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwrap._journal.names import artifact_path
from mlwrap._journal.records import Metrics
from mlwrap._returned.unpack import FoundModel, unpack
from mlwrap._savers import saver_registry
from mlwrap.errors import MlwrapWarning


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
    monkeypatch.setattr(saver_registry, "_savers", [ModelSaver(), *saver_registry._savers])


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


@attrs.define(slots=False)
class Attributes:
    """A result object of attrs."""

    predictions: object
    score: object


class Phase(str, enum.Enum):
    """Text that is an enumeration."""

    TRAINED = "trained"


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
    "no numbers": ([None, True, "0.5", np.bool_(True), np.str_("a")], {}),
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
    value = {"data": [object(), object(), 1.0], "ns": SimpleNamespace(), "range": range(3)}
    assert unpack(value).unknown == [
        ("['data'][0]", "builtins.object"),
        ("['ns']", "types.SimpleNamespace"),
        ("['range']", "builtins.range"),
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


def outputs(unpacked):
    """Paths of all artifacts, with the text of those that are text."""
    return {path: content if isinstance(content, str) else ... for path, content in unpacked.outputs}


LONG = "word " * 60
TEXTS = {
    "a note to the caller": ("done", {}, {}),
    "one line with a key": ({"best": "relu"}, {"best": "relu"}, {}),
    "nested keys": ({"best": {"activation": "relu"}}, {"best/activation": "relu"}, {}),
    "an enumeration's text": ({"phase": Phase.TRAINED}, {"phase": "trained"}, {}),
    "several lines": ({"report": "a\nb"}, {}, {"report.txt": "a\nb"}),
    "a long line": ({"report": LONG}, {}, {"report.txt": LONG}),
    "a long text without a key": ((M, LONG), {}, {"text.txt": LONG}),
    "a key with the ending": ({"report.txt": LONG}, {}, {"report.txt": LONG}),
    "a list of texts": ({"classes": ["cat", "dog"]}, {}, {"classes.txt": "cat\ndog"}),
    "a list of one": ({"classes": ["cat"]}, {"classes": "cat"}, {}),
    "texts side by side": ({"pair": ("a", "b")}, {"pair": "a", "pair_2": "b"}, {}),
    "a tag that is MLflow's": ({"mlflow.user": "me"}, {}, {"mlflow.user.txt": "me"}),
    "a tag that is ours": ({"mlwrap.key": "x"}, {}, {"mlwrap.key.txt": "x"}),
    "the same text twice": ({"a": "x", "b": "x"}, {"a": "x", "b": "x"}, {}),
    "the name of a file that is not ours": ({"config": "/etc/hostname"}, {"config": "/etc/hostname"}, {}),
    "a folder": ({"data_dir": "/tmp", "root": "/"}, {"data_dir": "/tmp", "root": "/"}, {}),
}


@pytest.mark.parametrize(("value", "tags", "files"), TEXTS.values(), ids=TEXTS.keys())
def test_texts_become_tags_or_files(value, tags, files):
    """A word under a key is seen at first sight; a report is a file; a note to the caller is nothing."""
    unpacked = unpack(value, since=time.time() + 1)
    assert unpacked.tags == tags
    assert outputs(unpacked) == files
    assert unpacked.unknown == []


A, B = np.zeros(3), np.ones((2, 2))
PLACES = {
    "alone": (A, ["array.npy"]),
    "by key": ({"predictions": A}, ["predictions.npy"]),
    "by nested keys": ({"test": {"predictions": A}}, ["test/predictions.npy"]),
    "a key with a slash": ({"test/predictions": A}, ["test/predictions.npy"]),
    "a key with the ending": ({"x.npy": A}, ["x.npy"]),
    "several under one key": ({"x": (A, B)}, ["x.npy", "x_2.npy"]),
    "the same key twice": ([{"x": A}, {"x": B}], ["x.npy", "x_2.npy"]),
    "the same object twice": ({"x": A, "y": A}, ["x.npy"]),
    "a key that leads elsewhere": ({"../../x": A, "/y": B}, ["x.npy", "y.npy"]),
    "a key that is no name": ({"a:b%?": A, "": B, ".": b"1"}, ["a_b_.npy", "array.npy", "_.bin"]),
    "a very long key": ({"x" * 300: A}, ["x" * 60 + ".npy"]),
    "a name that a run has itself": ({"traceback": LONG, "params.json": b"1"}, None),
    "bytes": ((b"1", bytearray(b"2"), memoryview(b"3")), ["data.bin", "data_2.bin", "data_3.bin"]),
    "an attrs class": (Attributes(A, 0.5), ["predictions.npy"]),
    "a number of one axis": ({"x": np.ones(1)}, ["x.npy"]),
    "objects": ({"x": np.array([None, 1])}, ["x.npy"]),
}


@pytest.mark.parametrize(("value", "paths"), PLACES.values(), ids=PLACES.keys())
def test_results_get_distinct_paths(value, paths):
    """From their keys, or from their kind; none that the run itself needs."""
    unpacked = unpack(value)
    if paths is None:
        paths = ["params.json.bin", "traceback_2.txt"]
    assert list(outputs(unpacked)) == paths
    assert unpacked.unknown == []


def test_no_path_leads_through_another():
    """A file can't be a folder, too."""
    value = [{"a.npy": {"b": A}}, {"a": B}, {"a.npy": {"c": np.ones(1)}}]
    paths = list(outputs(unpack(value)))
    assert len(paths) == len(set(paths)) == 3
    for one in paths:
        assert not any(other.startswith(f"{one}/") for other in paths)


def test_no_path_is_a_models_name():
    """Nor leads through one: a server without logged models has them among the artifacts."""
    unpacked = unpack([{"best": M}, {"best": PurePosixPath("x/folder")}, {"best": {"x": A}}])
    assert [model.name for model in unpacked.models] == ["best"]
    assert list(outputs(unpacked)) == ["best_2", "best_x.npy"]


def test_an_attrs_class_is_opened():
    """Like a dataclass; the class itself is not a value."""
    assert numbers(unpack(Attributes(A, 0.5))) == {("score", 0): 0.5}
    assert unpack(Attributes).unknown == [("the returned value", "builtins.type")]


def test_more_than_a_thousand_results_or_a_hundred_words_are_data():
    """The first are kept, the others counted in the warning."""
    unpacked = unpack({f"x{number}": np.zeros(number + 1) for number in range(1003)})
    assert len(unpacked.outputs) == 1000
    assert unpacked.unknown == [("the returned value", "3 more results than the first 1,000")]
    labels = unpack({f"x{number}": "cat" for number in range(101)})
    assert list(labels.tags.values()) == ["cat"] * 100
    assert labels.unknown == [("the returned value", "1 more texts than the first 100")]


class TestPaths:
    """Which texts are paths, and how often one counts."""

    @pytest.fixture
    def made(self, tmp_path):
        """A file, a folder, and a checkpoint, as far as their names tell."""
        (tmp_path / "out").mkdir()
        for name in ("out/scores", "roc.png", "ckpt-3.index", "word"):
            (tmp_path / name).write_bytes(b"1")
        return tmp_path

    def test_a_path_is_a_path(self, made):
        """Whatever it leads to; under a key it has the key's name, and keeps its ending."""
        unpacked = unpack({"curve": made / "roc.png", "all": made / "out", "gone": made / "gone.tar.gz"})
        assert list(outputs(unpacked)) == ["curve.png", "all", "gone.tar.gz"]
        assert list(outputs(unpack([made / "roc.png", made / "gone.tar.gz"]))) == ["roc.png", "gone.tar.gz"]

    def test_the_same_path_counts_once(self, made):
        """As another object, relative, or as text."""
        value = [made / "roc.png", {"again": made / "out" / ".." / "roc.png"}, str(made / "roc.png")]
        assert list(outputs(unpack(value))) == ["roc.png"]

    def test_a_text_is_a_path_if_what_it_names_is_new(self, made, monkeypatch):
        """A file with a separator or an ending in its name, or a model."""
        monkeypatch.chdir(made)
        texts = ["out/scores", "roc.png", str(made / "out" / "scores"), "word", "out", "gone.png", "ckpt-3"]
        unpacked = unpack({str(number): text for number, text in enumerate(texts)})
        assert list(outputs(unpacked)) == ["0", "1.png"]
        assert unpacked.tags == {"3": "word", "4": "out", "5": "gone.png"}
        assert [(model.name, model.saver.name) for model in unpacked.models] == [("6", "checkpoint_files")]
        later = unpack({str(number): text for number, text in enumerate(texts)}, since=time.time() + 60)
        assert later.outputs == []
        assert list(later.tags.values()) == texts

    def test_a_list_of_texts_with_a_path_in_it(self, made):
        """Is no text of several lines."""
        unpacked = unpack({"files": [str(made / "roc.png"), "note"]})
        assert list(outputs(unpacked)) == ["files.png"]
        assert unpacked.tags == {"files": "note"}

    def test_odd_paths_do_no_harm(self):
        """Nothing is asked that could raise."""

        class Broken(os.PathLike):
            def __fspath__(self):
                raise RuntimeError("no")

        odd = ["\0", "a\0b/", "/" * 5000, "\udcff/\ud800", b"\xff/", "~/x", ".", "/", "//"]
        unpacked = unpack([{"x": text} for text in odd] + [Broken(), PurePosixPath("x/\0")])
        assert [kind.rpartition(".")[2] for _, kind in unpacked.unknown] == ["Broken"]
        assert unpacked.models == []


LEAVES = (
    st.none()
    | st.booleans()
    | st.text(max_size=3)
    | st.floats()
    | st.integers()
    | st.binary(max_size=2)
    | st.builds(Model)
    | st.builds(np.zeros, st.integers(1, 3))
    | st.builds(PurePosixPath, st.text("ab./", min_size=1, max_size=4))
    | st.builds(object)
)
KEYS = st.text("ab/. _%é", max_size=3) | st.integers()
NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.tuples(inner, inner)
        | st.builds(Result, inner, inner)
        | st.builds(Attributes, inner, inner)
        | st.builds(Scores, inner, inner)
    ),
    max_leaves=25,
)


def walked(value):
    """All that is in it, each occurrence."""
    yield value
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    elif isinstance(value, Result | Attributes):
        inner = vars(value).values()
    else:
        inner = ()
    for item in inner:
        yield from walked(item)


@given(NESTED)
def test_everything_counts_once_however_it_is_nested(value):
    """As many points as numbers, each model once, names and paths distinct, and never an exception."""
    before = repr(value)
    unpacked = unpack(value)
    assert repr(value) == before
    things = list(walked(value))
    points = [name for record in unpacked.metrics for name in record.values]
    assert len(points) == sum(isinstance(x, int | float) and not isinstance(x, bool) for x in things)
    models = [found.value for found in unpacked.models]
    assert {id(model) for model in models} == {id(x) for x in things if isinstance(x, Model)}
    assert len(models) == len({id(model) for model in models})
    assert len({found.name for found in unpacked.models}) == len(models)
    arrays = {id(x) for x in things if isinstance(x, np.ndarray)}
    paths = [PurePosixPath(output.path) for output in unpacked.outputs]
    assert len(paths) == len(set(paths))
    assert sum(path.suffix == ".npy" for path in paths) >= len(arrays)
    for path in paths:
        assert artifact_path(str(path)) == path
        assert not set(path.parents) & set(paths)
    assert bool(unpacked.unknown) == any(type(x) is object for x in things)


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
        """Two models; the same model fitted twice is one training, unless its histories have keys."""
        (one, first), (two, second) = self.trained(keras), self.trained(keras)
        named = unpack({"generator": (one, first), "critic": (two, second)})
        assert {name for name, _ in numbers(named)} == {"generator/loss", "critic/loss"}
        assert {name for name, _ in numbers(unpack((one, two)))} == {"keras_model/loss", "keras_model_2/loss"}
        again = one.fit(np.zeros((4, 2)), np.ones((4, 1)), verbose=0)
        names = {name for name, _ in numbers(unpack((one, first, again)))}
        assert names == {"loss"}
        names = {name for name, _ in numbers(unpack((one, {"before": first})))}
        assert names == {"keras_model/loss", "before/loss"}

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
        assert unpack(model).models == [FoundModel("keras_model", model, saver_registry.by_name("keras"))]
