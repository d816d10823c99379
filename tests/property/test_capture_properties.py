"""What holds for every call, name and value."""

from __future__ import annotations

import inspect
import json
from collections import namedtuple
from inspect import Parameter
from types import SimpleNamespace

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_param

from mlwrap._capture.arguments import Arguments
from mlwrap._capture.flatten import flatten, params
from mlwrap._capture.mlflow_names import from_mlflow_name, to_mlflow_name
from mlwrap._capture.redact import Redactor
from mlwrap._capture.secret_shapes import REDACTED

NAMES = st.sampled_from("abcdefgh")
POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@st.composite
def signatures(draw):
    """Any signature over a few names, with defaults where Python allows them."""
    kinds = sorted(draw(st.lists(st.sampled_from(list(inspect._ParameterKind)), max_size=7)))
    parameters, defaulted = [], False
    for kind, name in zip(kinds, "abcdefg", strict=False):
        if kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            if not any(p.kind is kind for p in parameters):
                parameters.append(Parameter(name, kind))
            continue
        has_default = draw(st.booleans()) or (kind in POSITIONAL and defaulted)
        defaulted = defaulted or (kind in POSITIONAL and has_default)
        parameters.append(
            Parameter(name, kind, default=f"default {name}" if has_default else Parameter.empty)
        )
    return inspect.Signature(parameters)


@given(signatures(), st.lists(st.integers(), max_size=6), st.dictionaries(NAMES, st.text(), max_size=6))
def test_binding_agrees_with_inspect(signature, args, kwargs):
    """Wherever Python accepts a call, the names and values are Python's; elsewhere binding is silent."""

    def function(*args, **kwargs):
        """Stand in for one with that signature."""

    function.__signature__ = signature
    bound = Arguments(function).bind(None, tuple(args), kwargs)
    try:
        expected = signature.bind(*args, **kwargs)
    except TypeError:
        return
    expected.apply_defaults()
    for name, value in expected.arguments.items():
        kind = signature.parameters[name].kind
        if kind is Parameter.VAR_KEYWORD:
            for key, extra in value.items():
                assert bound.pop(f"{name}.{key}" if key in signature.parameters else key) == extra
        elif kind is not Parameter.VAR_POSITIONAL or value:
            assert bound.pop(name) == value
    assert bound == {}


AWKWARD = st.text(st.sampled_from("ax-2./ :%\n\0ü\ud800_") | st.characters(), max_size=40)


@given(st.sets(AWKWARD, max_size=30))
def test_names_are_valid_distinct_and_reversible(names):
    """Every name passes MLflow's own check, no two meet, and each comes back."""
    for name in names:
        _validate_param(to_mlflow_name(name), "")
        assert from_mlflow_name(to_mlflow_name(name)) == name
    assert len({to_mlflow_name(name) for name in names}) == len(names)


@given(AWKWARD.filter(bool), st.integers(200, 400))
def test_long_names_are_valid(name, times):
    """Cutting keeps what MLflow asks of a name."""
    _validate_param(to_mlflow_name(name * times), "")


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
)
Pair = namedtuple("Pair", "left right")  # noqa: PYI024  untyped, as they come
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner, max_size=5)
        | st.tuples(inner, inner).map(lambda pair: Pair(*pair))
        | inner.map(lambda value: SimpleNamespace(value=value))
    ),
    max_leaves=30,
)


@given(st.dictionaries(AWKWARD, VALUES, max_size=6))
def test_every_capture_fits_mlflow_and_the_journal(values):
    """Names and texts pass MLflow's check uncut, and ``whole`` is JSON."""
    captured = params(values)
    for name, text in captured.values.items():
        assert len(text) <= 6000
        _validate_param(name, text)
    assert set(captured.full_values) <= set(captured.values)
    assert json.loads(msgspec.json.encode(captured))["values"] == captured.values


@given(
    st.recursive(
        st.integers(), lambda inner: st.dictionaries(AWKWARD, inner, min_size=1, max_size=4), max_leaves=40
    )
)
def test_no_leaf_is_lost(tree):
    """As many leaves come out as go in, whatever their names are, down to the depth that is followed."""
    values = params({"root": tree}).values
    assume(REDACTED not in values.values())  # under the name of a secret the leaves are hidden as one

    def count(node, depth=0):
        if not isinstance(node, dict) or depth == 8:
            return 1
        return sum(count(child, depth + 1) for child in node.values())

    assert len(values) == count(tree)


CANARY = "c4n4ry-Vogel-42"


@given(
    st.sampled_from(["password", "api_key", "hfToken", "db.credentials"]),
    st.sampled_from([CANARY, [CANARY], {"x": CANARY}, CANARY.encode(), SimpleNamespace(password=CANARY)]),
    VALUES,
    st.text(max_size=10),
)
def test_no_canary_gets_out(name, secret, value, around):
    """A secret met anywhere is in no name and no text, before or after it, cut or whole."""
    redactor = Redactor()
    captured = params(
        {
            "first": around + CANARY + around,
            "long": CANARY * 2000,
            "nested": {"deep": [{name: secret}, value]},
            CANARY: 1,
        }
        | {"again": {"n": f"password={CANARY} "}, "inner": {"password": CANARY}},
        redactor=redactor,
    )
    assert CANARY not in msgspec.json.encode(captured).decode()
    assert captured.values["inner.password"] == REDACTED
    assert CANARY not in redactor.text(f"Error: {around}{CANARY}{around}")


@given(st.text(), st.text(min_size=6))
def test_redaction_is_idempotent_where_nothing_is_left(text, secret):
    """What was clean once stays as it is."""
    redactor = Redactor()
    redactor.remember(secret)
    once = redactor.text(text + secret.strip())
    assert redactor.text(once) == once or REDACTED in secret


@given(VALUES)
def test_flattening_is_deterministic(value):
    """The same value gives the same leaves in the same order."""
    one, two = (list(flatten({"v": value}, Redactor())) for _ in range(2))
    assert one == two
