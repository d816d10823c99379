"""Another user, for tests of what another user must not do."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root can make files of another user, and become one"
)


def as_nobody(work: Callable[[], object]) -> bool:
    """Do something in a child process of another user; whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not go on with the tests
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def give_away(folder: Path) -> None:
    """Make a folder and all in it another user's."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def let_through(folder: Path) -> None:
    """Let other users reach a folder, through those on the way to it that they could not pass."""
    for path in (folder, *folder.parents):
        mode = path.stat().st_mode
        if not mode & 0o001:
            path.chmod(mode | 0o011)
