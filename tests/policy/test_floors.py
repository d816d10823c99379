"""The house: a module imports only from lower floors, a room from outside only by its name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mlwrap

ROOT = Path(mlwrap.__file__).parent

# From the bottom up; what stands on one floor does not know what stands beside it.
FLOORS = (
    ("errors",),
    ("config", "_passwords", "_travel", "_aside"),
    (
        "_capture",
        "_journal",
        "_background",
        "_lifetime",
        "_logged_model",
        "_number",
        "_pace",
        "_pyfunc_loader",
        "_report",
        "_shipped_loader",
        "_autolog",
        "_fit_params",
    ),
    ("_best", "_learning_rates", "_keras_hook", "_tuner_trial"),
    ("savers", "_delivery", "_clock", "_said", "_grid"),
    ("_stage_checksums", "_sweep_table", "_system_metrics"),
    ("_artifacts", "_points", "_models", "_unrecorded"),
    ("_recorder",),
    ("_ending",),
    ("_harmless", "_handover"),
    ("_training", "_known"),
    ("_run", "_sync"),
    ("_fluent",),
    ("_around",),
    ("_model_run", "_loading", "estimator", "keras", "testing", "_sweep_job"),
    ("_sweep",),
    ("_tracking",),
    ("_tracked", "_verify"),
    ("_decorator",),
    ("_shell",),
    ("cli",),
    ("__init__", "__main__", "_pytest"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LINES = 300
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """The room that a module stands in."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> list[str]:
    """The modules of mlwrap's own that a module imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "mlwrap":
            found += [f"mlwrap.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlwrap":
            found.append(node.module or "")
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "mlwrap"]
    return found


def room_of(module: str) -> str:
    """The room that an imported module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_lower_floors(path: Path):
    """Or from its own room."""
    here = name_of(path)
    assert here in FLOOR, f"{here} stands on no floor: add it to FLOORS"
    for module in imported(path):
        there = room_of(module)
        assert there == here or FLOOR[there] < FLOOR[here], f"{here} may not import {there}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_is_entered_by_its_door(path: Path):
    """From outside, the room is imported and not a file in it."""
    here = name_of(path)
    for module in imported(path):
        assert module.count(".") < 2 or room_of(module) == here, f"{here} imports the file {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short(path: Path):
    """Or says at its top why it is not."""
    lines = path.read_text().splitlines()
    assert len(lines) <= LINES or "lines" in (ast.get_docstring(ast.parse(path.read_text())) or "")


def top_level_imports(path: Path) -> set[str]:
    """The packages that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_one_room_alone_imports_mlflow_and_it_no_framework(path: Path):
    """The training half never imports MLflow, the delivery half never imports TensorFlow."""
    found = top_level_imports(path)
    if name_of(path) == "_delivery":
        assert not found & {"tensorflow", "keras", "tf_keras", "tensorflow_estimator", "torch", "jax"}
    else:
        assert "mlflow" not in found


# The saver of frameworks that MLflow has a flavor for, and only while it saves or loads.
IMPORTS_MLFLOW_LATE = {"savers/_flavor_formats.py"}


def test_one_saver_alone_imports_mlflow_late():
    """The one exception: by name, and inside functions."""
    found = set()
    for path in MODULES:
        tree = ast.parse(path.read_text())
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
    assert found == IMPORTS_MLFLOW_LATE


def test_every_room_has_a_sign():
    """Its question, what it may import, what it never does."""
    for room in ("_capture", "_journal", "_delivery", "savers"):
        sign = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
        assert sign.splitlines()[0].endswith("?")
        assert "import" in sign
        assert "never" in sign.lower()
