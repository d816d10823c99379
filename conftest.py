"""Every block of the README and of the docs runs, in a world of its own; each page is one program.

A Python block whose first line is a comment with a file's name is written to that file instead, for
the commands in the page's shell blocks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

_HERE = Path.cwd()


def _setup(namespace: dict) -> None:
    world = tempfile.TemporaryDirectory(prefix="mlwrap-docs-")
    namespace["_world"] = world
    namespace["_environment"] = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("MLWRAP_", "MLFLOW_")):
            del os.environ[name]
    os.environ |= {"HOME": world.name, "TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.environ["MLWRAP_DEADLINE"] = (
        "120"  # a busy machine makes a store in its own time, and the blocks look into it
    )
    os.chdir(world.name)
    if "mlflow" in sys.modules:  # of the page before, whose store is gone
        sys.modules["mlflow"].set_tracking_uri(None)


def _teardown(namespace: dict) -> None:
    os.chdir(_HERE)
    os.environ.clear()
    os.environ.update(namespace["_environment"])
    namespace["_world"].cleanup()


class _PythonOrFile(PythonEvaluator):
    """Run a block, or write the file that it is."""

    def __call__(self, example: Example) -> None:
        if name := re.match(r"# (\w+\.py)\n", example.parsed):
            Path(name[1]).write_text(example.parsed)
        else:
            super().__call__(example)


def _shell(example: Example) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    subprocess.run(["bash", "-euc", example.parsed], check=True, env=environment)  # noqa: S603, S607 - ours


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser("python", _PythonOrFile()), CodeBlockParser("shell", _shell), SkipParser()],
    patterns=["*.md"],
    setup=_setup,
    teardown=_teardown,
).pytest()
