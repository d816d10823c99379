"""Paths in what is returned: which texts are paths, and copies of what they lead to."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from mlwrap._spool.copy_files import copy_regular
from mlwrap.errors import LoadError, SaveError

_MAX_PATH_LENGTH = 4096  # characters; no file system takes more
_MAX_BYTES = 1 << 30
_MAX_FILES = 10_000


def named_path(value: object) -> Path | None:
    """``value`` as a path, if that is what it is, or text that could be one; whether it is there or not."""
    if not isinstance(value, str | bytes | os.PathLike):
        return None
    try:
        text = os.fsdecode(value)
    except Exception:  # noqa: BLE001  # somebody's own __fspath__, or bytes that are no text
        return None
    return Path(text) if text and len(text) <= _MAX_PATH_LENGTH and "\0" not in text else None


def inside(folder: Path, name: object) -> Path:
    """The path ``name``, which a model's own description gives, in its folder.

    Raises:
        LoadError: It leads out of the folder.
    """
    path = PurePosixPath(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise LoadError(
            f"The model's description names {str(name)!r}, which is not among its own files. "
            "It was changed after it was logged: do not load it."
        )
    return folder / path


def result_path(value: str | bytes, since: float) -> Path | None:
    """The path that a text is, if it is unmistakably one to a result of this run; else ``None``.

    Most texts that name a file were there before: settings, data, keys. So a text is a path only if what it
    leads to was made or changed since the run began, and is

    * a model: a SavedModel folder, or a checkpoint by its prefix or its folder; or
    * a regular file, and the text has a separator or an ending (``out/scores``, ``scores.csv``).

    Args:
        value: The text; bytes are what ``export_saved_model`` of an Estimator returns.
        since: When the run began, in seconds since the epoch.
    """
    path = named_path(value)
    if path is None or "\n" in str(path):
        return None
    text = os.fsdecode(value)
    if os.path.isfile(text):  # noqa: PTH113  # Path.is_file() raises what this one takes for a no
        proof: str | None = text if os.sep in text or path.suffix else None
    else:
        inside = (f"{text}/saved_model.pb", f"{text}/checkpoint", f"{text}.index")
        proof = next(filter(os.path.isfile, inside), None)
    return path if proof is not None and _changed(proof) >= since else None


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_ctime  # noqa: PTH116  # not the time in it that can be set, and is copied along
    except OSError:
        return float("-inf")


def copy_result(source: Path, target: Path) -> None:
    """Copy a returned file or folder that is no model.

    Raises:
        SaveError: It is empty, or more than anybody would expect to be copied by returning its path.
        SpoolError: It is not there, can't be read, or holds what is no regular file.
    """
    size, count = _measured(source)
    if size > _MAX_BYTES or count > _MAX_FILES:
        raise SaveError(
            f"{source} holds more than {_MAX_BYTES >> 30} GiB or {_MAX_FILES:,} files, which is not copied "
            "for having been returned. run.log_artifact() logs it, whatever its size."
        )
    if not count and source.is_dir():
        raise SaveError(f"the folder {source} holds no files, and MLflow keeps no empty folders.")
    copy_regular(source, target)


def _measured(source: Path) -> tuple[int, int]:
    """Bytes and files of a folder, counted no further than is needed to know that it is too much."""
    size = count = 0
    for folder, inside, names in os.walk(source):
        links = (name for name in inside if os.path.islink(os.path.join(folder, name)))  # noqa: PTH114, PTH118
        for name in (*names, *links):
            try:
                size += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  # many of them
            except OSError:  # removed in this moment: copying it will say so
                continue
            count += 1
        if size > _MAX_BYTES or count > _MAX_FILES:
            break
    if not source.is_dir() and source.is_file():
        size = source.stat().st_size
    return size, count
