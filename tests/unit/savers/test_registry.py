"""The registry: who is asked, in which order, and what it takes to become a saver."""

import subprocess
import sys

import pytest

from mlwrap import savers
from mlwrap.errors import LoadError, MlwrapWarning, OptionError
from mlwrap.savers import _registry


class Box:
    """Something of a user's own."""


class BoxSaver:
    """The least that is a saver."""

    name = "box"
    format = 1
    default_name = "box"
    frameworks = ("sys",)

    def matches(self, value):
        return isinstance(value, Box)

    def save(self, value, folder, options):
        raise NotImplementedError

    def metrics(self, value):
        return ()

    def load(self, folder, details, *, into=None, trust=False):
        return Box()


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setattr(_registry, "_savers", list(_registry._savers))


def variant(**attributes):
    """A box saver with something changed."""
    return type("Variant", (BoxSaver,), attributes)()


def test_importing_the_room_loads_nothing_heavy():
    """Neither a framework nor MLflow comes along."""
    code = (
        "import sys, mlwrap.savers as s; s.unpack({'a': 1.0, 'b': object()}); "
        "print(sorted({'tensorflow', 'keras', 'tf_keras', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_registered_saver_is_found_by_value_and_by_name():
    """It is asked first, and its name leads back to it."""
    assert savers.find(Box()) is None
    saver = BoxSaver()
    savers.register(saver)
    assert isinstance(saver, savers.Saver)
    assert savers.find(Box()) is saver is savers.by_name("box")
    assert savers.kinds()[:5] == ["box", "keras", "checkpoint", "estimator", "saved_model"]


def test_the_newest_wins():
    """One of the same name takes the other's place; one that fits as well is asked first."""
    savers.register(BoxSaver())
    newer, other = BoxSaver(), variant(name="other")
    savers.register(newer)
    assert savers.find(Box()) is newer
    savers.register(other)
    assert savers.find(Box()) is other
    assert savers.kinds().count("box") == 1


@pytest.mark.parametrize(
    ("saver", "says"),
    [
        (variant(name=""), "'name' must be a name"),
        (variant(format=0), "'format' must be the number of its layout, from 1, got 0"),
        (variant(format=True), "'format' must be"),
        (variant(default_name=None), "'box' .*'default_name' must be"),
        (variant(frameworks="tensorflow"), "'frameworks' must be top-level module names"),
        (variant(frameworks=(1,)), "'frameworks' must be"),
        (variant(load=None), r"'box' \(Variant\) is no saver: it has no method load\(\)"),
        (BoxSaver, "it is a class, expected an instance"),
        (object(), r"A object is no saver: .*'name' must be.*no method matches\(\)"),
    ],
)
def test_what_is_no_saver_is_refused_at_the_door(saver, says):
    """The error names the saver and everything that is wrong."""
    with pytest.raises(OptionError, match=says):
        savers.register(saver)
    assert "box" not in savers.kinds()


def test_an_unknown_name_says_what_there_is():
    """Loading a model of a saver that is not here says what to do."""
    with pytest.raises(LoadError, match=r"'orbax'; known here are keras, checkpoint.*register_saver"):
        savers.by_name("orbax")


def test_a_saver_that_fails_to_answer_is_passed_over():
    """A foreign saver's bug costs a warning, not the training."""

    def matches(self, value):
        raise RuntimeError("oops")

    savers.register(BoxSaver())
    savers.register(variant(name="broken", matches=matches))
    with pytest.warns(MlwrapWarning, match="'broken' failed.*RuntimeError: oops"):
        assert savers.find(Box()).name == "box"


def test_a_saver_is_asked_only_if_its_framework_is_there():
    """Nothing is imported to find out what an object is."""
    savers.register(variant(frameworks=("a_framework_nobody_imported",)))
    assert savers.find(Box()) is None
