"""Every Python block of the README and of the docs runs, in a world of its own; each page is one program."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

_HERE = Path.cwd()


def _setup(namespace: dict) -> None:
    world = tempfile.TemporaryDirectory(prefix="mlwrap-docs-")
    namespace["_world"] = world
    namespace["_environment"] = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("MLWRAP_", "MLFLOW_")):
            del os.environ[name]
    os.environ |= {"HOME": world.name, "TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true"}
    os.chdir(world.name)
    if "mlflow" in sys.modules:  # of the page before, whose store is gone
        sys.modules["mlflow"].set_tracking_uri(None)


def _teardown(namespace: dict) -> None:
    os.chdir(_HERE)
    os.environ.clear()
    os.environ.update(namespace["_environment"])
    namespace["_world"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"], setup=_setup, teardown=_teardown
).pytest()
