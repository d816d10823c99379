"""A decorated function is still the function: for functools, inspect, typing and other decorators."""

from __future__ import annotations

import copy
import functools
import inspect
import typing

import click
import pytest
from click.testing import CliRunner

from mlwrap import tracked_training
from mlwrap.testing import capture_runs
from tests.spools import waiting_in


@tracked_training
def train(units: int = 3, *, learning_rate: float = 0.1) -> dict[str, float]:
    """Train a model."""
    return {"result": units * learning_rate}


class Trainer:
    """With a tracked method."""

    @tracked_training
    def method(self, units: int = 1) -> None:
        """Train."""


def test_inspect():
    """Signature, annotations, source, documentation, kind; also of methods and partials."""
    assert (
        str(inspect.signature(train))
        == "(units: 'int' = 3, *, learning_rate: 'float' = 0.1) -> 'dict[str, float]'"
    )
    assert typing.get_type_hints(train) == {"units": int, "learning_rate": float, "return": dict[str, float]}
    assert inspect.getsource(train).startswith("@tracked_training\ndef train(")
    assert inspect.getdoc(train) == "Train a model."
    assert inspect.unwrap(train) is train.__wrapped__
    assert inspect.isroutine(train)
    assert not inspect.iscoroutinefunction(train)
    assert str(inspect.signature(Trainer().method)) == "(units: 'int' = 1) -> 'None'"
    assert inspect.ismethod(Trainer().method)
    partial = tracked_training(functools.partial(train.__wrapped__, 2))
    assert isinstance(partial, functools.partial)
    assert str(inspect.signature(partial)).startswith("(*, learning_rate")


def test_functools():
    """Wraps and update_wrapper around it, partial of it, single dispatch over it, a cache on top."""

    @functools.wraps(train)
    def around(*args, **kwargs):
        return train(*args, **kwargs)

    assert inspect.signature(around) == inspect.signature(train)
    assert around.__wrapped__ is train

    @functools.singledispatch
    @tracked_training
    def dispatched(data: object) -> str:
        return "any"

    @dispatched.register
    @tracked_training
    def of_a_list(data: list) -> str:
        return "list"

    cached = functools.lru_cache(train)
    with capture_runs() as captured:
        around(2)
        functools.partial(train, 4)()
        assert (dispatched(1), dispatched([])) == ("any", "list")
        cached(5)
        cached(5)
    expected = {("train", "2"), ("train", "4"), ("dispatched", None), ("of_a_list", None), ("train", "5")}
    assert {(run.name, run.params.get("units")) for run in captured} == expected
    assert len(captured) == 5
    assert cached.__wrapped__ is train


def test_a_click_command():
    """In the order in which one would write it: the command on top."""

    @click.command()
    @click.option("--units", default=1)
    @tracked_training
    def command(units):
        """Train from a shell."""
        return {"result": float(units)}

    with capture_runs() as captured:
        done = CliRunner().invoke(command, ["--units", "5"], catch_exceptions=False)
    assert done.exit_code == 0
    assert captured[0].params == {"units": "5"}
    assert captured[0].name == "command"


@pytest.fixture
@tracked_training(name="fixture", delivery="off")
def trained(tmp_path):
    """A fixture that trains."""
    return {"result": 1.0}


def test_a_fixture(trained, spool):
    """Pytest sees the parameters of the function, and its call is a run."""
    assert trained == {"result": 1.0}
    assert len(waiting_in(spool)) == 1


def test_copies():
    """A function's copy is the function; the copy of a method is bound to the copy of its object."""
    assert copy.copy(train) is train
    assert copy.deepcopy(train) is train
    assert copy.deepcopy({"train": train})["train"] is train

    trainer = Trainer()
    assert copy.copy(trainer.method).__self__ is trainer
    copied = copy.deepcopy({"trainer": trainer, "method": trainer.method})
    assert copied["method"].__self__ is copied["trainer"]
    assert copied["trainer"] is not trainer


def test_the_copy_of_an_object_that_was_decorated():
    """It has the copied object's state, and the same options."""

    class Training:
        def __init__(self) -> None:
            self.scales = [1.0]

        def __call__(self, units):
            return {"result": sum(self.scales) * units}

    original = tracked_training(Training(), name="training")
    copied = copy.deepcopy(original)
    original.__wrapped__.scales.append(1.0)
    with capture_runs() as captured:
        assert copied(2) == {"result": 2.0}
        assert original(2) == {"result": 4.0}
    assert [run.name for run in captured] == ["training", "training"]


def test_a_lambda_and_a_nested_function():
    """Named as they are."""
    with capture_runs() as captured:
        tracked_training(lambda units: {"result": units})(3)
    assert captured[0].name == "<lambda>"
    assert captured[0].params == {"units": "3"}


@typing.runtime_checkable
class Named(typing.Protocol):
    """Something to ask about."""

    label: str

    def fit(self) -> None: ...


def test_asking_for_a_protocol_leaves_the_annotations():
    """Of functions and of methods; the proxies' own classes have none, and they can still be set."""

    @tracked_training
    def fit(units: int) -> str:
        return str(units)

    method, hints = Trainer().method, {"units": int, "return": str}
    before = typing.get_type_hints(method), typing.get_type_hints(Trainer.method)
    for function in (fit, method, Trainer.method):
        assert not isinstance(function, Named)
        assert typing.get_type_hints(type(function)) == {}
    assert typing.get_type_hints(fit) == inspect.get_annotations(fit, eval_str=True) == hints
    assert (typing.get_type_hints(method), typing.get_type_hints(Trainer.method)) == before

    @functools.singledispatch
    def dispatch(value: object) -> str:
        return "other"

    dispatch.register(fit)
    assert (dispatch(3), dispatch("three")) == ("3", "other")
    fit.__annotations__ = {"units": float}
    assert fit.__wrapped__.__annotations__ == {"units": float}
