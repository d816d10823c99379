"""Verify a model's files by their manifest, before any of them is opened."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from mlwrap._mlflow.model_files.files import digest
from mlwrap._shipped.loader import is_bytecode
from mlwrap.errors import LoadError

# Files that are not in the manifest: MLmodel, which is read as plain data, and the note that MLflow adds to
# a download from the registry.
_UNLISTED = {"MLmodel", "registered_model_meta"}


def check_manifest(folder: Path, expected: Mapping[str, str], uri: str) -> None:
    """Compare every file in ``folder`` with the manifest that was logged with them.

    Args:
        folder: A logged model's folder.
        expected: SHA-256 of every file but ``MLmodel``, which contains this manifest, by relative path.
        uri: The model's URI, as the user wrote it.

    Raises:
        LoadError: A file differs, is missing, or was added; the message names it. Bytecode of a logged file
            is no addition: Python writes it when stock MLflow loads the model, and mlwrap does not read it.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not _is_folder(path)}
    for name, path in files.items():
        if not stat.S_ISREG(path.lstat().st_mode):
            raise _differs(uri, folder, name, "is a link or a device, expected a file")
        if name not in expected and name not in _UNLISTED and not is_bytecode(name, expected):
            raise _differs(uri, folder, name, "was not logged with the model")
    for name, sha256 in expected.items():
        if name not in files:
            raise _differs(uri, folder, name, "was logged with the model, and is not there")
        if digest(files[name]) != sha256:
            raise _differs(uri, folder, name, "is not the file that was logged: its SHA-256 differs")


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _differs(uri: str, folder: Path, name: str, problem: str) -> LoadError:
    return LoadError(
        f"{uri} was changed after it was logged, so nothing of it is opened: {name} {problem}. It lies in "
        f"{folder}. Bring back what was logged, or log the model again; if this is a downloaded copy, remove "
        "it with 'mlwrap clean --cache' and load again."
    )
