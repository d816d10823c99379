"""Read the git state of a folder, with two child processes per folder and process."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

__all__ = ["Checkout", "checkout"]

_TIMEOUT = 2.0  # seconds; the status of a cold, large tree can take minutes
_COMMAND = ("git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch")
_FAST_OPTIONS = ("--untracked-files=no", "--ignore-submodules=dirty")
_REMOTE = ("git", "config", "--get", "remote.origin.url")
_lock = Lock()


class Checkout(NamedTuple):
    """The state of a working tree; a field is ``None`` if git does not report it."""

    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    remote: str | None = None


def checkout(folder: str) -> Checkout:
    """Return the state of the working tree that contains a folder; empty if there is none, or no git."""
    with _lock:  # if threads start together, only one runs git
        return _read_checkout(folder)


@lru_cache(maxsize=64)
def _read_checkout(folder: str) -> Checkout:
    status = _git((*_COMMAND, *_FAST_OPTIONS), folder)
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


def _real_name(name: str | None) -> str | None:
    """Return a name; ``None`` for git's placeholders in parentheses: ``(initial)``, ``(detached)``."""
    return None if name is None or name.startswith("(") else name


def _git(command: tuple[str, ...], folder: str) -> str | None:
    """Return the output of a git command; ``None`` if it can't be started, or fails."""
    # The variables that git sets for its hooks would select another repository than the folder's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        completed = subprocess.run(  # noqa: S603  a fixed command
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.decode("utf-8", "replace")
