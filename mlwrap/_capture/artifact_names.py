"""Encode artifact paths so that every store of MLflow accepts and returns them.

Over HTTP MLflow's client puts a path into a URL unquoted: the text after ``#`` or ``?`` is lost, ``%`` is
decoded, and control characters are dropped; in local stores it decodes ``%``, too (MLflow 3.17). Some stores
refuse a part that looks like the scheme of a URL, begins with a space, or is too long for a file name.
Such characters are encoded as in the names of parameters (:mod:`mlwrap._capture.mlflow_names`):
``-x<code point in hexadecimal>-``. A part, or a folder, that is too long ends in ``-xz`` and 24 digits of its
SHA-256. If a file and a folder would have one name, the later one gets the suffix ``-x-``, an empty escape.
Other paths stay unchanged, and no two paths have the same result.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

__all__ = ["ArtifactNames", "storable_name"]

_MAX_NAME = 200  # bytes of one part: file systems accept 255, and copies in progress have longer names
_MAX_PATH = 700  # bytes: object stores accept 1024 including the prefix, file systems 4096
_DIGITS = 24
_CUT = "-xz"
_EMPTY_ESCAPE = "-x-"
_WRONG = re.compile(
    r"[#?%\x00-\x1f\x7f\ud800-\udfff]"  # characters that a URL or a file system does not preserve
    r"|-(?=x)"  # the start of mlwrap's own escapes
    r"|^[ ]|^[ ]+$"  # spaces that some clients remove
    r"|:$"  # a part that looks like the scheme of a URL
)


def storable_name(part: str) -> str:
    """Encode one part of an artifact's path for every store; a part that fits stays unchanged."""
    encoded = _WRONG.sub(lambda match: "".join(f"-x{ord(c):x}-" for c in match[0]), part)
    if len(encoded.encode()) <= _MAX_NAME:
        return encoded
    suffix = PurePosixPath(encoded).suffix
    suffix = suffix if len(suffix.encode()) <= _DIGITS and _CUT not in suffix else ""
    room = _MAX_NAME - len(_CUT) - _DIGITS - len(suffix.encode())
    return encoded.encode()[:room].decode(errors="ignore") + _CUT + _digest(part) + suffix


class ArtifactNames:
    """The paths of one run's artifacts; ensures that no file has the name of a folder."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self.renamed: dict[str, str] = {}
        """Original paths of the artifacts that are stored under another name, by that name."""

    def storable(self, path: PurePosixPath, *, is_folder: bool = False) -> PurePosixPath:
        """Return the stored path for a file or folder named ``path``; register it with :meth:`add`."""
        *folders, name = (storable_name(part) for part in path.parts)
        if sum(len(part.encode()) + 1 for part in folders) + len(name.encode()) > _MAX_PATH:
            folders = [_CUT + _digest("/".join(path.parts[:-1]))]
        stored = PurePosixPath()
        for part in folders:
            stored /= part if str(stored / part) not in self._files else part + _EMPTY_ESCAPE
        taken = self._files if is_folder else self._folders
        return stored / (name if str(stored / name) not in taken else name + _EMPTY_ESCAPE)

    def add(self, stored: PurePosixPath, path: PurePosixPath) -> None:
        """Register a file's stored path and its original path."""
        self._files.add(str(stored))
        self._folders.update(map(str, stored.parents))
        if stored != path:
            self.renamed[str(stored)] = str(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
