"""Recognize paths in returned values, copy the files they name, and keep a model's paths in its folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from mlwrap._spool.copy_files import copy_regular
from mlwrap.errors import LoadError, SaveError

_MAX_PATH_LENGTH = 4096  # characters; no file system takes more
_MAX_BYTES = 1 << 30
_MAX_FILES = 10_000


def named_path(value: object) -> Path | None:
    """Return ``value`` as a path if it is one, or text that could be one; the file need not exist."""
    if not isinstance(value, str | bytes | os.PathLike):
        return None
    try:
        text = os.fsdecode(value)
    except Exception:  # noqa: BLE001  # a user's __fspath__ failed, or the bytes are not text
        return None
    return Path(text) if text and len(text) <= _MAX_PATH_LENGTH and "\0" not in text else None


def inside(folder: Path, name: object) -> Path:
    """Return the path ``name``, which a model's own description contains, inside the model's folder.

    Raises:
        LoadError: The path leads out of the folder.
    """
    path = PurePosixPath(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise LoadError(
            f"The model's description names {str(name)!r}, which is not among its own files. "
            "It was changed after it was logged: do not load it."
        )
    return folder / path


def result_path(value: str | bytes, since: float) -> Path | None:
    """Return the path that ``value`` names if it is surely a result of this run; else ``None``.

    Most texts that name a file name older ones: settings, data, keys. So a text counts as a path only if the
    file that it names was created or changed since the run began, and is

    * a model: a SavedModel folder, or a checkpoint by its prefix or its folder; or
    * a regular file, and the text has a separator or an ending (``out/scores``, ``scores.csv``).

    Args:
        value: The text; bytes are what an Estimator's ``export_saved_model`` returns.
        since: When the run began, in seconds since the epoch.
    """
    path = named_path(value)
    if path is None or "\n" in str(path):
        return None
    text = os.fsdecode(value)
    if os.path.isfile(text):  # noqa: PTH113  # Path.is_file() raises where this returns False
        evidence: str | None = text if os.sep in text or path.suffix else None
    else:
        candidates = (f"{text}/saved_model.pb", f"{text}/checkpoint", f"{text}.index")
        evidence = next(filter(os.path.isfile, candidates), None)
    return path if evidence is not None and _changed_at(evidence) >= since else None


def _changed_at(path: str) -> float:
    try:
        return os.stat(path).st_ctime  # noqa: PTH116  # unlike st_mtime it can't be set, nor is it copied
    except OSError:
        return float("-inf")


def copy_result(source: Path, target: Path) -> None:
    """Copy a returned file or folder that is not a model.

    Raises:
        SaveError: It is empty, or too large to be copied just because its path was returned.
        SpoolError: It does not exist, can't be read, or contains something that is not a regular file.
    """
    size, count = _measure(source)
    if size > _MAX_BYTES or count > _MAX_FILES:
        raise SaveError(
            f"{source} holds more than {_MAX_BYTES >> 30} GiB or {_MAX_FILES:,} files, which is not copied "
            "for having been returned. run.log_artifact() logs it, whatever its size."
        )
    if not count and source.is_dir():
        raise SaveError(f"the folder {source} holds no files, and MLflow keeps no empty folders.")
    copy_regular(source, target)


def _measure(source: Path) -> tuple[int, int]:
    """Return a folder's size in bytes and number of files; stop counting once a limit is exceeded."""
    size = count = 0
    for folder, subfolders, names in os.walk(source):
        links = (name for name in subfolders if os.path.islink(os.path.join(folder, name)))  # noqa: PTH114, PTH118
        for name in (*names, *links):
            try:
                size += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  # many of them
            except OSError:  # removed just now: copying it reports that
                continue
            count += 1
        if size > _MAX_BYTES or count > _MAX_FILES:
            break
    if not source.is_dir() and source.is_file():
        size = source.stat().st_size
    return size, count
