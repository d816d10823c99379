"""Which run is around a process?

Said in the environment, for the children that ``spawn`` and loky make; and handed over to whoever runs a
point of a sweep, be it on another machine.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from mlwrap._journal.reader import header
from mlwrap._process.mlflow_settings import Destination, destination, take_run_id
from mlwrap._recording.recorder import Recorder
from mlwrap._run.mlflow_active_run import without_own_active_run
from mlwrap._run.run import current_run, recorder_of
from mlwrap._spool.run_folder import RunFolder
from mlwrap.config import Settings
from mlwrap.errors import JournalError

_VARIABLE = "MLWRAP_PARENT"


class ParentRun(NamedTuple):
    """A run that is open around another.

    Attributes:
        key: Its key.
        tracking_uri: Where it is delivered.
        offline: Whether it waits for ``mlwrap sync``.
        run_id: MLflow's id of it, where that is known.
        experiment: Name of its experiment, which the other shares if nothing else is said.
        experiment_id: MLflow's id of that, where it is known; goes before ``experiment``.
        tags: What the other is to be tagged with.
        ending: Called when the other's journal is all but closed.
    """

    key: str
    tracking_uri: str
    offline: bool
    run_id: str | None
    experiment: str | None = None
    experiment_id: str | None = None
    tags: Mapping[str, str] = {}
    on_end: Callable[[Recorder], None] | None = None


_parent_given: ContextVar[ParentRun | None] = ContextVar("mlwrap_handed", default=None)


@contextlib.contextmanager
def parent_scope(around: ParentRun | None) -> Iterator[None]:
    """Let a run be around those that start within the block; it is open, whatever can be seen of it here."""
    token = _parent_given.set(around)
    try:
        yield
    finally:
        _parent_given.reset(token)


@contextlib.contextmanager
def export_parent(folder: RunFolder) -> Iterator[None]:
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


def parent_from_environment() -> ParentRun | None:
    """The run that was handed over, else one that is still open in the process that started this one."""
    if (around := _parent_given.get()) is not None:
        return around
    process, _, path = os.environ.get(_VARIABLE, "").partition(":")
    if not path or process == str(os.getpid()) or not (folder := RunFolder(Path(path))).is_open():
        return None
    try:
        first = header(folder.journal)
        known = folder.progress()
        return ParentRun(
            first.key,
            first.tracking_uri,
            first.offline,
            first.run_id or known.run_id,
            first.experiment,
            known.experiment_id or first.experiment_id,
        )
    except (JournalError, OSError):  # it ended in this very moment
        return None


class RunDestination(NamedTuple):
    """Where a new run belongs.

    Attributes:
        where: The MLflow and the experiment.
        parent_key: Key of the run around it, if that is ours.
        parent_run_id: MLflow's id of the run around it, where that is known.
    """

    where: Destination
    parent_key: str | None
    parent_run_id: str | None


def resolve_destination(
    settings: Settings, around: ParentRun | None, run_id: str | None, *, own_experiment: bool
) -> RunDestination:
    """Where a new run belongs: with the one around it, as far as nothing else is said.

    Args:
        settings: What the run was told.
        around: The run of ours around it.
        run_id: MLflow's id of the run that is to be written on; that is in an experiment already.
        own_experiment: Whether the call itself names an experiment. If not, the run goes to its parent's,
            which goes before ``configure()`` and the environment: MLflow shows a child only there.
    """
    where = without_own_active_run(destination(settings, around.tracking_uri if around is not None else None))
    key, parent = _parent(around, where)
    if run_id is not None:
        where = where._replace(experiment=None, experiment_id=None)
    elif not own_experiment and key is not None and around is not None:
        where = where._replace(experiment=around.experiment, experiment_id=around.experiment_id)
    elif not own_experiment and parent is not None:
        where = where._replace(experiment=None, experiment_id=where.parent_experiment_id)
    return RunDestination(where, key, parent)


def _parent(around: ParentRun | None, where: Destination) -> tuple[str | None, str | None]:
    """Key of the run around a new one if it is ours, and MLflow's id of it where that is known."""
    active = where.parent_run_id
    if around is None or around.tracking_uri != where.tracking_uri:
        return None, active if around is None else None
    if active is not None and around.run_id is not None and active != around.run_id:
        return None, active  # one of MLflow's own, started inside ours
    return around.key, around.run_id


def existing_run() -> str | None:
    """MLflow's id of a run that the environment names, which is the outermost one of this process."""
    return take_run_id() if current_run() is None else None


def parent_in_context() -> ParentRun | None:
    """The run around this code, in this process or the one that started it."""
    run = current_run()
    if run is None:
        return parent_from_environment()
    if not run.recorded:
        return None
    recorder = recorder_of(run)
    place = recorder.experiment, recorder.experiment_id
    return ParentRun(run.key, run.tracking_uri, run.offline, run.run_id, *place)
