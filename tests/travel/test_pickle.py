"""Pickle and cloudpickle: what arrives is tracked, or a sentence says what can't travel."""

from __future__ import annotations

import pickle
import sys
import threading
import types

import cloudpickle
import pytest

from mlwrap import tracked_training
from mlwrap.testing import capture_runs

SOURCE = """
import functools
from mlwrap import tracked_training

@tracked_training(name="named", tags={"kept": "yes"})
def train(units):
    return {"result": float(units)} if train else None

def plain(units):
    return {"result": float(units)}

tracked = tracked_training(plain, name="named", tags={"kept": "yes"})
partial = tracked_training(functools.partial(plain), name="named", tags={"kept": "yes"})

class Trainer:
    def __call__(self, units):
        return plain(units)

    @tracked_training(name="named", tags={"kept": "yes"})
    def method(self, units):
        return plain(units)

    @tracked_training(name="named", tags={"kept": "yes"})
    @classmethod
    def class_inside(cls, units):
        return plain(units)

    @classmethod
    @tracked_training(name="named", tags={"kept": "yes"})
    def class_outside(cls, units):
        return plain(units)

    @tracked_training(name="named", tags={"kept": "yes"})
    @staticmethod
    def static_inside(units):
        return plain(units)

    @staticmethod
    @tracked_training(name="named", tags={"kept": "yes"})
    def static_outside(units):
        return plain(units)

trainer = Trainer()
called = tracked_training(trainer, name="named", tags={"kept": "yes"})
THINGS = {
    "function": train, "beside": tracked, "partial": partial, "object": called, "method": trainer.method,
    "class_inside": Trainer.class_inside, "class_outside": trainer.class_outside,
    "static_inside": Trainer.static_inside, "static_of_instance": trainer.static_inside,
    "static_outside": Trainer.static_outside,
}
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """A module that can be imported, with decorated things of every kind in it."""
    made = types.ModuleType("module_that_travels")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(SOURCE, made.__dict__)
    return made


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch):
    """A ``__main__`` to define things in."""
    made = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", made)
    made.tracked_training = tracked_training
    return made


def check_tracked(thing) -> None:
    """It is a run, with the options that it was decorated with."""
    with capture_runs() as captured:
        assert thing(3) == {"result": 3.0}
    (run,) = captured
    assert (run.name, run.status, run.params) == ("named", "FINISHED", {"units": "3"})
    assert run.tags["kept"] == "yes"
    assert thing.last_run.key == run.key


KINDS = ["function", "beside", "partial", "object", "method", "class_inside", "class_outside"]
KINDS += ["static_inside", "static_of_instance", "static_outside"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("where", ["module", "main"])
def test_everything_travels(request, kind: str, pickler, where: str):
    """By stock pickle and cloudpickle, from a module and ``__main__``; twice, for workers have workers."""
    home = request.getfixturevalue(where)
    exec(SOURCE, home.__dict__)
    thing = home.THINGS[kind]
    once = pickle.loads(pickler.dumps(thing))
    check_tracked(once)
    check_tracked(pickle.loads(pickler.dumps(once)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_function_of_a_module_is_itself(module, protocol: int):
    """In the same process, as any function; and its options need not travel."""
    assert pickle.loads(pickle.dumps(module.train, protocol)) is module.train


def test_a_module_that_is_sent_along(module):
    """What the user told cloudpickle not to expect elsewhere travels by value."""
    cloudpickle.register_pickle_by_value(module)
    try:
        sent = cloudpickle.dumps(module.train)
        copy = pickle.loads(sent)
        assert copy is not module.train
        assert copy.__globals__["train"] is copy
        check_tracked(copy)
        assert pickle.loads(pickle.dumps(module.train)) is module.train
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_a_nested_function_takes_along_what_it_needs():
    """Its variables, its options, and itself."""
    scale = 2

    @tracked_training(name="named")
    def train(units):
        return {"result": units * scale, "found_itself": train.last_run is not None}

    copy = pickle.loads(cloudpickle.dumps(train))
    with capture_runs() as captured:
        assert copy(3) == {"result": 6, "found_itself": True}
    assert captured[0].name == "named"


def nested():
    """A function that has no name to be found by."""

    @tracked_training
    def train(): ...

    return train


def locked():
    """One that is closed over something of this process's own."""
    lock = threading.Lock()

    @tracked_training
    def train():
        with lock:
            pass

    return train


def with_a_default():
    """One whose default is."""

    @tracked_training
    def train(lock=threading.Lock()): ...  # noqa: B008

    return train


def with_an_option():
    """One whose option is."""

    @tracked_training(input_example=threading.Lock())
    def train(): ...

    return train


def an_object():
    """An object that holds it."""

    class Training:
        def __init__(self):
            self.lock = threading.Lock()

        def __call__(self): ...

    return tracked_training(Training())


@pytest.mark.parametrize(
    ("make", "pickler", "words"),
    [
        (nested, pickle, "not found by its name in .*. Define it in a module.* or send it by cloudpickle"),
        (locked, cloudpickle, "the variable 'lock' .*cannot pickle '_thread.lock' object.* Make that inside"),
        (with_a_default, cloudpickle, "the default of 'lock' "),
        (with_an_option, cloudpickle, "its option input_example= "),
        (an_object, cloudpickle, "the object that was decorated "),
        (an_object, pickle, "the object that was decorated "),
    ],
)
def test_what_cannot_travel_is_said(make, pickler, words: str):
    """When it is pickled, so before anything runs; and said again at the next try."""
    thing = make()
    for _ in range(2):
        with pytest.raises(pickle.PicklingError, match=words):
            pickler.dumps(thing)


def test_an_option_that_stock_pickle_cannot_take(main):
    """A function of ``__main__`` is looked up there, and still its options go along."""
    exec("@tracked_training(serving_input_receiver_fn=lambda: None)\ndef train(): ...", main.__dict__)
    with pytest.raises(pickle.PicklingError, match="its option serving_input_receiver_fn= "):
        pickle.dumps(main.train)
    assert pickle.loads(cloudpickle.dumps(main.train)).__name__ == "train"


def test_what_is_gone_over_there_is_said(main):
    """By name and module."""
    exec("@tracked_training\ndef train(): ...", main.__dict__)
    sent = pickle.dumps(main.train)
    assert pickle.loads(sent) is main.train
    del main.train
    with pytest.raises(AttributeError, match="train is not in __main__, where it was"):
        pickle.loads(sent)
