"""What happens at each call of a decorated function: a run, what goes in, and what comes out."""

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
from mlwrap._run.run import Run, current, current_run
from mlwrap._sweeps.sweep import SweepTarget
from mlwrap.config import is_disabled, is_own_option, settings
from mlwrap.errors import OptionError, describe_error


class TrackedCall:
    """What one decorated function needs at each call, settled when it was decorated.

    Args:
        body: What was decorated.
        arguments: Its parameters.
        asynchronous: Whether it gives a coroutine, so that the run is open for as long as that runs.
        name: The runs' name in MLflow.
        tags: Their tags.
        asked: How what it returns is to be saved.
        options: Settings for these runs.
        run_id: MLflow's id of a run that they are to write on.
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
        self._asked = asked
        self._options = options
        self._run_id = run_id
        self._disabled: bool | None = options.get("disabled")
        self._newest: Run | None = None
        self._newest_here = _NewestHere()
        self._newest_of: WeakKeyDictionary[object, Run] = WeakKeyDictionary()  # by task

    @property
    def last_run(self) -> Run | None:
        """The run of this task's or thread's newest call; where it made none, the newest of all."""
        task = _task()
        newest = self._newest_here.run if task is None else self._newest_of.get(task)
        return newest or self._newest

    def __call__(
        self, wrapped: Callable[..., Any], instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if is_disabled(self._disabled) and not self._asynchronous:
            untracked = DisabledRun(self.name)
            current.set(untracked)
            self._begun(untracked)
            try:
                result = wrapped(*args, **kwargs)
                untracked.status = "FINISHED"
            except BaseException as error:
                untracked.status = outcome_of(error).status
                raise
            return result  # nobody takes the run for the current one: it has ended
        context = RunContext(
            self.name,
            settings(**self._options),
            capture=functools.partial(self._arguments.capture, instance, args, kwargs),
            tags=self.tags,
            function=self._body,
            run_id=self._run_id,
            own_experiment=is_own_option("experiment", self._options),
            verify=self._asked["verify"],
        )
        if self._asynchronous:
            coroutine: Any = self._awaited(context, wrapped, instance, args, kwargs)
            coroutine.__qualname__ = getattr(wrapped, "__qualname__", self.name)  # "… was never awaited"
            return coroutine
        with context as run:
            self._begun(run)
            try:
                result = wrapped(*args, **kwargs)
            finally:  # a trial that is pruned has parameters, too
                self._log_grown(run, instance, args, kwargs)
            run.record(result, **self._asked)
        return result

    async def _awaited(
        self,
        context: RunContext,
        wrapped: Callable[..., Coroutine[Any, Any, Any]],
        instance: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        async with context as run:
            self._begun(run)
            try:
                result = await wrapped(*args, **kwargs)
            finally:
                self._log_grown(run, instance, args, kwargs)
            run.record(result, **self._asked)
        return result

    def _log_grown(
        self, run: Run, instance: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Log what the call has added to its arguments, of which only Optuna's are known."""
        if "optuna" not in sys.modules or not run.recording or run.status != "RUNNING":
            return
        recorder = run._recorder  # noqa: SLF001 - what a run is for us
        try:
            recorder.params.log(self._arguments.capture_grown(instance, args, kwargs, recorder.redactor))
        except Exception as error:  # noqa: BLE001 - nothing of ours may end the training
            recorder.warn(f"what its arguments were in the end could not be read: {describe_error(error)}")

    def swept(self, call: Callable[..., Any], instance: object = None) -> SweepTarget:
        """What a sweep needs to know.

        Raises:
            OptionError: All runs are to be one.
        """
        if self._run_id is not None:
            raise OptionError(
                f"{self.name!r} can't be swept: it writes on the run {self._run_id}, and a sweep makes a run "
                "for each point. Leave run_id= out."
            )
        return SweepTarget(call, self._body, instance, self._arguments, self.name, self.tags, self._options)

    def _begun(self, run: Run) -> None:
        self._newest = run
        if (task := _task()) is None:
            self._newest_here.run = run
        else:
            self._newest_of[task] = run


class DisabledRun(NullRecorder, Run):
    """The run of a disabled call: its own recorder, which records nothing, as a second object costs time.

    Args:
        name: The run's name.
    """

    _recorder = property(lambda self: self)  # it has all that is asked of one

    def __init__(self, name: str) -> None:
        self.name = name
        self.parent = current_run()


class _NewestHere(threading.local):
    """The run of a thread's newest call that was made in no task."""

    run: Run | None = None


def _task() -> object:
    """The asyncio task that this code runs in, if it runs in one."""
    asyncio = sys.modules.get("asyncio")
    try:
        # What get_running_loop() raises where no loop runs costs as much as all else of a disabled call.
        if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - in asyncio's own __all__
            return None
        return asyncio.current_task()
    except AttributeError:  # another thread is importing it right now
        return None
