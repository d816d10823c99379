"""Every model of the zoo predicts the same everywhere, or was said not to when it was saved."""

from __future__ import annotations

import pytest

from tests.zoo.harness import Row, environment, run
from tests.zoo.page import FAMILIES, PAGE, names_in, part, table

ENVIRONMENT = environment()
PART = part(PAGE.read_text(), ENVIRONMENT)


@pytest.fixture(scope="module")
def rows(empty_store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """What became of each model."""
    return run(FAMILIES[ENVIRONMENT], tmp_path_factory.mktemp("zoo"), empty_store)


@pytest.mark.parametrize("name", names_in(PART))
def test_a_model_comes_out_again_or_is_said_not_to(rows: dict[str, Row], name: str):
    """None loads nowhere without a word; none is refused without its gap being known."""
    row = rows[name]
    assert row.with_code != "no", row.trouble
    if row.gap:
        assert not row.is_whole, f"{name} works by now: take its gap out of the zoo"
    elif not row.is_whole:
        assert row.said, row.trouble
        assert row.forms != "none", f"Keras saves it, and it was refused: {row.said}"
        assert any("redict" in sentence for sentence in row.said), row.said


def test_the_page_is_what_was_found(rows: dict[str, Row]):
    """Made anew it is the same."""
    assert table(rows) == PART, "run `make zoo`"
