"""Paths of artifacts to paths that every store of MLflow's takes and gives back.

Over HTTP MLflow's client puts a path into a URL as it is: what stands behind ``#`` or ``?`` is lost, ``%`` is
decoded, and control characters are dropped; on this machine it decodes ``%``, too (MLflow 3.17). A part that
looks like the scheme of a URL, begins with a blank, or is longer than a file name may be is refused by one
store or another. What does not fit is written as in the names of parameters
(:mod:`mlwrap._capture.mlflow_names`): ``-x<code point in hexadecimal>-``. A part, or a folder, that is
too long ends in ``-xz`` and 24 digits of its SHA-256. Where a file and a folder would have one name, the
later one's ends in ``-x-``, which stands for nothing. Paths that fit are left alone, and no two paths share
a result.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

__all__ = ["ArtifactNames", "storable_name"]

_MAX_NAME = 200  # bytes of one part: file systems take 255, and copies in progress have longer names
_MAX_PATH = 700  # bytes: object stores take 1024 with what comes before, file systems 4096
_DIGITS = 24
_CUT = "-xz"
_NOTHING = "-x-"
_WRONG = re.compile(
    r"[#?%\x00-\x1f\x7f\ud800-\udfff]"  # what a URL or a file system does not give back
    r"|-(?=x)"  # what could be taken for one of our own escapes
    r"|^[ ]|^[ ]+$"  # a part that some clients cut
    r"|:$"  # a part that looks like the scheme of a URL
)


def storable_name(part: str) -> str:
    """One part of an artifact's path as every store takes it: itself wherever it fits."""
    fitting = _WRONG.sub(lambda match: "".join(f"-x{ord(c):x}-" for c in match[0]), part)
    if len(fitting.encode()) <= _MAX_NAME:
        return fitting
    suffix = PurePosixPath(fitting).suffix
    suffix = suffix if len(suffix.encode()) <= _DIGITS and _CUT not in suffix else ""
    room = _MAX_NAME - len(_CUT) - _DIGITS - len(suffix.encode())
    return fitting.encode()[:room].decode(errors="ignore") + _CUT + _digest(part) + suffix


class ArtifactNames:
    """The paths of one run's artifacts, so that no file has the name of a folder."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self.renamed: dict[str, str] = {}
        """Paths that are stored under another name, by that name."""

    def storable(self, path: PurePosixPath, *, is_folder: bool = False) -> PurePosixPath:
        """Where a file or folder is stored that is to be called ``path``; :meth:`add` takes note of it."""
        *folders, name = (storable_name(part) for part in path.parts)
        if sum(len(part.encode()) + 1 for part in folders) + len(name.encode()) > _MAX_PATH:
            folders = [_CUT + _digest("/".join(path.parts[:-1]))]
        stored = PurePosixPath()
        for part in folders:
            stored /= part if str(stored / part) not in self._files else part + _NOTHING
        taken = self._files if is_folder else self._folders
        return stored / (name if str(stored / name) not in taken else name + _NOTHING)

    def add(self, stored: PurePosixPath, path: PurePosixPath) -> None:
        """Note that a file is stored under this path, and what it was to be called."""
        self._files.add(str(stored))
        self._folders.update(map(str, stored.parents))
        if stored != path:
            self.renamed[str(stored)] = str(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
