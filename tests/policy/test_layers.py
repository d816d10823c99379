"""The package's layers: rooms import what their signs say, nothing imports in a circle, all stays small."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

import pytest

from mlwrap._journal.tags import TagName
from tests.policy import package_picture
from tests.policy.package_graph import (
    FOLDERS,
    MODULES,
    ROOMS,
    ROOT,
    graph_of_rooms,
    imported,
    imported_of_mlwrap,
    name_of,
    parsed,
    room_of,
    texts,
)

LINES, FILES = 300, 12
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


def test_contributing_quotes_every_sign():
    """The page that says where to change what asks the same questions."""
    page = (ROOT.parent / "CONTRIBUTING.md").read_text()
    for room in ROOMS:
        question = (ast.get_docstring(parsed(room / "__init__.py")) or "").partition("\n")[0]
        assert f"| `{room.name}` | {question.replace('``', '`')} |" in page


def test_contributing_names_files_that_exist():
    """A file that has moved is named where it is now."""
    page = (ROOT.parent / "CONTRIBUTING.md").read_text()
    walks = (ROOT.parent / "docs" / "explanation" / "five-walks.md").read_text()
    named = re.findall(r"`(_\w+/[\w/]*(?:\.py)?)`", page + walks)
    assert len(named) > 60
    for path in named:
        assert (ROOT / path).exists(), path


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
    """Beside MLflow's own room: the saver of frameworks that MLflow has a flavor for, inside functions."""
    found = set()
    for path in (path for path in MODULES if path.relative_to(ROOT).parts[0] != "_mlflow"):
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


def test_a_tag_is_named_in_one_place():
    """Every ``mlwrap.*`` tag is a constant of ``_journal/tags.py``, which no other module spells out."""
    names = {value for name, value in vars(TagName).items() if name.isupper()}
    assert len(names) > 20
    for path in MODULES:
        spelled = names & set(texts(path))
        assert path.name == "tags.py" or not spelled, f"{path} spells out {spelled}"


def test_the_picture_of_the_package_is_drawn_from_its_imports():
    """``python -m tests.policy.package_picture`` draws it again."""
    assert package_picture.PICTURE.read_text() == package_picture.drawn()
