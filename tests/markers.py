"""Which tests are fast: told by what a test file imports and which fixtures a test asks for.

``slow`` tests start processes, ``server`` tests an MLflow server, ``tensorflow`` tests use a framework.
``make test-fast`` runs the others.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

MARKERS = {
    "slow": "starts processes",
    "server": "starts an MLflow server",
    "tensorflow": "needs TensorFlow or Keras",
    "more": "takes long, or needs what is not installed everywhere; 'make test-more' runs it",
}
_FRAMEWORK = re.compile(
    r"^\s*(import|from) (tensorflow|keras|tf_keras|torch|jax)\b|importorskip\(\"(tensor|k)", re.MULTILINE
)
_SERVER = re.compile(r"tests\.(faults|stores)\.servers")
_PROCESS = re.compile(r"\bsubprocess\.|\bpopen|multiprocessing|ProcessPool|loky|n_jobs=", re.IGNORECASE)
_FIXTURES = {
    "slow": {"python", "script", "shell", "sender", "travel"},
    "server": {"on_sqlite", "on_postgres", "proxy"},
}
_FOLDERS = {"zoo": "tensorflow", "backends": "tensorflow", "integration": "tensorflow", "faults": "slow"}


def mark(item: pytest.Item) -> None:
    """Mark one test."""
    for marker in _marks_of_file(item.path):
        item.add_marker(marker)
    for marker, fixtures in _FIXTURES.items():
        if fixtures & set(getattr(item, "fixturenames", ())):
            item.add_marker(marker)


def is_left_out(path: Path, expression: str) -> bool:
    """Tell whether ``-m EXPRESSION`` leaves out a whole file, which need not be imported then."""
    return any(f"not {marker}" in expression for marker in _marks_of_file(path))


@functools.cache
def _marks_of_file(path: Path) -> frozenset[str]:
    if path.suffix != ".py" or not path.name.startswith("test_"):
        return frozenset()
    source = path.read_text()
    marks = {marker for folder, marker in _FOLDERS.items() if folder in path.parts}
    for pattern, marker in ((_FRAMEWORK, "tensorflow"), (_SERVER, "server"), (_PROCESS, "slow")):
        if pattern.search(source):
            marks.add(marker)
    return frozenset(marks)
