"""The registry: who is asked, in which order, and what it takes to become a saver."""

import subprocess
import sys

import pytest

from mlwrap import savers
from mlwrap._savers import saver_registry
from mlwrap.errors import LoadError, MlwrapWarning, OptionError, SaveError


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
    monkeypatch.setattr(saver_registry, "_savers", list(saver_registry._savers))


def variant(**attributes):
    """A box saver with something changed."""
    return type("Variant", (BoxSaver,), attributes)()


def test_importing_the_room_loads_nothing_heavy():
    """Neither a framework nor MLflow comes along."""
    code = (
        "import sys; from mlwrap._returned.unpack import unpack; unpack({'a': 1.0, 'b': object()}); "
        "print(sorted({'tensorflow', 'keras', 'tf_keras', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_registered_saver_is_found_by_value_and_by_name():
    """It is asked first, and its name leads back to it."""
    assert saver_registry.find(Box()) is None
    saver, before = BoxSaver(), saver_registry.saver_names()
    savers.register(saver)
    assert isinstance(saver, savers.Saver)
    assert saver_registry.find(Box()) is saver is saver_registry.by_name("box")
    assert saver_registry.saver_names() == ["box", *before]


def test_the_newest_wins():
    """One of the same name takes the other's place; one that fits as well is asked first."""
    savers.register(BoxSaver())
    newer, other = BoxSaver(), variant(name="other")
    savers.register(newer)
    assert saver_registry.find(Box()) is newer
    savers.register(other)
    assert saver_registry.find(Box()) is other
    assert saver_registry.saver_names().count("box") == 1


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
    assert "box" not in saver_registry.saver_names()


def test_an_unknown_name_says_what_there_is():
    """Loading a model of a saver that is not here says what to do."""
    with pytest.raises(
        LoadError, match=r"'orbax'; known here are .*keras, keras_layer, checkpoint.*register_saver"
    ):
        saver_registry.by_name("orbax")


def test_a_saver_that_fails_to_answer_is_passed_over():
    """A foreign saver's bug costs a warning, not the training."""

    def matches(self, value):
        raise RuntimeError("oops")

    savers.register(BoxSaver())
    savers.register(variant(name="broken", matches=matches))
    with pytest.warns(MlwrapWarning, match=r"'broken' of .*test_saver_registry failed.*RuntimeError: oops"):
        assert saver_registry.find(Box()).name == "box"


def test_a_saver_is_asked_only_if_its_framework_is_there():
    """Nothing is imported to find out what an object is."""
    savers.register(variant(frameworks=("a_framework_nobody_imported",)))
    assert saver_registry.find(Box()) is None


def test_what_a_registered_saver_does_wrong_is_said_to_be_its_own(tmp_path):
    """Saving, loading and reading metrics name the module that the saver comes from."""

    def fail(self, *args, **kwargs):
        raise RuntimeError("oops")

    saver = variant(save=fail, load=fail, metrics=fail)
    savers.register(saver)
    words = r"'box' of .*test_saver_registry.*RuntimeError: oops"
    with pytest.raises(SaveError, match=words) as caught:
        saver_registry.save(saver, Box(), tmp_path, savers.SaveOptions())
    assert isinstance(caught.value.value, Box)
    with pytest.raises(LoadError, match=words):
        saver_registry.load(saver, tmp_path, {}, into=None, trust=False)
    with pytest.warns(MlwrapWarning, match=words):
        assert saver_registry.training_metrics(saver, Box()) == []


@pytest.mark.parametrize(
    ("saved", "says"),
    [(None, "expected save.. to return a mlwrap.savers.Saved, got NoneType"), (object(), "got object")],
)
def test_a_saver_says_what_it_saved(tmp_path, saved, says):
    """Or it has not saved: what delivery needs is missing."""
    saver = variant(save=lambda self, value, folder, options: saved)
    savers.register(saver)
    with pytest.raises(SaveError, match=says):
        saver_registry.save(saver, Box(), tmp_path, savers.SaveOptions())


def test_what_can_not_be_written_down_is_refused_at_once(tmp_path):
    """Details go into the journal, which is JSON."""
    saver = variant(save=lambda *_: savers.Saved(details={"box": Box()}))
    savers.register(saver)
    with pytest.raises(SaveError, match=r"'box' of .* failed: .*Box"):
        saver_registry.save(saver, Box(), tmp_path, savers.SaveOptions())
