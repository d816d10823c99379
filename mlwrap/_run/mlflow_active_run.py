"""Make the mlwrap run MLflow's active run, if the process has imported MLflow.

``mlflow.log_metric`` and similar calls log to MLflow's active run. So mlwrap creates the run in MLflow at
once and makes it the active one until it ends. This takes a few requests, which a process without MLflow
saves. A run that user code starts with ``mlflow.start_run`` stays a separate run, as a child of mlwrap's run.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from mlwrap._journal.uri_passwords import without_password
from mlwrap._process.mlflow_settings import Destination
from mlwrap._recording.recorder import Recorder
from mlwrap._run.autolog import stand_back
from mlwrap._run.run import current_run
from mlwrap.errors import DeliveryError, JournalError, describe_error

_MODULE = "mlflow.tracking.fluent"


class ActiveRunBridge:
    """Keeps one mlwrap run on MLflow's stacks of active runs while it is open.

    Args:
        recorder: The run, with an open journal.
        tracking_uri: The MLflow that the run is delivered to.
    """

    def __init__(self, recorder: Recorder, tracking_uri: str) -> None:
        self._recorder = recorder
        self._stacks: list[list[Any]] = []  # MLflow has one stack for each thread
        self._started: set[str] = set()
        self._noted = False
        mlflow = sys.modules.get("mlflow")
        if mlflow is None or not hasattr(mlflow, "start_run"):
            return
        ours = sys.modules.get("mlwrap._mlflow")
        if ours is not None and ours.IMPORTED_BY_MLWRAP:
            return  # mlwrap imported MLflow; user code does not use it
        if tracking_uri != without_password(mlflow.get_tracking_uri()):
            return  # user code logs to another MLflow
        try:
            from mlwrap._delivery.deliver import deliver  # noqa: PLC0415 - loads MLflow

            recorder.delivered(deliver(recorder.folder))
            _patch()
            # mlflow.start_run(run_id=…) would refuse a run in another experiment than the one that
            # mlflow.set_experiment() named.
            self._entry = mlflow.ActiveRun(mlflow.MlflowClient().get_run(recorder.run_id))
            self.join()
        except (DeliveryError, JournalError, OSError, AttributeError, mlflow.MlflowException) as error:
            recorder.warn(f"calls to mlflow.* in its body do not log to it: {describe_error(error)}")
        else:
            _bridges.append(self)
            stand_back(_current_note, self.note)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the mlwrap run."""
        return self._recorder.run_id

    @property
    def key(self) -> str:
        """The key of the mlwrap run."""
        return self._recorder.key

    def note(self, message: str) -> None:
        """Warn once in a run; later messages are dropped."""
        if not self._noted:
            self._noted = True
            self._recorder.warn(message)

    def join(self) -> None:
        """Make the mlwrap run this thread's active run."""
        stack = _stack()
        stack.append(self._entry)
        self._stacks.append(stack)

    def start(self, start_run: inspect.BoundArguments) -> Any:
        """Start the run that user code requests from MLflow, as a child of the mlwrap run."""
        arguments, stack = start_run.arguments, _stack()
        arguments["nested"] = True
        if arguments.get("run_id") is None and arguments.get("experiment_id") is None:
            # MLflow shows children only in the parent's experiment.
            arguments["experiment_id"] = self._recorder.experiment_id
        own_entry, own_position = stack[-1], len(stack) - 1
        if arguments.get("parent_run_id") not in {None, self.run_id}:
            stack.pop()  # MLflow accepts no parent but the active run
        try:
            run = _stock.start_run(*start_run.args, **start_run.kwargs)
        finally:
            if not any(entry is own_entry for entry in stack):
                stack.insert(own_position, own_entry)
        # User code requested the mlwrap run by its id, and it is active already.
        if run.info.run_id == self.run_id:
            stack.pop()
        else:
            self._started.add(run.info.run_id)
        return run

    def leave(self, status: str) -> None:
        """Take the mlwrap run off MLflow's stacks; the run below it is active again.

        Runs that user code started and did not end are ended, too; the next run would become their child.
        """
        if self not in _bridges:
            return
        _bridges.remove(self)
        for stack in self._stacks:
            stack[:] = [entry for entry in stack if entry is not self._entry]
        mlflow = sys.modules["mlflow"]
        while (active := mlflow.active_run()) is not None and active.info.run_id in self._started:
            # If end_run() fails, the loop still ends: MLflow takes the run off its stack first.
            with contextlib.suppress(Exception):
                _stock.end_run(status)
        with contextlib.suppress(Exception):
            sys.modules[_MODULE]._last_active_run_id.set(self.run_id)  # noqa: SLF001


_bridges: list[ActiveRunBridge] = []


def without_own_active_run(where: Destination) -> Destination:
    """Return ``where`` without its parent run if mlwrap made that run MLflow's active one.

    All tasks of a thread share MLflow's stack, so its active run does not tell which run a task belongs to.
    """
    return where._replace(parent_run_id=None) if _bridge_of_run(where.parent_run_id) is not None else where


def _bridge_of_run(run_id: str | None) -> ActiveRunBridge | None:
    """Return the bridge of the open mlwrap run that has this MLflow id."""
    return (
        next((bridge for bridge in reversed(_bridges) if bridge.run_id == run_id), None) if run_id else None
    )


def _active_bridge() -> ActiveRunBridge | None:
    """Return the bridge of MLflow's active run in this thread, if that is an mlwrap run."""
    active = sys.modules["mlflow"].active_run()
    return None if active is None else _bridge_of_run(active.info.run_id)


def _current_bridge() -> ActiveRunBridge | None:
    """Return the bridge of the current mlwrap run, if MLflow's calls log to it."""
    run = current_run()
    return None if run is None else next((bridge for bridge in _bridges if bridge.key == run.key), None)


def _current_note() -> Callable[[str], None] | None:
    bridge = _current_bridge()
    return None if bridge is None else bridge.note


def _stack() -> list[Any]:
    """Return MLflow's stack of active runs in this thread; MLflow has no public access to it."""
    stack: list[Any] = sys.modules[_MODULE]._active_run_stack.get()  # noqa: SLF001
    return stack


def _join_in_thread() -> None:
    """Activate the current mlwrap run in a thread that has none, such as one of ``asyncio.to_thread``."""
    if sys.modules["mlflow"].active_run() is None and (bridge := _current_bridge()) is not None:
        bridge.join()


class _Stock(NamedTuple):
    """MLflow's original functions."""

    start_run: Callable[..., Any]
    end_run: Callable[..., Any]
    get_or_start_run: Callable[[], Any]


_stock: _Stock


def _patch() -> None:
    """Patch MLflow's functions permanently; without an open mlwrap run they behave as before."""
    global _stock  # noqa: PLW0603 - there is one MLflow in a process
    fluent: Any = sys.modules[_MODULE]
    if hasattr(fluent.start_run, "mlwrap_stock"):
        return
    _stock = _Stock(fluent.start_run, fluent.end_run, fluent._get_or_start_run)  # noqa: SLF001
    signature = inspect.signature(_stock.start_run)

    @functools.wraps(_stock.start_run)
    def start_run(*args: Any, **kwargs: Any) -> Any:
        _join_in_thread()
        bridge = _active_bridge()
        return (
            _stock.start_run(*args, **kwargs)
            if bridge is None
            else bridge.start(signature.bind(*args, **kwargs))
        )

    @functools.wraps(_stock.end_run)
    def end_run(*args: Any, **kwargs: Any) -> Any:
        # The run of mlwrap is ended by mlwrap itself.
        return _stock.end_run(*args, **kwargs) if _active_bridge() is None else None

    @functools.wraps(_stock.get_or_start_run)
    def get_or_start_run() -> Any:
        _join_in_thread()
        return _stock.get_or_start_run()

    start_run.mlwrap_stock = _stock  # type: ignore[attr-defined]
    fluent._get_or_start_run = get_or_start_run  # noqa: SLF001
    for name, original, patched in (
        ("start_run", _stock.start_run, start_run),
        ("end_run", _stock.end_run, end_run),
    ):
        # `from mlflow import start_run` has bound them to names in other modules.
        for module in list(sys.modules.values()):
            if issubclass(type(module), ModuleType):  # some entries only claim to be modules
                namespace = object.__getattribute__(module, "__dict__")  # this way no lazy module is loaded
                if namespace.get(name) is original:
                    namespace[name] = patched
