"""What MLflow's documentation does not describe is used through one module."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlwrap._mlflow import undocumented
from tests.policy.package_graph import MODULES, ROOT, parsed, texts

# https://mlflow.org/docs/latest/api_reference/python_api/index.html; MlflowException is described by the
# functions that raise it, ArtifactRepository by the guide to plugins.
DOCUMENTED = {
    "mlflow",
    "mlflow.artifacts",
    "mlflow.entities",
    "mlflow.entities.model_registry",
    "mlflow.exceptions",
    "mlflow.keras",
    "mlflow.models",
    "mlflow.models.signature",
    "mlflow.pyfunc",
    "mlflow.pytorch",
    "mlflow.store.artifact.artifact_repo",
    "mlflow.tensorflow",
    "mlflow.types.schema",
}


def used(path: Path) -> Iterator[str]:
    """The modules of MLflow's that a module names, and the private names that it takes from them."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name[0] == "_")
    for text in texts(path):
        if re.fullmatch(r"mlflow(\.\w+)+", text) and _is_module(text):
            yield text


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a tag's name, such as mlflow.source.name
        return False


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_other_modules_use_what_is_documented(path: Path):
    """An undocumented module or name of MLflow's stands in ``_mlflow/undocumented.py``."""
    if path.name != "undocumented.py":
        names = {name for name in used(path) if name.partition(".")[0] == "mlflow"}
        assert names <= DOCUMENTED
        assert "mlflow" not in path.name or "SLF001" not in path.read_text()


def test_the_check_sees_what_is_undocumented(tmp_path: Path):
    """An import, a private name, and a module that is named in a text."""
    module = tmp_path / "module.py"
    module.write_text(
        '"""mlflow.tracking"""\nimport mlflow.utils.rest_utils\nfrom mlflow.models import _x\n'
        'a = "mlflow.tracking.fluent"\n'
    )
    assert set(used(module)) - DOCUMENTED == {
        "mlflow.utils.rest_utils",
        "mlflow.models._x",
        "mlflow.tracking.fluent",
    }


def test_each_undocumented_name_is_used():
    """One that is needed no more goes."""
    everything = "".join(path.read_text() for path in MODULES if path.name != "undocumented.py")
    names = {
        name
        for name, value in vars(undocumented).items()
        if name.isupper() and not name.startswith("_") and value
    }
    assert len(names) > 8
    for name in names:
        assert re.search(rf"\b{name}\b", everything), f"{name} is not used"
