"""Names for what is found in a returned value: from its keys, or from its kind; each given once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_NOT_IN_PARTS = re.compile(r"[^\w\-. ]+")
_MAX_LENGTH = 60  # characters of one part: 240 bytes where each takes four, and file systems take 255


class UniqueNames:
    """Gives each name once; a name that comes again gets a number."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._times: dict[str, int] = dict.fromkeys(taken, 1)

    def distinct(self, name: str) -> str:
        """``name``, or ``name_2`` and so on where it is taken."""
        chosen, times = name, self._times.get(name, 0)
        while chosen in self._times:
            times += 1
            chosen = f"{name}_{times}"
        self._times[name] = times or 1
        self._times.setdefault(chosen, 1)
        return chosen


class ArtifactPaths:
    """Gives each artifact a path of its own, none of which leads through another artifact."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._files = {PurePosixPath(path) for path in taken}
        self._folders: set[PurePosixPath] = set()
        self._times: dict[tuple[str, str], int] = {}

    def distinct(self, name: str, suffix: str) -> str:
        """A path for ``name``, whose parts stand between slashes, with the ending ``suffix``."""
        parts = [part for word in name.split("/") if (part := _safe_word(word))] or ["_"]
        stem = "/".join(parts)
        if suffix and stem.lower().endswith(suffix.lower()) and len(parts[-1]) > len(suffix):
            stem, suffix = stem[: -len(suffix)], stem[-len(suffix) :]
        if not self._files.isdisjoint(PurePosixPath(stem).parents):
            stem = stem.replace("/", "_")  # a file stands where a folder would have to
        times = self._times.get((stem, suffix), 0)
        path = None
        while path is None or path in self._files or path in self._folders:
            times += 1
            path = PurePosixPath(f"{stem}{f'_{times}' if times > 1 else ''}{suffix}")
        self._times[stem, suffix] = times
        self._files.add(path)
        self._folders |= set(path.parents) - {PurePosixPath()}
        return str(path)


def _safe_word(word: str) -> str:
    return _NOT_IN_PARTS.sub("_", word)[:_MAX_LENGTH].strip(" .")
