"""The lists of operations and functions that need no trust, and what they must never come to hold."""

from __future__ import annotations

import re

import pytest

from mlwrap._savers.keras_checks.functions import COMPUTING
from mlwrap._savers.tensorflow.graph_operations import ALLOWED, LOADING, READING, REASONS, SAVING

tf = pytest.importorskip("tensorflow")

# Of these words an operation is made that reaches out of the process, but for those that only sound so.
REACHES = re.compile(
    r"File|PyFunc|Rpc|Remote|Socket|Library|Restore|Save|Record|Checkpoint|Debug(?!Outputs)|Dump|Writer|LMDB|Sql|Send|Recv|Tpu|TPU"
    r"|Collective|Nccl|XlaCall|FromGraph|Sleep|Abort|Session|DataService"
)


def test_what_reaches_out_is_not_allowed():
    """By the names that TensorFlow gives to such operations."""
    assert [name for name in sorted(ALLOWED) if REACHES.search(name)] == []
    assert not ALLOWED & (SAVING | READING.keys() | REASONS.keys())


def test_what_runs_at_loading_can_be_called_too():
    """One list is within the other."""
    assert LOADING < ALLOWED


def test_what_is_allowed_is_known_to_tensorflow():
    """A name with a slip in it would allow what somebody registers by it. Two versions share the list."""
    known = set(dir(tf.raw_ops))
    assert len(ALLOWED - known) < 40, sorted(ALLOWED - known)


def test_no_function_that_reaches_out_is_computing():
    """By the words in TensorFlow's own names of them."""
    words = re.compile(
        r"file|py_func|numpy_func|library|load|save|print|restore|rpc|gfile|matching|fixed_unigram|session"
    )
    assert [name for name in sorted(COMPUTING) if words.search(name)] == []
