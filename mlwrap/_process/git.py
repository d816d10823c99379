"""What git says of a folder: two child processes for each folder and process."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

__all__ = ["Checkout", "checkout"]

_PATIENCE = 2.0  # seconds; the status of a cold, large tree can take minutes
_COMMAND = ("git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch")
_QUICKLY = ("--untracked-files=no", "--ignore-submodules=dirty")
_REMOTE = ("git", "config", "--get", "remote.origin.url")
_lock = Lock()


class Checkout(NamedTuple):
    """The state of a working tree; ``None`` is what git did not say."""

    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    remote: str | None = None


def checkout(folder: str) -> Checkout:
    """State of the working tree that a folder lies in; empty where there is none, or no git."""
    with _lock:  # of threads that start together only one shall ask
        return _asked(folder)


@lru_cache(maxsize=64)
def _asked(folder: str) -> Checkout:
    status = _git((*_COMMAND, *_QUICKLY), folder)
    if status is None:
        return Checkout()
    lines = status.splitlines()
    branch = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    return Checkout(
        commit=_real_name(branch.get("branch.oid")),
        branch=_real_name(branch.get("branch.head")),
        dirty=any(not line.startswith("#") for line in lines),
        remote=(_git(_REMOTE, folder) or "").strip() or None,
    )


def _real_name(said: str | None) -> str | None:
    """Git puts what has no name yet in parentheses: ``(initial)``, ``(detached)``."""
    return None if said is None or said.startswith("(") else said


def _git(command: tuple[str, ...], folder: str) -> str | None:
    """What a command of git's prints; ``None`` where it can't be started, or fails."""
    # Variables that git sets for its hooks would point it at another repository than the folder's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603  a fixed command
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")
