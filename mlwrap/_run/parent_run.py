"""Find the parent of a new run, and the experiment it belongs to.

The parent is a run that is open in this process or in another one. An environment variable names it for child
processes, also for those of ``spawn`` and loky. A worker of a sweep receives it with each trial, also on
another machine.
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
from mlwrap._process.mlflow_settings import Destination, take_run_id
from mlwrap._recording.recorder import Recorder
from mlwrap._run.mlflow_active_run import destination_of_new_run
from mlwrap._run.run import current_run, recorder_of
from mlwrap._spool.run_folder import RunFolder
from mlwrap.config import Settings
from mlwrap.errors import JournalError

_VARIABLE = "MLWRAP_PARENT"


class ParentRun(NamedTuple):
    """The parent of a run: a run that is open when the other one, its child, starts.

    Attributes:
        key: The parent's key.
        tracking_uri: The MLflow that the parent is delivered to.
        offline: Whether the parent waits for ``mlwrap sync``.
        run_id: MLflow's id of the parent, if it is known.
        experiment: Name of the parent's experiment, which the child shares by default.
        experiment_id: MLflow's id of that experiment, if it is known; it overrides ``experiment``.
        tags: Tags for the child.
        on_end: Called at the child's end with its recorder, before its journal is closed.
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
    """Make a run the parent of those that start in the block; whether it is open is not checked."""
    token = _parent_given.set(around)
    try:
        yield
    finally:
        _parent_given.reset(token)


@contextlib.contextmanager
def export_parent(folder: RunFolder) -> Iterator[None]:
    """Export a run to child processes as their parent run, if the main thread opened it."""
    if threading.current_thread() is not threading.main_thread():  # all threads share the environment
        yield
        return
    previous_value = os.environ.get(_VARIABLE)
    own_value = os.environ[_VARIABLE] = f"{os.getpid()}:{folder.path}"
    try:
        yield
    finally:
        if os.environ.get(_VARIABLE) == own_value:
            if previous_value is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = previous_value


def parent_from_environment() -> ParentRun | None:
    """Return the parent from :func:`parent_scope`, else the open run of the process that started this one."""
    if (parent := _parent_given.get()) is not None:
        return parent
    process, _, path = os.environ.get(_VARIABLE, "").partition(":")
    if not path or process == str(os.getpid()) or not (folder := RunFolder(Path(path))).is_open():
        return None
    try:
        first = header(folder.journal)
        progress = folder.progress()
        return ParentRun(
            first.key,
            first.tracking_uri,
            first.offline,
            first.run_id or progress.run_id,
            first.experiment,
            progress.experiment_id or first.experiment_id,
        )
    except (JournalError, OSError):  # it ended at this moment
        return None


class RunDestination(NamedTuple):
    """The destination of a new run.

    Attributes:
        where: The MLflow and the experiment.
        parent_key: Key of the parent, if that is an mlwrap run.
        parent_run_id: MLflow's id of the parent, if it is known.
    """

    where: Destination
    parent_key: str | None
    parent_run_id: str | None


def resolve_destination(
    settings: Settings, around: ParentRun | None, run_id: str | None, *, own_experiment: bool
) -> RunDestination:
    """Return the destination of a new run: that of its parent, unless the settings name another one.

    Args:
        settings: The settings of the new run.
        around: The mlwrap run that is its parent.
        run_id: MLflow's id of an existing run to continue, which is in an experiment already.
        own_experiment: Whether the call itself names an experiment. If not, the run goes to its parent's
            experiment, which overrides ``configure()`` and the environment: MLflow shows a child only there.
    """
    where = destination_of_new_run(settings, around.tracking_uri if around is not None else None)
    key, parent = _parent(around, where)
    if run_id is not None:
        where = where._replace(experiment=None, experiment_id=None)
    elif not own_experiment and key is not None and around is not None:
        where = where._replace(experiment=around.experiment, experiment_id=around.experiment_id)
    elif not own_experiment and parent is not None:
        where = where._replace(experiment=None, experiment_id=where.parent_experiment_id)
    return RunDestination(where, key, parent)


def _parent(parent: ParentRun | None, where: Destination) -> tuple[str | None, str | None]:
    """Return the parent's key if it is an mlwrap run, and MLflow's id of the parent if it is known."""
    active = where.parent_run_id
    if parent is None or parent.tracking_uri != where.tracking_uri:
        return None, active if parent is None else None
    if active is not None:
        return None, active  # a run that user code started with MLflow inside the mlwrap run
    return parent.key, parent.run_id


def existing_run() -> str | None:
    """Return the MLflow run id that the environment names; only the outermost run of the process takes it."""
    return take_run_id() if current_run() is None else None


def parent_in_context() -> ParentRun | None:
    """Return the run that contains this code, in this process or in the one that started it."""
    run = current_run()
    if run is None:
        return parent_from_environment()
    if not run.recorded:
        return None
    recorder = recorder_of(run)
    experiment = recorder.experiment, recorder.experiment_id
    return ParentRun(run.key, run.tracking_uri, run.offline, recorder.run_id, *experiment)
