"""Paths of artifacts become paths that every store takes, each another one, and can be told back."""

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwrap._capture.artifact_names import ArtifactNames, storable_name
from mlwrap._capture.mlflow_names import from_mlflow_name

PARTS = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda part: part not in {".", ".."}
)


@pytest.mark.parametrize(
    "part",
    ["plots", "roc curve.png", "größe.txt", "a+b=c&d;e.txt", ".hidden", "a..b", "lr=0.1", "日本"],
)
def test_what_every_store_takes_is_left_alone(part: str):
    """No name changes without need."""
    assert storable_name(part) == part


@pytest.mark.parametrize(
    ("part", "stored"),
    [
        ("a#b", "a-x23-b"),
        ("a?b", "a-x3f-b"),
        ("50%", "50-x25-"),
        ("a%2fb", "a-x25-2fb"),
        ("a\nb", "a-xa-b"),
        ("a\x7f", "a-x7f-"),
        ("a\udce9", "a-xdce9-"),
        (" a", "-x20-a"),
        ("file:", "file-x3a-"),
        ("-x23-", "-x2d-x23-"),
    ],
)
def test_what_a_store_does_not_give_back_is_spelled_out(part: str, stored: str):
    """In the way that names of parameters are."""
    assert storable_name(part) == stored
    assert from_mlflow_name(stored) == part


@given(PARTS)
def test_a_storable_name_fits_and_tells_what_it_was(part: str):
    """Nothing that a URL or a file system loses is in it."""
    stored = storable_name(part)
    assert not re.search(r"[#?%\x00-\x1f\x7f]", stored)
    assert len(stored.encode()) <= 200
    assert storable_name(stored) == stored or "-x" in stored
    if "-xz" not in stored:
        assert from_mlflow_name(stored) == part


def test_names_that_are_cut_stay_apart_and_keep_their_suffix():
    """A long name ends in a digest of itself, and a file's kind can still be seen."""
    one, two = storable_name("n" * 300 + "1.png"), storable_name("n" * 300 + "2.png")
    assert one != two
    assert one.endswith(".png")
    assert len(one) == 200


@given(st.lists(st.lists(st.sampled_from(["a", "b", "a-x-", "c#"]), min_size=1, max_size=3), max_size=12))
def test_no_file_is_ever_stored_where_a_folder_is(paths: list[list[str]]):
    """In whatever order they come; and each path goes to one place only."""
    names, seen = ArtifactNames(), {}
    for parts in paths:
        path = PurePosixPath(*parts)
        stored = names.storable(path)
        names.add(stored, path)
        assert seen.setdefault(stored, path) == path
    folders = {parent for stored in seen for parent in stored.parents}
    assert not folders & set(seen)
    assert names.renamed == {str(stored): str(path) for stored, path in seen.items() if stored != path}
