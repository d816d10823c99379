"""The page about speed says what was measured, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch):
    """The module that makes the page; the benchmarks are scripts, and no package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import render as module  # noqa: PLC0415 - found by what stands above

    yield module
    for name in ("render", "figures"):
        sys.modules.pop(name, None)


def test_the_page_is_what_the_results_say(render):
    """Made anew it is the same: nobody has edited it, and no result was left out."""
    assert render.PAGE.read_text() == render.page(render.stored()), "run benchmarks/render.py"


def test_the_readme_is_what_the_results_say(render):
    """Its figure and its table are between two marks."""
    text = render.README.read_text()
    assert text.count(render.BEGIN) == text.count(render.END) == 1
    assert text == render.readme(text, render.stored()), "run benchmarks/render.py"


def test_the_figures_are_drawn_from_the_results(render):
    """Each says what it was drawn from; matplotlib is not asked to draw it again."""
    results = render.stored()
    drawn = {render.ALL: render.figures.shown(results), render.GROWTH: render.figures.growths(results)}
    for path, data in drawn.items():
        assert render.figures.stamp(data) in path.read_text(), "run benchmarks/render.py"


def test_every_claim_stands_in_the_page(render):
    """With the word whether it is reached; what could not be measured, too."""
    rows = {row["claim"] for result in render.stored().values() for row in result["rows"]}
    assert {f"P{number}" for number in range(1, 19)} <= rows & set(render.CLAIMS)


def test_every_result_has_a_script_and_its_place(render):
    """A script that is renamed leaves nothing behind."""
    for name in render.stored():
        assert name in render.ORDER
        assert (ROOT / "benchmarks" / f"{name}.py").exists()


def test_results_name_no_folder_of_a_machine(render):
    """They are published."""
    for path in (*render.RESULTS.glob("*.json"), render.PAGE, render.ALL, render.GROWTH):
        assert not re.search(r"(/home/|/root/|/tmp/|/work/|/Users/)", path.read_text()), path
