"""Track one call of a decorated function: open its run, capture its arguments, record its result."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from mlwrap._capture.arguments import Arguments
from mlwrap._process.outcome import outcome_of
from mlwrap._recording.null_recorder import NullRecorder
from mlwrap._run.context import RunContext
from mlwrap._run.run import Run, current, current_run, recorder_of
from mlwrap._sweeps.sweep import SweepTarget
from mlwrap.config import is_disabled, is_own_option, settings
from mlwrap.errors import OptionError, describe_error


class TrackedCall:
    """The state that one decorated function needs at each call, prepared when it was decorated.

    Args:
        body: The decorated object.
        arguments: Its parameters.
        asynchronous: Whether it returns a coroutine; its run is then open while the coroutine runs.
        name: The runs' name in MLflow.
        tags: The runs' tags.
        asked: Options for saving what it returns.
        options: Settings for these runs.
        run_id: MLflow's id of an existing run that they write to.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        arguments: Arguments,
        *,
        asynchronous: bool,
        name: str,
        tags: Mapping[str, Any],
        asked: Mapping[str, Any],
        options: Mapping[str, Any],
        run_id: str | None = None,
    ) -> None:
        self._body = body
        self._arguments = arguments
        self._asynchronous = asynchronous
        self.name = name
        self.tags = tags
        self._save_options = asked
        self._options = options
        self._run_id = run_id
        self._disabled: bool | None = options.get("disabled")
        self._newest: Run | None = None
        self._newest_of_thread = _NewestOfThread()
        self._newest_of_task: WeakKeyDictionary[object, Run] = WeakKeyDictionary()

    @property
    def last_run(self) -> Run | None:
        """The run of this task's or thread's newest call; if it made none, of the newest call of all."""
        task = _current_task()
        newest = self._newest_of_thread.run if task is None else self._newest_of_task.get(task)
        return newest or self._newest

    def __call__(
        self, wrapped: Callable[..., Any], instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if is_disabled(self._disabled) and not self._asynchronous:
            untracked = DisabledRun(self.name)
            current.set(untracked)
            self._note_newest(untracked)
            try:
                result = wrapped(*args, **kwargs)
                untracked.status = "FINISHED"
            except BaseException as error:
                untracked.status = outcome_of(error).status
                raise
            return result  # the run has ended, so it is no longer current
        context = RunContext(
            self.name,
            settings(**self._options),
            capture=functools.partial(self._arguments.capture, instance, args, kwargs),
            tags=self.tags,
            function=self._body,
            run_id=self._run_id,
            own_experiment=is_own_option("experiment", self._options),
            verify=self._save_options["verify"],
        )
        if self._asynchronous:
            coroutine: Any = self._call_async(context, wrapped, instance, args, kwargs)
            coroutine.__qualname__ = getattr(wrapped, "__qualname__", self.name)  # "… was never awaited"
            return coroutine
        with context as run:
            self._note_newest(run)
            try:
                result = wrapped(*args, **kwargs)
            finally:  # also for a pruned Optuna trial
                self._log_added_arguments(run, instance, args, kwargs)
            run.record(result, **self._save_options)
        return result

    async def _call_async(
        self,
        context: RunContext,
        wrapped: Callable[..., Coroutine[Any, Any, Any]],
        instance: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        async with context as run:
            self._note_newest(run)
            try:
                result = await wrapped(*args, **kwargs)
            finally:
                self._log_added_arguments(run, instance, args, kwargs)
            run.record(result, **self._save_options)
        return result

    def _log_added_arguments(
        self, run: Run, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Log what the call has added to its arguments, which is supported for Optuna's only."""
        if "optuna" not in sys.modules or not run.recording or run.status != "RUNNING":
            return
        recorder = recorder_of(run)
        try:
            recorder.params.log(self._arguments.capture_grown(instance, args, kwargs, recorder.redactor))
        except Exception as error:  # noqa: BLE001 - an error in mlwrap must not end the training
            recorder.warn(f"what its arguments were in the end could not be read: {describe_error(error)}")

    def swept(self, call: Callable[..., Any], instance: object = None) -> SweepTarget:
        """Return the sweep's view of the function.

        Raises:
            OptionError: ``run_id`` is set, so all calls write to one run.
        """
        if self._run_id is not None:
            raise OptionError(
                f"{self.name!r} can't be swept: it writes on the run {self._run_id}, and a sweep makes a run "
                "for each trial. Leave run_id= out."
            )
        return SweepTarget(call, self._body, instance, self._arguments, self.name, self.tags, self._options)

    def _note_newest(self, run: Run) -> None:
        self._newest = run
        if (task := _current_task()) is None:
            self._newest_of_thread.run = run
        else:
            self._newest_of_task[task] = run


class DisabledRun(NullRecorder, Run):
    """The run of a disabled call; it is its own null recorder, because a second object costs time.

    Args:
        name: The run's name.
    """

    _recorder = property(lambda self: self)  # it has all methods of a recorder

    def __init__(self, name: str) -> None:
        self.name = name
        self.parent = current_run()


class _NewestOfThread(threading.local):
    """The run of a thread's newest call outside any task."""

    run: Run | None = None


def _current_task() -> object:
    """Return the asyncio task that runs this code, if any."""
    asyncio = sys.modules.get("asyncio")
    try:
        # The exception of get_running_loop() without a loop costs as much as all the rest of a disabled call.
        if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - in asyncio's own __all__
            return None
        return asyncio.current_task()
    except AttributeError:  # another thread is importing asyncio right now
        return None
