"""Which rooms import which: read from the code's own imports."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import mlwrap

ROOT = Path(mlwrap.__file__).parent
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]
FOLDERS = sorted({path.parent for path in MODULES})
ROOMS = [folder for folder in FOLDERS if folder.parent == ROOT]


def name_of(path: Path) -> str:
    """The dotted name of a module."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room, or the module at the top, that a module of mlwrap's belongs to."""
    return f"{module}.".split(".")[1]


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A module's source, without what only a type checker imports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    return tree


def texts(path: Path) -> Iterator[str]:
    """The texts in a module that are no docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def imported(path: Path) -> Iterator[str]:
    """The modules that a module imports, wherever in it."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                place = ROOT.parent / node.module.replace(".", "/") / alias.name
                is_module = place.is_dir() or place.with_suffix(".py").exists()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def imported_of_mlwrap(path: Path) -> set[str]:
    """Those of them that are mlwrap's."""
    return {name for name in imported(path) if name.startswith("mlwrap.")}


def graph_of_rooms() -> dict[str, set[str]]:
    """What each room imports of the others."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        room = room_of(name_of(path))
        graph.setdefault(room, set()).update(map(room_of, imported_of_mlwrap(path)))
    return {room: others - {room} for room, others in graph.items()}
