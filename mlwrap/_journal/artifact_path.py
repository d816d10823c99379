"""A path of an artifact is relative, and leads nowhere else."""

from __future__ import annotations

from pathlib import PurePosixPath

from mlwrap.errors import OptionError


def artifact_path(path: str) -> PurePosixPath:
    """``path`` as the path of an artifact.

    Raises:
        OptionError: It is not relative, or leads out of the run's artifacts.
    """
    checked = PurePosixPath(path)
    if not checked.name or checked.is_absolute() or ".." in checked.parts:
        raise OptionError(
            f"{path!r} is no artifact path: expected a relative one without '..', as 'plots/roc.png'."
        )
    return checked
