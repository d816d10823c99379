"""Give unique names to the items of a returned value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_NOT_IN_PARTS = re.compile(r"[^\w\-. ]+")
_MAX_LENGTH = 60  # characters of one part: at most 240 bytes in UTF-8; file systems allow 255


class UniqueNames:
    """Gives each name once; a repeated name gets a number."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._times: dict[str, int] = dict.fromkeys(taken, 1)

    def distinct(self, name: str) -> str:
        """Return ``name``, or ``name_2`` and so on if it is taken."""
        chosen, times = name, self._times.get(name, 0)
        while chosen in self._times:
            times += 1
            chosen = f"{name}_{times}"
        self._times[name] = times or 1
        self._times.setdefault(chosen, 1)
        return chosen


class ArtifactPaths:
    """Gives each artifact its own path; no path leads through another artifact."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._files = {PurePosixPath(path) for path in taken}
        self._folders: set[PurePosixPath] = set()
        self._times: dict[tuple[str, str], int] = {}

    def distinct(self, name: str, suffix: str) -> str:
        """Return a path for ``name``, whose parts are separated by slashes, with the suffix ``suffix``."""
        parts = [part for raw_part in name.split("/") if (part := _safe_part(raw_part))] or ["_"]
        stem = "/".join(parts)
        if suffix and stem.lower().endswith(suffix.lower()) and len(parts[-1]) > len(suffix):
            stem, suffix = stem[: -len(suffix)], stem[-len(suffix) :]
        if not self._files.isdisjoint(PurePosixPath(stem).parents):
            stem = stem.replace("/", "_")  # a file has the path that a folder would need
        times = self._times.get((stem, suffix), 0)
        path = None
        while path is None or path in self._files or path in self._folders:
            times += 1
            path = PurePosixPath(f"{stem}{f'_{times}' if times > 1 else ''}{suffix}")
        self._times[stem, suffix] = times
        self._files.add(path)
        self._folders |= set(path.parents) - {PurePosixPath()}
        return str(path)


def _safe_part(word: str) -> str:
    return _NOT_IN_PARTS.sub("_", word)[:_MAX_LENGTH].strip(" .")
