"""What git says of a folder: one child process for each folder and process, and one small file read."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

__all__ = ["Checkout", "checkout"]

_PATIENCE = 2.0  # seconds; the status of a cold, large tree can take minutes
_COMMAND = ("git", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch")
_QUICKLY = ("--untracked-files=no", "--ignore-submodules=dirty")
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
    # Variables that git sets for its hooks would point it at another repository than the folder's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603  a fixed command
            [*_COMMAND, *_QUICKLY],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return Checkout()
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    said = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    return Checkout(
        commit=_named(said.get("branch.oid")),
        branch=_named(said.get("branch.head")),
        dirty=any(not line.startswith("#") for line in lines),
        remote=_remote(Path(folder)),
    )


def _named(said: str | None) -> str | None:
    """Git puts what has no name yet in parentheses: ``(initial)``, ``(detached)``."""
    return None if said is None or said.startswith("(") else said


def _remote(folder: Path) -> str | None:
    """Address of ``origin``, read from the repository's own configuration."""
    try:
        above = (place / ".git" for place in (folder, *folder.parents))
        git = next(place for place in above if place.exists())
        if git.is_file():  # a linked working tree or a submodule: "gitdir: <folder>"
            git = git.parent / git.read_text().partition(":")[2].strip()
        if (git / "commondir").is_file():
            git = git / (git / "commondir").read_text().strip()
        section = ""
        for line in (git / "config").read_text().splitlines():
            name, _, value = map(str.strip, line.partition("="))
            if name.startswith("["):
                section = name
            elif section == '[remote "origin"]' and name == "url":
                return value.strip('"')
    except (OSError, StopIteration, UnicodeDecodeError):
        pass
    return None
