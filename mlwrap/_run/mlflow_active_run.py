"""Make the current mlwrap run MLflow's active run as soon as code of this process calls MLflow.

``mlflow.log_metric`` and similar calls log to MLflow's active run: the last one on a stack that MLflow keeps
for each thread. mlwrap wraps the stacks: when MLflow looks at one, the current mlwrap run is put on it. Only
then is the run created in MLflow, unless the sender was faster, so code that does not call MLflow costs no
request. A run that user code starts with ``mlflow.start_run`` stays a separate run, as a child of mlwrap's.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import wrapt

from mlwrap._mlflow.undocumented import ACTIVE_RUNS, AUTOLOGGING_LOGGER, LAST_ACTIVE_RUN
from mlwrap._process.mlflow_settings import Destination, absolute, destination
from mlwrap._recording.recorder import Recorder
from mlwrap._run.autolog import stand_back
from mlwrap._run.flush import RunDelivery
from mlwrap._run.run import current, current_run
from mlwrap.config import Settings
from mlwrap.errors import DeliveryError, JournalError, describe_error

_NOT_LOGGED = "calls to mlflow.* in its body do not log to it: "


class ActiveRunBridge:
    """Makes one mlwrap run MLflow's active run while it is open.

    Args:
        recorder: The run, with an open journal.
        delivery: Creates the run in MLflow.
        tracking_uri: The MLflow that the run is delivered to.
    """

    def __init__(self, recorder: Recorder, delivery: RunDelivery, tracking_uri: str) -> None:
        self.key = recorder.key
        self._recorder = recorder
        self._delivery = delivery
        self._tracking_uri = tracking_uri
        self._entries: dict[str, Any] = {}  # MLflow's object for the run by the run's id, once there is one
        self._stacks: list[list[Any]] = []
        self._started: set[str] = set()  # ids of the runs that user code started within this one
        self._warned = False
        _bridges.append(self)
        _watch_mlflow()
        for why in _unpatched:
            self.warn_once(_NOT_LOGGED + why)
        if self.is_same_mlflow:
            stand_back(_current_warning, self.warn_once)

    @property
    def is_same_mlflow(self) -> bool:
        """Whether user code's calls of MLflow go to the MLflow that the run is delivered to."""
        if self._entries:
            return True
        uri = getattr(sys.modules.get("mlflow"), "get_tracking_uri", None)
        return uri is not None and self._tracking_uri == absolute(uri())

    def has(self, run_id: str | None) -> bool:
        """Return whether ``run_id`` is MLflow's id of the mlwrap run."""
        return run_id in self._entries

    def has_started(self, run_id: str | None) -> bool:
        """Return whether user code has started the run ``run_id`` within the mlwrap run."""
        return run_id in self._started

    def warn_once(self, message: str) -> None:
        """Warn once in a run; later messages are dropped."""
        if not self._warned:
            self._warned = True
            self._recorder.warn(message)

    def join(self, stack: list[Any]) -> None:
        """Put the run on top of a thread's stack, and above it the runs that were started within it."""
        if not self._entries:
            mlflow = sys.modules["mlflow"]
            try:
                run_id = self._delivery.create_run()
                # mlflow.start_run(run_id=…) would refuse a run in another experiment than the one that
                # mlflow.set_experiment() named.
                self._entries.setdefault(run_id, mlflow.ActiveRun(mlflow.MlflowClient().get_run(run_id)))
            except (DeliveryError, JournalError, OSError, AttributeError, mlflow.MlflowException) as error:
                self.warn_once(_NOT_LOGGED + describe_error(error))
                return
        (entry,) = self._entries.values()
        if not any(each is entry for each in stack):
            stack.append(entry)
            self._stacks.append(stack)
        # All tasks of a thread share its stack.
        stack.sort(key=lambda each: 1 if each is entry else 2 * self.has_started(each.info.run_id))

    def start(self, start_run: inspect.BoundArguments) -> Any:
        """Start the run that user code requests from MLflow, as a child of the mlwrap run."""
        arguments, stack = start_run.arguments, _stack()
        arguments["nested"] = True
        if arguments.get("run_id") is None and arguments.get("experiment_id") is None:
            # MLflow shows children only in the parent's experiment.
            arguments["experiment_id"] = self._recorder.experiment_id
        parent_run_id = arguments.get("parent_run_id")
        if parent_run_id is not None and not self.has(parent_run_id):
            stack.pop()  # MLflow accepts no parent but the active run; join() brings it back
        with _detached():
            run = _stock.start_run(*start_run.args, **start_run.kwargs)
        if self.has(run.info.run_id):  # user code requested it by its id
            stack.pop()
        return run

    def note_started(self, run: Any) -> None:
        """Note a run that user code started within the mlwrap run."""
        if not self.has(run.info.run_id):
            self._started.add(run.info.run_id)

    def leave(self, status: str) -> None:
        """Take the mlwrap run off MLflow's stacks; the run below it is active again.

        Runs that user code started and did not end are ended, too; the next run would become their child.
        """
        if self not in _bridges:
            return
        _bridges.remove(self)
        for stack in self._stacks:
            stack[:] = [each for each in stack if not self.has(each.info.run_id)]
        if not self.is_same_mlflow:
            return
        mlflow = sys.modules["mlflow"]
        with _detached():
            while (active := mlflow.active_run()) is not None and self.has_started(active.info.run_id):
                # If end_run() fails, the loop still ends: MLflow takes the run off its stack first.
                with contextlib.suppress(Exception):
                    _stock.end_run(status)
        with contextlib.suppress(Exception):
            _stock.last_run_id.set(self)  # see _LastRunId

    def final_run_id(self) -> str | None:
        """Return MLflow's id of the mlwrap run after its end; wait for its delivery if necessary."""
        if self._recorder.run_id is None:
            self._delivery.wait(None)
        return self._recorder.run_id


_bridges: list[ActiveRunBridge] = []


def destination_of_new_run(settings: Settings, around: str | None) -> Destination:
    """Return the destination of a run that starts now; see :func:`destination`.

    MLflow's active run is its parent run only if user code started that, and within the current mlwrap run.
    """
    with _detached():
        where = destination(settings, around)
    active = where.parent_run_id
    if current_run() is None:  # it may be a run of another task of this thread
        is_parent = not any(bridge.has(active) or bridge.has_started(active) for bridge in _bridges)
    else:
        is_parent = any(bridge.has_started(active) for bridge in _current_bridges())
    return where if is_parent else where._replace(parent_run_id=None)


@contextlib.contextmanager
def _detached() -> Iterator[None]:
    """In the block MLflow's stacks are as they are: the current mlwrap run joins none."""
    token = current.set(None)
    try:
        yield
    finally:
        current.reset(token)


def _current_bridges() -> Iterator[ActiveRunBridge]:
    """Yield the bridges of the mlwrap runs that contain this code, the innermost first."""
    run = current_run()
    while run is not None:
        yield from (bridge for bridge in _bridges if bridge.key == run.key)
        run = run.parent


def _current_bridge() -> ActiveRunBridge | None:
    """Return the bridge of the innermost mlwrap run that MLflow's calls log to here."""
    return next((bridge for bridge in _current_bridges() if bridge.is_same_mlflow), None)


def _current_warning() -> Callable[[str], None] | None:
    return getattr(_current_bridge(), "warn_once", None)


def _active_bridge() -> ActiveRunBridge | None:
    """Return the bridge of MLflow's active run in this thread, if that is an mlwrap run."""
    active = sys.modules["mlflow"].active_run()
    return next(
        (bridge for bridge in _bridges if active is not None and bridge.has(active.info.run_id)), None
    )


def _stack() -> list[Any]:
    """Return MLflow's stack of active runs in this thread."""
    return _ActiveRunStacks(_stock.active_runs).get()


class _Wrapper:
    def __init__(self, stock: Any) -> None:
        self._stock = stock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)


class _ActiveRunStacks(_Wrapper):
    """MLflow's stacks of active runs, one for each thread."""

    def get(self) -> list[Any]:
        """Return the thread's stack, on which the current mlwrap run is."""
        stack: list[Any] = self._stock.get()
        bridge = _current_bridge()
        if bridge is not None:
            with _detached():
                bridge.join(stack)
        return stack

    def get_all_thread_values(self) -> dict[int, list[Any]]:
        """Return the stacks of all threads, by the threads' numbers."""
        self.get()
        stacks: dict[int, list[Any]] = self._stock.get_all_thread_values()
        return stacks


class _LastRunId(_Wrapper):
    """MLflow's id of the last active run; for an mlwrap run, which may still be on its way, its bridge."""

    def get(self) -> str | None:
        """Return the id."""
        last: ActiveRunBridge | str | None = self._stock.get()
        return last.final_run_id() if isinstance(last, ActiveRunBridge) else last


class _Stock(NamedTuple):
    """MLflow's original objects."""

    active_runs: Any
    last_run_id: Any
    start_run: Callable[..., Any]
    end_run: Callable[..., Any]


_stock: _Stock
_unpatched: list[str] = []  # why MLflow could not be patched


@functools.cache
def _watch_mlflow() -> None:
    """Patch MLflow permanently, now or when it is imported; outside mlwrap's runs it behaves as before."""
    wrapt.register_post_import_hook(_patch, ACTIVE_RUNS.module)
    wrapt.register_post_import_hook(lambda _: stand_back(_current_warning, None), AUTOLOGGING_LOGGER.module)


def _patch(fluent: Any) -> None:
    active_runs, last_run_id = ACTIVE_RUNS.find(), LAST_ACTIVE_RUN.find()
    if active_runs is None or last_run_id is None:
        _unpatched.append(f"this MLflow has no {ACTIVE_RUNS.name} or {LAST_ACTIVE_RUN.name}.")
        for bridge in _bridges:
            bridge.warn_once(_NOT_LOGGED + _unpatched[0])
        return
    global _stock  # noqa: PLW0603 - there is one MLflow in a process
    _stock = _Stock(active_runs, last_run_id, fluent.start_run, fluent.end_run)
    signature = inspect.signature(_stock.start_run)

    @functools.wraps(_stock.start_run)
    def start_run(*args: Any, **kwargs: Any) -> Any:
        bridge = _active_bridge()
        if bridge is None:
            run = _stock.start_run(*args, **kwargs)
        else:
            run = bridge.start(signature.bind(*args, **kwargs))
        if (bridge := bridge or _current_bridge()) is not None:
            bridge.note_started(run)
        return run

    @functools.wraps(_stock.end_run)
    def end_run(*args: Any, **kwargs: Any) -> Any:
        # The run of mlwrap is ended by mlwrap itself.
        return _stock.end_run(*args, **kwargs) if _active_bridge() is None else None

    ACTIVE_RUNS.replace(_ActiveRunStacks(active_runs))
    LAST_ACTIVE_RUN.replace(_LastRunId(last_run_id))
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
