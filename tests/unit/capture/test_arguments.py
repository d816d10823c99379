"""A call becomes own parameter names and values."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Optional

import pytest

from mlwrap._capture.arguments import Arguments
from mlwrap._capture.redact import Redactor, Secret
from mlwrap._capture.secret_shapes import REDACTED
from mlwrap.errors import OptionError

if TYPE_CHECKING:
    from nowhere import Unknown

ApiKey = Annotated[str, Secret]


def train(data, /, units=64, *layers, rate=0.1, **options):
    """A function with every kind of parameter."""


class Trainer:
    """A class with every kind of method."""

    def fit(self, epochs, *, rate=0.1):
        """A plain method."""

    @classmethod
    def make(cls, epochs=1):
        """A class method."""

    @staticmethod
    def load(path, epochs=1):
        """A static method."""

    def gather(*everything):
        """A method that names no receiver."""

    def __call__(self, epochs=7):
        """An object that can be called."""


def test_every_kind_of_parameter():
    """Defaults are applied, and extra keywords stand under their own names."""
    assert Arguments(train).bind(None, ("x", 1, 2, 3), {"seed": 7}) == {
        "data": "x",
        "units": 1,
        "layers": (2, 3),
        "rate": 0.1,
        "seed": 7,
    }


def test_extra_keywords_never_hide_a_parameter():
    """A keyword with a parameter's name gets the name of ``**options`` before it."""
    bound = Arguments(train).bind(None, ("x",), {"data": "y", "layers": "z", "options.data": "w"})
    assert bound == {
        "data": "x",
        "units": 64,
        "rate": 0.1,
        "options.data": "y",
        "options.layers": "z",
        "options.options.data": "w",
    }


@pytest.mark.parametrize(
    ("func", "instance", "args"),
    [
        (Trainer.fit, Trainer(), (3,)),
        (Trainer.fit, None, (Trainer(), 3)),
        (Trainer().fit, Trainer(), (3,)),
        (Trainer().fit, None, (3,)),
    ],
    ids=["as wrapt calls it", "unbound", "bound, as wrapt calls it", "bound"],
)
def test_methods_leave_the_instance_out(func, instance, args):
    """However a method is reached, ``self`` is no parameter."""
    assert Arguments(func).bind(instance, args, {}) == {"epochs": 3, "rate": 0.1}


def test_other_callables():
    """Class methods, static methods, partials, callable objects and builtins bind as well."""
    assert Arguments(Trainer.__dict__["make"]).bind(Trainer, (), {}) == {"epochs": 1}
    assert Arguments(Trainer.make).bind(Trainer, (2,), {}) == {"epochs": 2}
    assert Arguments(Trainer.__dict__["load"]).bind(None, ("p",), {}) == {"path": "p", "epochs": 1}
    assert Arguments(Trainer()).bind(None, (), {}) == {"epochs": 7}
    assert Arguments(Trainer.gather).bind(Trainer(), (1, 2), {}) == {"everything": (1, 2)}
    assert Arguments(functools.partial(train, "x", rate=1)).bind(None, (5,), {})["units"] == 5
    assert Arguments(len).bind(__builtins__, ([1],), {}) == {"obj": [1]}
    assert Arguments(print).bind(None, (1,), {"sep": ""})["sep"] == ""


def test_names_leave_the_receiver_out():
    """What can be named in options are the parameters of the call."""
    assert Arguments(Trainer.fit).names == ("epochs", "rate")


@pytest.mark.parametrize(
    ("args", "kwargs", "bound"),
    [
        ((), {}, {"rate": 0.1}),
        ((1, 2, 3), {}, {"epochs": 1, "rate": 0.1}),
        ((1,), {"x": 1, "epochs": 2}, None),
    ],
)
def test_a_call_that_does_not_fit_is_bound_as_far_as_it_goes(args, kwargs, bound):
    """The TypeError is the function's own to raise."""
    expected = {"epochs": 1, "rate": 0.1} if bound is None else bound
    assert Arguments(Trainer.fit).bind(Trainer(), args, kwargs) == expected


def test_ignore_and_only():
    """One keeps names out, the other lets only some in; a bare text is one name."""
    assert Arguments(train, ignore="data").bind(None, (1,), {"seed": 2}) == {
        "units": 64,
        "rate": 0.1,
        "seed": 2,
    }
    assert Arguments(train, only=["units"]).bind(None, (1,), {"seed": 2}) == {"units": 64}


def test_ignore_and_only_reach_into_values():
    """Dotted names select parts of a value."""

    def run(config, seed=1):
        """Take nested values."""

    config = {"rate": 0.1, "model": {"units": 2, "depth": 3}}
    ignoring = Arguments(run, ignore=("config.model", "seed")).capture(None, (config,), {}, Redactor())
    assert ignoring.values == {"config.rate": "0.1"}
    only = Arguments(run, only=("config.model.units", "seed")).capture(None, (config,), {}, Redactor())
    assert only.values == {"config.model.units": "2", "seed": "1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore": "uints"}, "names no parameter. The function has: epochs, rate"),
        ({"only": ["rate", "self"]}, "names no parameter"),
        ({"ignore": 3}, "takes names of parameters"),
        ({"only": ["rate", 3]}, "takes names of parameters"),
        ({"only": "rate", "ignore": "epochs"}, "can't both be given"),
    ],
)
def test_wrong_options_fail_at_the_door(options, message):
    """A wrong option is found before any training starts."""
    with pytest.raises(OptionError, match=message):
        Arguments(Trainer.fit, **options)


def test_something_that_is_no_function():
    """What can't be called can't be bound."""
    with pytest.raises(OptionError, match="callable was expected"):
        Arguments(3)


def test_marked_parameters_are_secret():
    """The mark is found in every spelling, and one annotation that can't be resolved costs only itself."""

    def login(  # noqa: PLR0917  one for each spelling
        a: Annotated[str, Secret],
        b: Optional[Annotated[str, Secret()]],  # noqa: UP045  as users write it
        c: ApiKey,
        d: Unknown,
        e: Annotated[Unknown, Secret],
        f: Secret,
        g: str = "Secret",
    ):
        """Take secrets under innocent names."""

    assert Arguments(login).secrets == {"a", "b", "c", "e", "f"}


def test_a_marked_value_vanishes_everywhere():
    """Also where it is ignored, the redactor knows it afterwards."""

    def login(pin: Annotated[str, Secret], note: str):
        """Take a secret, and a text that has it."""

    redactor = Redactor()
    captured = Arguments(login, ignore="pin").capture(None, ("swordfish", "say swordfish"), {}, redactor)
    assert captured.values == {"note": f"say {REDACTED}"}
    assert redactor.text("ValueError: swordfish") == f"ValueError: {REDACTED}"
