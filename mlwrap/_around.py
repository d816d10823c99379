"""Which run is around a process? Said in the environment, for the children that ``spawn`` and loky make."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlwrap._capture import Destination
from mlwrap._journal import RunFolder, header
from mlwrap.errors import JournalError

_VARIABLE = "MLWRAP_PARENT"


class Around(NamedTuple):
    """A run that is open around another.

    Attributes:
        key: Its key.
        tracking_uri: Where it is delivered.
        offline: Whether it waits for ``mlwrap sync``.
        run_id: MLflow's id of it, where that is known.
    """

    key: str
    tracking_uri: str
    offline: bool
    run_id: str | None


@contextlib.contextmanager
def announced(folder: RunFolder) -> Iterator[None]:
    """Let the processes that this one starts know of a run, if it is the main thread's."""
    if threading.current_thread() is not threading.main_thread():  # the environment is the whole process's
        yield
        return
    before = os.environ.get(_VARIABLE)
    own = os.environ[_VARIABLE] = f"{os.getpid()}:{folder.path}"
    try:
        yield
    finally:
        if os.environ.get(_VARIABLE) == own:
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before


def inherited() -> Around | None:
    """The run that is still open in the process that started this one."""
    process, _, path = os.environ.get(_VARIABLE, "").partition(":")
    folder = RunFolder(Path(path))
    if not path or process == str(os.getpid()) or not folder.is_open():
        return None
    try:
        first = header(folder.journal)
        return Around(first.key, first.tracking_uri, first.offline, folder.progress().run_id)
    except (JournalError, OSError):  # it ended in this very moment
        return None


def parent(around: Around | None, where: Destination) -> tuple[str | None, str | None]:
    """Key of the run around a new one if it is ours, or MLflow's id of it if it is MLflow's own."""
    active = where.parent_run_id
    if around is None or around.tracking_uri != where.tracking_uri:
        return None, active if around is None else None
    if active is not None and around.run_id is not None and active != around.run_id:
        return None, active  # one of MLflow's own, started inside ours
    return around.key, None
