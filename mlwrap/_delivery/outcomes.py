"""What came of runs whose folders are gone: somebody may wait for one of them later, and ask."""

from __future__ import annotations

from mlwrap._journal import Progress

_REMEMBERED = 10_000
_known: dict[str, Progress] = {}  # by the runs' keys


def note(key: str, progress: Progress) -> None:
    """Remember what came of a run; beyond some thousands the oldest are forgotten."""
    _known[key] = progress
    if len(_known) > _REMEMBERED:
        _known.pop(next(iter(_known)), None)


def of(key: str) -> Progress | None:
    """What came of a run, if that is known."""
    return _known.get(key)
