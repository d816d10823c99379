"""Collect a run's source, commit, user, machine and versions, as MLflow tags and pip requirements."""

from __future__ import annotations

import ast
import contextlib
import functools
import getpass
import importlib.metadata
import inspect
import os
import platform
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlwrap._capture.redact import Redactor
from mlwrap._journal.tags import TagName
from mlwrap._process.git import checkout
from mlwrap._process.mlflow_settings import current_directory

__all__ = ["code", "pins", "provenance"]

_FRAMEWORKS = ("tensorflow", "keras", "tf_keras", "jax", "torch", "numpy")

_ALTERNATIVES = {
    "tensorflow": (
        "tensorflow-cpu",
        "tensorflow-intel",
        "tensorflow-macos",
        "tensorflow-rocm",
        "tensorflow-gpu",
        "tf-nightly",
        "tf-nightly-cpu",
        "intel-tensorflow",
    ),
    "keras": ("keras-nightly",),
    "xgboost": ("xgboost-cpu",),
    "onnxruntime": ("onnxruntime-gpu",),
}
"""Other distributions of a package; the installed one is pinned."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def provenance(func: Callable[..., Any] | None = None, redactor: Redactor | None = None) -> dict[str, str]:
    """Return tags about a run's origin; omit those whose value is unknown.

    Args:
        func: The tracked function; without one the commit is that of the main script's folder.
        redactor: Removes secrets from addresses and arguments; by default a new one.
    """
    redactor = redactor or Redactor()
    function = None if func is None else inspect.unwrap(func)
    name, source_type, script = _source()
    git = checkout(_folder(function, script))
    tags = {
        "mlflow.source.name": redactor.text(name),
        "mlflow.source.type": source_type,
        "mlflow.user": _user(),
        "mlflow.source.git.commit": git.commit,
        "mlflow.source.git.branch": git.branch and redactor.text(git.branch),
        "mlflow.source.git.repoURL": git.remote and redactor.text(git.remote),
        TagName.GIT_DIRTY: None if git.dirty is None else str(git.dirty).lower(),
        TagName.VERSION: getattr(sys.modules["mlwrap"], "__version__", None),
        TagName.PYTHON: platform.python_version(),
        TagName.HOST: platform.node(),
        TagName.ARGV: redactor.text(" ".join(redactor.arguments(sys.argv))),
        TagName.FUNCTION: _function_path(function),
        TagName.VERSIONS: _versions(),
    }
    return {tag: text for tag, text in tags.items() if text}


def code(func: Callable[..., Any]) -> str:
    """Return a function's name and source without decorators and comments, or else its bytecode."""
    function = inspect.unwrap(getattr(func, "__func__", func))
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if not inspect.isroutine(function):  # a callable object
        function = type(function).__call__
    name = getattr(function, "__qualname__", "")
    with contextlib.suppress(OSError, TypeError):
        source = textwrap.dedent(inspect.getsource(function))
        with contextlib.suppress(SyntaxError):  # a lambda inside an expression
            tree = ast.parse(source)
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    node.decorator_list = []
            source = ast.unparse(tree)
        return f"{name}\n{source}"
    compiled = getattr(function, "__code__", None)
    constants = _ADDRESS.sub("", repr(getattr(compiled, "co_consts", "")))
    return f"{name}\n{getattr(compiled, 'co_code', b'').hex()} {constants}"


def pins(packages: Iterable[str]) -> tuple[str, ...]:
    """Return pip requirements that pin distributions to their installed versions.

    Args:
        packages: Names of distributions (``tensorflow``, ``keras``). One that is not installed, under this
            or an alternative name, is omitted.
    """
    return tuple(dict.fromkeys(pin for name in packages if (pin := _pin(name)) is not None))


@lru_cache(maxsize=256)
def _pin(package: str) -> str | None:
    for name in (package, *_ALTERNATIVES.get(package, ())):
        try:
            version = importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
        if version:
            # Indexes have no local versions (2.1.0+cpu); a pin without the local part accepts them.
            return f"{name}=={version.partition('+')[0]}"
    return None


def _source() -> tuple[str, str, str | None]:
    """Return the name and MLflow's type of the running program, and the main script's file if it has one."""
    main = sys.modules.get("__main__")
    if "ipykernel" in sys.modules:
        notebook = getattr(main, "__vsc_ipynb_file__", None) or os.environ.get("JPY_SESSION_NAME")
        return notebook or "notebook", "NOTEBOOK", notebook
    script = getattr(main, "__file__", None)
    return script or (sys.argv[0] if sys.argv else "") or "python", "LOCAL", script


def _folder(function: Any, script: str | None) -> str:
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    for file in (getattr(code, "co_filename", None), script):
        with contextlib.suppress(FileNotFoundError):  # the working directory was removed
            if file and (folder := _folder_of(os.path.abspath(file))) is not None:  # noqa: PTH100 - see below
                return folder
    return str(current_directory())


@lru_cache(maxsize=256)
def _folder_of(file: str) -> str | None:
    return str(Path(file).resolve().parent) if Path(file).is_file() else None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        return None


def _function_path(function: Any) -> str | None:
    name = getattr(function, "__qualname__", None)
    return f"{getattr(function, '__module__', None)}:{name}" if name else None


def _versions() -> str:
    versions = ((name, getattr(sys.modules.get(name), "__version__", None)) for name in _FRAMEWORKS)
    return ", ".join(f"{name} {version}" for name, version in versions if isinstance(version, str))
