"""The package's layers: rooms import what their signs say, nothing imports in a circle, all stays small."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlwrap

ROOT = Path(mlwrap.__file__).parent
LINES, FILES = 300, 12
MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]
FOLDERS = sorted({path.parent for path in MODULES})
ROOMS = [folder for folder in FOLDERS if folder.parent == ROOT]
FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "tensorflow_estimator", "torch", "jax"}
RECORDING_HALF = {
    "_capture",
    "_process",
    "_savers",
    "_returned",
    "_recording",
    "_run",
    "_sweeps",
    "_decorator",
}


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


def reached(room: str) -> set[str]:
    """The rooms that a room imports, and those that these import."""
    graph, found, left = graph_of_rooms(), set(), {room}
    while left:
        found |= left
        left = {other for each in left for other in graph[each]} - found
    return found


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_imports_what_its_sign_says(room: Path):
    """The sign is a question, the rooms that it imports, and what it never does."""
    question, _, rest = (ast.get_docstring(parsed(room / "__init__.py")) or "").partition("\n")
    assert question.endswith("?")
    assert "never" in rest.lower()
    said = rest.partition("May import: ")[2].partition(".")[0].replace("\n", " ")
    assert set(said.split(", ")) - {"nothing of mlwrap"} == graph_of_rooms()[room.name]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT.parent)))
def test_a_folder_is_small_and_says_what_it_is_for(folder: Path):
    """At most twelve modules beside its ``__init__``."""
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= FILES
    assert ast.get_docstring(parsed(folder / "__init__.py"))


def test_no_import_runs_in_a_circle():
    """Neither between modules nor between rooms, also where a function imports late."""
    modules = {name_of(path): imported_of_mlwrap(path) for path in MODULES}
    for graph in (modules, graph_of_rooms()):
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short(path: Path):
    """Or says at its top why it is not."""
    lines = path.read_text().splitlines()
    assert len(lines) <= LINES or "lines" in (ast.get_docstring(parsed(path)) or "")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_mlflow_room_imports_mlflow(path: Path):
    """And the code that travels with a model, which stock MLflow loads."""
    rooms = {name.partition(".")[0] for name in imported(path)}
    assert ("mlflow" not in rooms) or room_of(name_of(path)) == "_mlflow"


@pytest.mark.parametrize("room", ["_mlflow", "_delivery", "_sender"])
def test_the_delivery_half_knows_neither_frameworks_nor_the_recording_half(room: str):
    """What it needs is in the run folder."""
    assert not reached(room) & RECORDING_HALF
    for path in (ROOT / room).rglob("*.py"):
        assert not {name.partition(".")[0] for name in imported(path)} & FRAMEWORKS


def test_one_saver_alone_imports_mlflow_late():
    """The saver of frameworks that MLflow has a flavor for: by name, and inside functions."""
    found = set()
    for path in MODULES:
        tree = parsed(path)
        late = {node for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {
                "import_module",
                "__import__",
            }:
                name = ast.unparse(node.args[0])
                if "mlflow" in name:
                    assert node in late, f"{path} imports {name} when it is imported"
                    found.add(str(path.relative_to(ROOT)))
    assert found == {"_savers/pickle_free.py"}
