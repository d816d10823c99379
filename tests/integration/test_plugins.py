"""Savers that installed packages bring: found by entry points, in processes that never heard of them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

MODULE = """
import json

from mlwrap import savers


class Box:
    def __init__(self, content):
        self.content = content


class BoxSaver:
    name = "box"
    format = 1
    default_name = "box"
    frameworks = ("boxes",)

    def matches(self, value):
        return isinstance(value, Box)

    def save(self, value, folder, options):
        if value.content is None:
            raise RuntimeError("an empty box")
        (folder / "box.json").write_text(json.dumps(value.content))
        return savers.Saved(details={"file": "box.json"}, packages=("boxes",))

    def metrics(self, value):
        return ()

    def load(self, folder, details, *, into=None, trust=False):
        return Box(json.loads((folder / details["file"]).read_text()))
"""

TRAIN = """
import boxes, mlwrap
with mlwrap.model_run("r") as run:
    run.record({"a": boxes.Box([1, 2]), "other": 1.5})
print(run.model_uri or run.models[0].status)
"""


def install(site: Path, package: str, module: str, source: str, point: str) -> None:
    """Lay a distribution down as an installer does: its module, and metadata beside it."""
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(textwrap.dedent(source))
    metadata = site / f"{package}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[mlwrap.savers]\n{point}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that child processes find packages in, with one that brings a saver."""
    folder = tmp_path / "site"
    install(folder, "boxes", "boxes", MODULE, "box = boxes:BoxSaver")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    return folder


def test_a_package_teaches_mlwrap_a_type(site: Path, store: str, python):
    """Nobody registers it: it saves in one process, and another one that imports nothing of it loads."""
    trained = python(TRAIN)
    assert trained.stderr == ""
    loaded = python(
        "import sys, mlwrap\n"
        f"box = mlwrap.load_model({trained.stdout.strip()!r})\n"
        "print(type(box).__module__, box.content)"
    )
    assert loaded.stdout == "boxes [1, 2]\n"


def test_a_broken_package_is_named_and_harms_nobody(site: Path, python):
    """One that can't be imported and one that brings no saver: both in warnings, with what to do."""
    install(site, "shattered", "shattered", "raise RuntimeError('glass')", "glass = shattered:Saver")
    install(site, "hollow", "hollow", "class Saver: name = 'hollow'", "hollow = hollow:Saver")
    trained = python(TRAIN, MLWRAP_DELIVERY="off")
    assert trained.stdout == "STAGED\n"
    for words in (
        "'glass' (shattered:Saver) that the package shattered 1.2 brings can't be used: RuntimeError: glass",
        "'hollow' (hollow:Saver) that the package hollow 1.2 brings can't be used: 'hollow'",
        "it has no method save()",
    ):
        assert words in trained.stderr


def test_a_fault_in_a_package_names_the_package(site: Path, python):
    """Not mlwrap, and not the training."""
    done = python(TRAIN.replace("[1, 2]", "None"), MLWRAP_DELIVERY="off")
    assert done.stdout == "FAILED\n"
    words = "could not be saved: The saver 'box' of boxes 1.2 failed: RuntimeError: an empty box"
    assert words in done.stderr


def test_packages_are_not_looked_for_without_need(site: Path, python):
    """A training that returns what is known costs no search, and no import of anybody's package."""
    (site / "boxes.py").write_text("raise RuntimeError('imported')")
    done = python(
        "import sys, mlwrap\n"
        "with mlwrap.model_run('r') as run:\n"
        "    run.record({'loss': [0.5, 0.4], 'note': ('text', {1: 2})})\n",
        MLWRAP_DELIVERY="off",
    )
    assert done.stderr == ""
