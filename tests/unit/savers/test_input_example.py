"""``input_example``: what is one, what fits, and what is written down of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlwrap import savers
from mlwrap._journal.input_example import Example
from mlwrap._journal.records import Saved, Signature, TensorSpec
from mlwrap._savers.input_example import keep_example
from mlwrap._savers.options_per_model import per_model
from mlwrap._savers.predict import difference
from mlwrap.errors import MlwrapWarning

ONE = Signature(inputs=(TensorSpec(dtype="float32", shape=(-1, 3)),))
TWO = Signature(
    inputs=(
        TensorSpec(name="a", dtype="float32", shape=(-1, 2)),
        TensorSpec(name="b", dtype="int64", shape=(-1,)),
    )
)
A, B = np.ones((4, 2), "float32"), np.arange(4)


def kept(
    given: object, folder: Path, signature: Signature | None = None, model: object = None
) -> Example | None:
    """What is written of an example."""
    options = savers.SaveOptions(input_example=given, verify="load" if model is not None else "static")
    keep_example(model, folder, Saved(signature=signature), options)
    return Example.read(folder)


@pytest.mark.parametrize(
    ("given", "signature", "kind", "inputs"),
    [
        (A, None, "array", {"": A}),
        ([[1, 2, 3]], None, "array", {"": np.array([[1, 2, 3]])}),
        ([[1, 2, 3]], ONE, "array", {"": np.array([[1, 2, 3]], "float32")}),
        (["a", "bc"], None, "array", {"": np.array(["a", "bc"])}),
        (np.array([b"a", b"bc"], object), None, "array", {"": np.array(["a", "bc"])}),
        ({"a": A, "b": B}, TWO, "mapping", {"a": A, "b": B}),
        ({"b": [0, 1, 2, 3], "a": A.tolist()}, TWO, "mapping", {"a": A, "b": B}),
        ([A, B], TWO, "mapping", {"a": A, "b": B}),
        ([0, 1, 2, 3], Signature(inputs=TWO.inputs[1:]), "mapping", {"b": B}),
        (pd.DataFrame({"x": [1.5], "t": ["a"]}), None, "frame", {"x": np.array([1.5]), "t": np.array(["a"])}),
        (pd.DataFrame({"x": [1.5]}), ONE, "frame", {"x": np.array([1.5])}),
    ],
)
def test_an_example_is_written_as_plain_arrays(given, signature, kind, inputs, tmp_path: Path):
    """A list has no type of its own, and takes the model's."""
    example = kept(given, tmp_path, signature)
    assert example is not None
    assert example.kind == kind
    assert set(example.inputs) == set(inputs)
    for name, array in inputs.items():
        np.testing.assert_array_equal(example.inputs[name], array)
        assert example.inputs[name].dtype == array.dtype
    assert example.predicted is None


IMAGE = TensorSpec(dtype="float32", shape=(-1, 28, 28, 1))
OUT = (TensorSpec(dtype="float32", shape=(-1, 1)),)


@pytest.mark.parametrize(
    ("given", "signature", "inputs"),
    [
        (np.ones((4, 3)), ONE, [("float64", (-1, 3))]),
        (np.ones((4, 3), "uint8"), ONE, [("uint8", (-1, 3))]),
        ([[1, 2, 3]], ONE, [("float32", (-1, 3))]),
        ({"a": A.astype("float64"), "b": B}, TWO, [("float64", (-1, 2)), ("int64", (-1,))]),
        (np.ones((2, 28, 28)), Signature(inputs=(IMAGE,), outputs=OUT), [("float64", (-1, 28, 28))]),
        (np.ones((2, 3, 1)), Signature(inputs=ONE.inputs, outputs=OUT), [("float64", (-1, 3, 1))]),
        (pd.DataFrame({"x": [1.5]}), ONE, [("float32", (-1, 3))]),
    ],
)
def test_an_example_decides_what_a_keras_model_is_fed(given, signature, inputs, tmp_path: Path):
    """Keras casts numbers and completes a last axis of 1; what is written is the example as it came."""
    saved = Saved(signature=signature, details={"keras": "keras"})
    after = keep_example(None, tmp_path, saved, savers.SaveOptions(input_example=given))
    assert [(spec.dtype, spec.shape) for spec in after.signature.inputs] == inputs
    assert after.signature.outputs == signature.outputs


@pytest.mark.parametrize(
    ("given", "signature"),
    [
        (np.ones((2, 28, 28)), Signature(inputs=(IMAGE,))),  # a subclassed model completes nothing
        (np.ones((2, 27, 28)), Signature(inputs=(IMAGE,), outputs=OUT)),
        (np.array([["a", "b", "c"]]), ONE),
    ],
)
def test_an_example_that_keras_does_not_take(given, signature, tmp_path: Path):
    """It is a warning as with other models, and the signature stays."""
    saved = Saved(signature=signature, details={"keras": "keras"})
    with pytest.warns(MlwrapWarning, match="the model takes float32"):
        after = keep_example(None, tmp_path, saved, savers.SaveOptions(input_example=given))
    assert after is saved


def test_a_frame_comes_back_as_a_frame(tmp_path: Path):
    """With its columns in their order."""
    frame = pd.DataFrame({"b": [1, 2], "a": ["x", "y"]})
    example = kept(frame, tmp_path)
    assert list(example.value().columns) == ["b", "a"]
    assert example.value()["a"].tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("given", "signature", "words"),
    [
        (np.ones((4, 2), "float32"), ONE, r"takes float32 \(any, 3\), and the example is float32 \(4, 2\)"),
        (np.ones(3, "float32"), ONE, r"float32 \(3\)"),
        (np.ones((4, 3)), ONE, r"takes float32 .* is float64 \(4, 3\)"),
        ([["a", "b", "c"]], ONE, r"takes float32 .* is str"),
        ([[1.5, 2.0]], TWO, r"takes 'a': float32 \(any, 2\), 'b': int64 \(any\), and the example is float64"),
        ({"a": A}, TWO, r"and the example is 'a': float32 \(4, 2\)"),
        ({"a": A, "b": B.astype("float32")}, TWO, r"'b': float32 \(4\)"),
        ({}, None, "empty mapping"),
        (1.5, None, r"a batch of examples, got the single value 1\.5"),
        (object(), None, r"expected an array, a mapping .* got builtins\.object"),
        ([object()], None, r"got builtins\.list of Python objects"),
        (pd.DataFrame({0: [1.0]}), None, "columns named by text, got 0"),
    ],
)
def test_one_that_does_not_fit_is_a_warning(given, signature, words, tmp_path: Path):
    """What was expected, and what came; nothing is written."""
    with pytest.warns(MlwrapWarning, match=words):
        assert kept(given, tmp_path, signature) is None


class Linear:
    """Something with a predict()."""

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"double": 2 * x}


def test_a_prediction_is_taken_only_to_be_compared(tmp_path: Path):
    """verify="load": what the model gives before it is saved."""
    example = kept(A, tmp_path, model=Linear())
    np.testing.assert_array_equal(example.predicted["double"], 2 * A)


def test_a_model_that_cannot_predict_its_example(tmp_path: Path):
    """A warning; the example is kept."""
    with pytest.warns(MlwrapWarning, match="could not predict its example: TypeError"):
        example = kept(["a"], tmp_path, model=Broken())
    assert example.predicted is None
    assert example.value().tolist() == ["a"]


class Broken:
    """Something that can't."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        raise TypeError("not that")


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        ({"": A}, {"": A + 1e-6}, None),
        ({"": A}, {"0": A}, None),
        ({"x": np.array(["a"])}, {"x": np.array(["a"])}, None),
        ({"": A}, {"": A + 0.1}, r"the values differ: \[1\.1.* and were \[1\.0"),
        (
            {"x": A, "y": A},
            {"x": A, "y": A[:1]},
            r"the shape of the output 'y' is \(1, 2\), and was \(4, 2\)",
        ),
        ({"x": A, "y": A}, {"x": A}, r"outputs called \['x', 'y'\], got \['x'\]"),
        ({"x": np.array(["a"])}, {"x": np.array(["b"])}, "the values of the output 'x' differ"),
    ],
)
def test_two_predictions_are_compared(expected, got, words):
    """Equal but for rounding, or in what they differ."""
    found = difference(expected, got)
    if words is None:
        assert found is None
    else:
        with pytest.raises(ValueError, match=words):
            raise ValueError(found)


def test_several_models_have_examples_of_their_own():
    """A mapping of their names; any other example is for each of them."""
    each, troubles = per_model(savers.SaveOptions(input_example={"a": A, "b": B}), ["a", "b"])
    assert [options.input_example is wanted for options, wanted in zip(each, (A, B), strict=True)] == [
        True
    ] * 2
    each, troubles = per_model(savers.SaveOptions(input_example={"x": A}), ["a", "b"])
    assert [options.input_example["x"] is A for options in each] == [True, True]
    assert troubles == []
