"""Own names become MLflow's, and come back."""

import pytest
from mlflow.utils.validation import _validate_param_name

from mlwrap._capture.mlflow_names import from_mlflow_name, to_mlflow_name


@pytest.mark.parametrize(
    "name", ["units", "optimizer.learning_rate", "a b", "a/b", "a:b", "top-1", "größe", "a..b", "a.", ".a"]
)
def test_what_mlflow_takes_is_left_alone(name):
    """No name changes without need."""
    assert to_mlflow_name(name) == from_mlflow_name(name) == name


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ("", "-x-"),
        ("a(b)", "a-x28-b-x29-"),
        ("x" + "-x28-", "x-x2d-x28-"),
        ("/a", "-x2f-a"),
        ("a//b", "a-x2f-/b"),
        ("a/", "a-x2f-"),
        (".", "-x2e-"),
        ("..", "-x2e--x2e-"),
        ("a/../b", "a/-x2e--x2e-/b"),
        ("./a", "-x2e-/a"),
        ("..a", "-x2e--x2e-a"),
        ("a\n", "a-xa-"),
        ("a\ud800", "a-xd800-"),
    ],
)
def test_what_it_refuses_is_spelled_out_and_back(own, name):
    """Each kind of refusal has its example."""
    assert to_mlflow_name(own) == name
    assert from_mlflow_name(name) == own
    _validate_param_name(name)


def test_long_names_are_cut_with_a_digest():
    """Two long names that begin alike stay two, and say that they were cut."""
    one, two = to_mlflow_name("a." * 200 + "one"), to_mlflow_name("a." * 200 + "two")
    assert len(one) == len(two) == 250
    assert one != two
    with pytest.raises(ValueError, match=r"params\.json"):
        from_mlflow_name(one)
