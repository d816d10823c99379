"""The record types: what is written is what is read."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwrap._journal.records import AnyRecord, Metrics

names = st.text(min_size=1, max_size=30)


@given(st.dictionaries(names, st.floats(allow_nan=True, allow_infinity=True)), st.integers(0, 2**53))
def test_every_number_survives_the_journal(values: dict[str, float], step: int):
    """NaN and the infinities too, for which JSON has no word."""
    line = msgspec.json.encode(Metrics.of(values, step=step, time=1))
    record = msgspec.json.decode(line, type=AnyRecord)
    assert isinstance(record, Metrics)
    assert record.step == step
    for name, number in record.numbers().items():
        assert number == values[name] or (math.isnan(number) and math.isnan(values[name]))
    assert record.numbers().keys() == values.keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_spelled(value: float):
    """A reader that is not Python's own finds valid JSON."""
    line = msgspec.json.encode(Metrics.of({"loss": value}, step=0, time=1))
    assert b"null" not in line
    assert float(msgspec.json.decode(line)["values"]["loss"]) == pytest.approx(value, nan_ok=True)
