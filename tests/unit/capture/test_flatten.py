"""Nested values become dotted names and text."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import io
import pathlib
import re
import subprocess
import sys
import types
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import attrs
import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest
import sklearn.linear_model

from mlwrap._capture.flatten import Captured, flatten, params
from mlwrap._capture.redact import Redactor, Secret
from mlwrap._capture.secret_shapes import REDACTED
from mlwrap._capture.values import shortest


class Kind(str, enum.Enum):
    """An enum that is text as well."""

    ADAM = "adam-value"


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: int


@dataclasses.dataclass
class Config:
    """A dataclass with a marked field."""

    rate: float = 0.1
    pin: Annotated[str, Secret] = "swordfish"
    inner: object = None


@attrs.define
class Attrs:
    """An attrs class."""

    units: int = 3


class Pydantic(pydantic.BaseModel):
    """A pydantic model."""

    units: int = 3
    code: pydantic.SecretStr = pydantic.SecretStr("swordfish")


class Struct(msgspec.Struct):
    """A msgspec struct."""

    units: int = 3


class Empty:
    """A class that says nothing of itself."""


class Told(Empty):
    """A class with a repr."""

    def __repr__(self):
        return f"Told(7) at 0x7f00 {'x' * 100_000}"


def a_function(a, b=1):
    """A function to be named."""


def texts(value):
    """What is recorded of one value ``v``."""
    return params({"v": value}).values


HERE = __name__


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (1e-3, "0.001"),
        (float("inf"), "inf"),
        (10**5000, "int of 16610 bits"),
        ("", ""),
        ("a\0\ud800", "a\\x00\\ud800"),
        ([64, 32], "[64, 32]"),
        ((), "[]"),
        ({}, "{}"),
        (["relu", None, True, 0.5], '["relu", null, true, 0.5]'),
        ({"b", "a"}, '["a", "b"]'),
        (collections.deque([1]), "[1]"),
        ([pathlib.Path("a"), np.float32(0.1)], '["a", 0.1]'),
        (list(range(20_000)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … 20000 items]"),
        (Kind.ADAM, "ADAM"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (decimal.Decimal("1.10"), "1.10"),
        (fractions.Fraction(1, 3), "1/3"),
        (1 + 2j, "(1+2j)"),
        (datetime.datetime(2026, 1, 2, 3), "2026-01-02T03:00:00"),  # noqa: DTZ001  as users write it
        (datetime.timedelta(seconds=5), "0:00:05"),
        (b"secret bytes", "bytes of 12"),
        (range(3), "range(0, 3)"),
        (slice(1, 2), "slice(1, 2, None)"),
        (re.compile("a+"), "a+"),
        (re, "re"),
        (a_function, f"{HERE}.a_function"),
        (Point, f"{HERE}.Point"),
        (len, "len"),
        ("x".upper, "str.upper"),
        (Config().__init__, f"{HERE}.Config.__init__"),
        ((i for i in ()), "generator"),
        (iter([]), "list_iterator"),
        (io.StringIO(), "StringIO"),
        (Empty(), f"{HERE}.Empty"),
        (np.float32(0.1), "0.1"),
        (np.int64(3), "3"),
        (np.bool_(True), "True"),
        (np.str_("a"), "a"),
        (np.array(0.5), "0.5"),
        (np.dtype("float32"), "float32"),
        (np.zeros((60, 28)), "ndarray(60, 28) float64"),
        (pd.DataFrame({"a": [1, 2]}), "DataFrame(2 x 1)"),
        (pd.Series([1.0]), "Series(1,) float64"),
        (sklearn.linear_model.Ridge(), "sklearn.linear_model._ridge.Ridge"),
        (functools.partial(a_function), f"{HERE}.a_function"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_one_leaf(value, text):
    """The table of the documentation, row by row."""
    assert texts(value) == {"v": text}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"a": {"b": 1}, 2: 3, None: 4, (1, 2): 5},
            {"v.a.b": "1", "v.2": "3", "v.None": "4", "v.-x5b-1-x2c- 2-x5d-": "5"},
        ),
        ([[1, 2], {"units": 3}], {"v.0": "[1, 2]", "v.1.units": "3"}),
        (Point(1, 2), {"v.x": "1", "v.y": "2"}),
        (Config(inner=Attrs()), {"v.rate": "0.1", "v.pin": REDACTED, "v.inner.units": "3"}),
        (Attrs(), {"v.units": "3"}),
        (Pydantic(), {"v.units": "3", "v.code": REDACTED}),
        (Struct(), {"v.units": "3"}),
        (argparse.Namespace(units=3), {"v.units": "3"}),
        (types.SimpleNamespace(units=3), {"v.units": "3"}),
        (types.MappingProxyType({"units": 3}), {"v.units": "3"}),
        (functools.partial(a_function, 3, b=[4]), {"v": f"{HERE}.a_function", "v.0": "3", "v.b": "[4]"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_with_parts(value, expected):
    """What has parts is followed to its leaves."""
    assert texts(value) == expected


def test_a_lambda_has_no_address():
    """Two processes record the same text for the same lambda."""
    assert texts(lambda x: x)["v"].endswith("test_a_lambda_has_no_address.<locals>.<lambda>")


def test_a_foreign_repr_is_cut_and_loses_its_address():
    """An object speaks for itself only briefly."""
    text = texts(Told())["v"]
    assert text.startswith("Told(7) xxx")
    assert len(text) == 200


class Hostile:
    """An object that raises whatever it is asked."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __repr__(self):
        raise RuntimeError

    def __len__(self):
        raise RuntimeError


class Endless(Mapping):
    """A mapping that never ends, and lies about it."""

    def __len__(self):
        return 3

    def __iter__(self):
        n = 0
        while True:
            yield (n := n + 1)

    def __getitem__(self, key):
        return key


def test_hostile_values_are_described():
    """Whatever a value does when asked, the others are recorded."""
    captured = params(
        {"a": Hostile(), "b": [Hostile()], "c": {"password": Hostile()}, "d": Endless(), "e": 1}
    )
    assert captured.values["a"] == f"{HERE}.Hostile"
    assert captured.values["b.0"] == f"{HERE}.Hostile"
    assert captured.values["c.password"] == REDACTED
    assert captured.values["d.left_out"].endswith("values")
    assert captured.values["e"] == "1"


def test_a_part_that_can_not_be_read_is_said():
    """A property that raises costs no other, and says so."""

    @dataclasses.dataclass
    class Half:
        a: int
        b: int

    half = Half(1, 2)
    del half.b
    assert texts(half) == {"v.a": "1", "v.b": "not readable: AttributeError"}


def test_cycles_end():
    """A value that is part of itself is named, not followed."""
    config = {"units": 3}
    config["again"] = config
    items = [1]
    items.append(items)
    assert texts(config) == {"v.units": "3", "v.again": "the same as v, which it is part of"}
    assert texts(items) == {"v.0": "1", "v.1": "the same as v, which it is part of"}


def test_depth_and_breadth_end():
    """What is too deep is described, what is too much is counted, and the next parameter is not touched."""
    deep = functools.reduce(lambda inner, _: {"d": inner, "n": 1}, range(20), 0)
    captured = params({"deep": deep, "broad": {f"k{n}": n for n in range(1500)}, "next": 1}).values
    assert captured["deep" + ".d" * 8] == "dict of 2"
    assert captured["broad.left_out"] == "500 values"
    assert captured["broad.k999"] == "999"
    assert captured["next"] == "1"


def test_a_long_text_is_cut_with_a_digest_and_kept_whole():
    """MLflow takes 6000 characters; the rest is not lost."""
    captured = params({"v": "ab" * 5000})
    assert len(captured.values["v"]) == 6000
    assert re.search(r"…\[10000 chars, sha256:[0-9a-f]{12}\]$", captured.values["v"])
    assert captured.full_values == {"v": ("v", "ab" * 5000)}


def test_a_long_list_is_kept_whole():
    """As a list, with words for what JSON has none for."""
    captured = params({"v": [float("nan"), 2**70, *range(3000)]})
    assert len(captured.values["v"]) == 6000
    assert captured.full_values["v"] == ("v", ["NaN", str(2**70), *range(3000)])


def test_a_secret_at_the_edge_of_a_huge_text_goes():
    """Redaction comes before every cut, also before the one for texts that are out of all measure."""
    token = "ghp_" + "a1" * 20
    captured = params({"v": " " * 999_990 + token + " " * 2_000_000})
    assert token[:10] not in captured.full_values["v"][1]


def test_a_renamed_parameter_keeps_its_own_name():
    """MLflow's name is for MLflow; ``whole`` knows what it was."""
    assert params({"lr (init)": 0.1}) == Captured(
        {"lr -x28-init-x29-": "0.1"}, {"lr -x28-init-x29-": ("lr (init)", 0.1)}
    )


def test_clashing_names_both_survive():
    """A dot in a key can look like a part of a value; the later one is numbered."""
    captured = flatten({"a.b": 1, "a": {"b": 2}, "a.b#2": 3}, Redactor())
    assert captured == {"a.b": 1, "a.b#2": 2, "a.b#2#2": 3}


def test_a_secret_met_late_vanishes_from_what_came_before():
    """All values are walked before the first text is made."""
    captured = params({"note": "by swordfish", "swordfish": [1, "swordfish"], "p": Pydantic()})
    assert "swordfish" not in repr(captured)


def test_the_room_imports_nothing_heavy():
    """Capture costs no framework, and not MLflow."""
    code = (
        "import sys, mlwrap._capture;"
        "heavy = {'numpy', 'tensorflow', 'keras', 'pandas', 'mlflow', 'pydantic', 'torch'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_names_beside_their_values():
    """Headers are pairs, environments of containers are mappings, and a command is a list."""
    values = {
        "headers": [["X-Api-Key", "abc"], ["Accept", "*/*"]],
        "env": [{"name": "API_KEY", "value": "abc"}, {"name": "LANG", "value": "C"}],
        "command": ["curl", "-u", "me:pw", "--token", "abc"],
    }
    leaves = flatten(values, Redactor())
    assert leaves["headers.0"] == ["X-Api-Key", REDACTED]
    assert leaves["headers.1"] == ["Accept", "*/*"]
    assert leaves["env.0.value"] == REDACTED
    assert leaves["env.1.value"] == "C"
    assert leaves["command"] == ["curl", "-u", f"me:{REDACTED}", "--token", REDACTED]


class Stubborn(Mapping):
    """A mapping of which one value can't be read."""

    def __iter__(self):
        return iter(("a", "b", "c"))

    def __len__(self):
        return 3

    def __getitem__(self, key):
        if key == "b":
            raise RuntimeError(key)
        return {"key": key}


def test_a_value_of_a_mapping_that_cannot_be_read_costs_no_other():
    """Whatever its ``__getitem__`` raises; at any depth."""
    assert texts({"deep": Stubborn()}) == {
        "v.deep.a.key": "a",
        "v.deep.b": "not readable: RuntimeError",
        "v.deep.c.key": "c",
    }


def test_omegaconf_values_that_are_missing_cost_no_other():
    """In mappings and in lists: ``???``, and what refers to nothing."""
    omegaconf = pytest.importorskip("omegaconf", reason="comes with the test requirements")
    config = {"lr": 0.1, "must": "???", "bad": "${nowhere}", "units": [1, "???"], "model": {"depth": 2}}
    assert texts(omegaconf.OmegaConf.create(config)) == {
        "v.lr": "0.1",
        "v.must": "not readable: MissingMandatoryValue",
        "v.bad": "not readable: InterpolationKeyError",
        "v.units": '[1, "not readable: MissingMandatoryValue"]',
        "v.model.depth": "2",
    }


def test_hyperparameters_of_keras_tuner_are_opened():
    """As a model's builder gets them: the value of each."""
    keras_tuner = pytest.importorskip("keras_tuner")
    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.Int("units", 2, 4)
    assert texts(hyperparameters) == {"v.units": "2"}


def test_an_optuna_trial_has_its_number_and_its_parameters():
    """Those that were suggested so far."""
    optuna = pytest.importorskip("optuna", reason="only needed for sweeps with Optuna")
    trial = optuna.trial.FixedTrial({"lr": 0.5, "units": 8}, number=3)
    assert texts(trial) == {"v.number": "3"}
    trial.suggest_float("lr", 0, 1)
    assert texts(trial) == {"v.number": "3", "v.params.lr": "0.5"}


def test_absl_flags_are_opened():
    """Before they are parsed, too, and without absl's own."""
    absl = pytest.importorskip("absl.flags", reason="comes with TensorFlow and JAX")
    importlib.import_module("absl.logging")  # which defines flags
    flags = absl.FlagValues()
    absl.DEFINE_float("learning_rate", 0.25, "", flag_values=flags)
    absl.DEFINE_string("api_key", "hidden-from-all", "", flag_values=flags)
    assert texts(flags) == {"v.learning_rate": "0.25", "v.api_key": REDACTED}
    assert "v.verbosity" not in texts(absl.FLAGS)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0.0003000000142492354, 0.0003),
        (0.10000000149011612, 0.1),
        (0.3333333432674408, 0.33333334),
        (1 / 3, 1 / 3),
        (0.0003, 0.0003),
        (0.5, 0.5),
        (-1e300, -1e300),
        (float("inf"), float("inf")),
    ],
)
def test_a_number_that_was_float32_is_written_shortest(number: float, expected: float):
    """And any other one stays as it is."""
    assert shortest(number) == expected
