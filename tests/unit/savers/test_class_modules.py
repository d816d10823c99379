"""Modules that register a model's classes: which may be imported, and which can be at all."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from mlwrap._savers.class_modules import import_modules, import_problem, is_installed
from mlwrap.errors import LoadError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Modules of the user's own on the path: one that is whole, and one that breaks."""
    folder = tmp_path / "own"
    (folder / "mine_package").mkdir(parents=True)
    (folder / "mine_package" / "__init__.py").touch()
    (folder / "mine_package" / "inner.py").write_text("class Outer:\n    class Inner: ...\n")
    (folder / "mine_broken.py").write_text("raise SystemExit('no device')\n")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]


def test_a_module_on_the_path_needs_trust(own: Path):
    """Nothing of it runs before that: not even its package."""
    with pytest.raises(LoadError, match=r"classes of mine_package\.inner.*trust=True"):
        import_modules(["mine_package.inner"], trust=False)
    assert "mine_package" not in sys.modules
    import_modules(["mine_package.inner"], trust=True)
    assert "mine_package.inner" in sys.modules
    import_modules(["mine_package.inner"], trust=False)  # imported already, whoever did it


def test_an_installed_module_needs_none(monkeypatch: pytest.MonkeyPatch):
    """It is code that was installed on purpose; the standard library is not what registers layers."""
    assert is_installed("iniconfig.exceptions")
    assert not is_installed("antigravity")
    assert not is_installed("os")
    monkeypatch.delitem(sys.modules, "iniconfig.exceptions", raising=False)
    import_modules(["iniconfig.exceptions"], trust=False)
    assert "iniconfig.exceptions" in sys.modules


@pytest.mark.parametrize("name", ["nowhere_to_be_found", "../evil", "a b", ""])
def test_a_module_that_is_not_here(name: str):
    """Named, with what to do; what is no name of a module is none."""
    with pytest.raises(LoadError, match=r"can't be found here\. Install"):
        import_modules([name], trust=True)


def test_a_module_that_breaks(own: Path):
    """Even by leaving."""
    with pytest.raises(LoadError, match="mine_broken, which could not be imported: SystemExit: no device"):
        import_modules(["mine_broken"], trust=True)


def test_what_importing_brings_back(own: Path):
    """A class at the top of a module, or in a class there; not one that is made, replaced, or of a script."""
    inner = importlib.import_module("mine_package.inner")
    assert import_problem(inner.Outer) is None
    assert import_problem(inner.Outer.Inner) is None

    class Made: ...

    assert "made inside a function" in (import_problem(Made) or "")
    assert "__main__" in (import_problem(type("Script", (), {"__module__": "__main__"})) or "")
    replaced, inner.Outer = inner.Outer, Made
    assert "something else by now" in (import_problem(replaced) or "")


def test_a_module_that_is_on_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As one that was loaded from its file."""
    (tmp_path / "loaded_by_hand.py").write_text("class Layer: ...\n")
    spec = importlib.util.spec_from_file_location("loaded_by_hand", tmp_path / "loaded_by_hand.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "loaded_by_hand", module)
    spec.loader.exec_module(module)
    assert "no module loaded_by_hand is on Python's path" in (import_problem(module.Layer) or "")
