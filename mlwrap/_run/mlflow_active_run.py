"""MLflow's own calls in the body of a run: where the process has imported MLflow, they go together with ours.

``mlflow.log_metric`` and its kin go to MLflow's active run. So our run is made at once, and is the active one
while the body runs: a few requests that a process without MLflow does not pay for. A run that the body starts
itself is a run, as it was before, and ours is its parent.
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
    """MLflow's idea of the active run, for as long as one run of ours is open.

    Args:
        recorder: The run, whose journal is open.
        tracking_uri: Where it is delivered to.
    """

    def __init__(self, recorder: Recorder, tracking_uri: str) -> None:
        self._recorder = recorder
        self._stacks: list[list[Any]] = []  # MLflow has one for each thread
        self._started: set[str] = set()
        self._noted = False
        mlflow = sys.modules.get("mlflow")
        if mlflow is None or not hasattr(mlflow, "start_run"):
            return
        ours = sys.modules.get("mlwrap._mlflow")
        if ours is not None and ours.IMPORTED_BY_MLWRAP:
            return  # the body does not know of it
        if tracking_uri != without_password(mlflow.get_tracking_uri()):
            return  # the body's own calls are meant for another MLflow
        try:
            from mlwrap._delivery.deliver import deliver  # noqa: PLC0415 - loads MLflow

            recorder.delivered(deliver(recorder.folder))
            _patch()
            # Not by mlflow.start_run(run_id=…): that refuses a run of another experiment than the one that
            # mlflow.set_experiment() named.
            self._entry = mlflow.ActiveRun(mlflow.MlflowClient().get_run(recorder.run_id))
            self.join()
        except (DeliveryError, JournalError, OSError, AttributeError, mlflow.MlflowException) as error:
            recorder.warn(f"calls of MLflow's own in its body do not land in it: {describe_error(error)}")
        else:
            _bridges.append(self)
            stand_back(_noting, self.note)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of our run."""
        return self._recorder.run_id

    @property
    def key(self) -> str:
        """The key of our run."""
        return self._recorder.key

    def note(self, message: str) -> None:
        """Warn of something, once in a run."""
        if not self._noted:
            self._noted = True
            self._recorder.warn(message)

    def join(self) -> None:
        """Make our run this thread's active one."""
        stack = _stack()
        stack.append(self._entry)
        self._stacks.append(stack)

    def start(self, start_run: inspect.BoundArguments) -> Any:
        """Start the run that the body asks MLflow for, as a child of ours."""
        asked, stack = start_run.arguments, _stack()
        asked["nested"] = True
        if asked.get("run_id") is None and asked.get("experiment_id") is None:
            asked["experiment_id"] = self._recorder.experiment_id  # MLflow shows children only there
        ours, place = stack[-1], len(stack) - 1
        if asked.get("parent_run_id") not in {None, self.run_id}:
            stack.pop()  # MLflow takes no other parent than the active run
        try:
            run = _stock.start_run(*start_run.args, **start_run.kwargs)
        finally:
            if not any(entry is ours for entry in stack):
                stack.insert(place, ours)
        if run.info.run_id == self.run_id:  # it was asked for by its id: that is what is active already
            stack.pop()
        else:
            self._started.add(run.info.run_id)
        return run

    def leave(self, status: str) -> None:
        """Take our run off MLflow's stacks; what was under it is active again.

        Runs that the body started and did not end would take the next one for their child: they end with it.
        """
        if self not in _bridges:
            return
        _bridges.remove(self)
        for stack in self._stacks:
            stack[:] = [entry for entry in stack if entry is not self._entry]
        mlflow = sys.modules["mlflow"]
        while (active := mlflow.active_run()) is not None and active.info.run_id in self._started:
            # It is off the stack before MLflow is asked to end it.
            with contextlib.suppress(Exception):
                _stock.end_run(status)
        with contextlib.suppress(Exception):
            sys.modules[_MODULE]._last_active_run_id.set(self.run_id)  # noqa: SLF001


_bridges: list[ActiveRunBridge] = []


def without_own_active_run(where: Destination) -> Destination:
    """``where`` a run belongs, without MLflow's active run if that is one that we put on its stack.

    All tasks of a thread share the stack: its active run does not say then which run is around them.
    """
    return where._replace(parent_run_id=None) if _bridge_of_run(where.parent_run_id) is not None else where


def _bridge_of_run(run_id: str | None) -> ActiveRunBridge | None:
    """The open run of ours that has this id."""
    return next((each for each in reversed(_bridges) if each.run_id == run_id), None) if run_id else None


def _active() -> ActiveRunBridge | None:
    """MLflow's active run in this thread, if that is ours."""
    active = sys.modules["mlflow"].active_run()
    return None if active is None else _bridge_of_run(active.info.run_id)


def _here() -> ActiveRunBridge | None:
    """The run of ours around this code, if MLflow's calls land in it."""
    run = current_run()
    return None if run is None else next((each for each in _bridges if each.key == run.key), None)


def _noting() -> Callable[[str], None] | None:
    fluent = _here()
    return None if fluent is None else fluent.note


def _stack() -> list[Any]:
    """MLflow's active runs in this thread; it offers no other way to them."""
    stack: list[Any] = sys.modules[_MODULE]._active_run_stack.get()  # noqa: SLF001
    return stack


def _join_in_thread() -> None:
    """Where this thread has no active run but belongs to a run of ours, as one of ``asyncio.to_thread``."""
    if sys.modules["mlflow"].active_run() is None and (fluent := _here()) is not None:
        fluent.join()


class _Stock(NamedTuple):
    """MLflow's own functions."""

    start_run: Callable[..., Any]
    end_run: Callable[..., Any]
    get_or_start_run: Callable[[], Any]


_stock: _Stock


def _patch() -> None:
    """Let MLflow's functions know of our runs, for good: without an open one they do what they did."""
    global _stock  # noqa: PLW0603 - there is one MLflow in a process
    fluent: Any = sys.modules[_MODULE]
    if hasattr(fluent.start_run, "mlwrap_stock"):
        return
    _stock = _Stock(fluent.start_run, fluent.end_run, fluent._get_or_start_run)  # noqa: SLF001
    signature = inspect.signature(_stock.start_run)

    @functools.wraps(_stock.start_run)
    def start_run(*args: Any, **kwargs: Any) -> Any:
        _join_in_thread()
        ours = _active()
        return (
            _stock.start_run(*args, **kwargs) if ours is None else ours.start(signature.bind(*args, **kwargs))
        )

    @functools.wraps(_stock.end_run)
    def end_run(*args: Any, **kwargs: Any) -> Any:
        return _stock.end_run(*args, **kwargs) if _active() is None else None  # ours ends with its body

    @functools.wraps(_stock.get_or_start_run)
    def get_or_start_run() -> Any:
        _join_in_thread()
        return _stock.get_or_start_run()

    start_run.mlwrap_stock = _stock  # type: ignore[attr-defined]
    fluent._get_or_start_run = get_or_start_run  # noqa: SLF001
    for name, stock, own in (
        ("start_run", _stock.start_run, start_run),
        ("end_run", _stock.end_run, end_run),
    ):
        # `from mlflow import start_run` has made names of them before.
        for module in list(sys.modules.values()):
            if issubclass(type(module), ModuleType):  # some only say that they are one
                names = object.__getattribute__(module, "__dict__")  # which loads no lazy module
                if names.get(name) is stock:
                    names[name] = own
