"""What is public is documented, typed and loads; nothing else shows."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import mlwrap

ROOT = Path(mlwrap.__file__).parent
PAGES = [ROOT.parent / "README.md", *sorted((ROOT.parent / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
MODULES = ("config", "errors", "keras", "savers", "testing")  # and estimator, where TensorFlow has Estimators


def test_every_public_name_is_documented():
    """Somewhere in the README or the docs, by its name."""
    for name in mlwrap.__all__:
        assert re.search(rf"\b{name}\b", TEXT), f"no page names mlwrap.{name}"


def test_type_checkers_see_the_same_names():
    """What ``TYPE_CHECKING`` imports is what loads when it is used."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    block = next(
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    typed = {
        alias.asname or alias.name
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert typed == {*mlwrap.__all__, *MODULES, "estimator"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_shows_its_public_names_alone(name: str):
    """``__all__`` is sorted, all in it is there, and the docs name the module."""
    module = importlib.import_module(f"mlwrap.{name}")
    assert list(module.__all__) == sorted(module.__all__)
    for public in module.__all__:
        assert getattr(module, public).__doc__
    assert f"mlwrap.{name}" in TEXT or f"from mlwrap import {name}" in TEXT


def test_savers_holds_what_a_saver_needs_and_nothing_else():
    """Also for whoever looks at it with ``dir``."""
    savers = importlib.import_module("mlwrap.savers")
    assert savers.__all__ == [
        "Metrics",
        "SaveOptions",
        "Saved",
        "Saver",
        "Signature",
        "TensorSpec",
        "register",
    ]
    assert {name for name in vars(savers) if name.isidentifier() and name[0] != "_"} == set(savers.__all__)


def test_public_modules_are_attributes_of_the_package(python):
    """``import mlwrap`` is enough to write ``mlwrap.keras.MetricsCallback``."""
    done = python(
        "import mlwrap\nprint(mlwrap.keras.MetricsCallback.__name__, mlwrap.savers.Saver.__name__)\n"
        "print(mlwrap.testing.__name__, mlwrap.errors.__name__, mlwrap.config.__name__)\n"
    )
    assert done.stdout == "MetricsCallback Saver\nmlwrap.testing mlwrap.errors mlwrap.config\n"


def test_a_renamed_class_keeps_its_old_name_for_one_version():
    """With a ``DeprecationWarning`` that names the new one."""
    with pytest.warns(DeprecationWarning, match=r"mlwrap\.SweepPoint is deprecated: use mlwrap\.SweepTrial"):
        assert mlwrap.SweepPoint is mlwrap.SweepTrial


def test_a_renamed_attribute_keeps_its_old_name_for_one_version(spool: Path):
    """Likewise ``Run.around``."""
    with (
        mlwrap.model_run("outer", delivery="off") as outer,
        mlwrap.model_run("inner", delivery="off") as inner,
    ):
        assert (inner.parent, outer.parent) == (outer, None)
        with pytest.warns(DeprecationWarning, match=r"Run\.around is deprecated: use Run\.parent"):
            assert inner.around is outer
