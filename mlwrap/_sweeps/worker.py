"""One point of a sweep, where it runs: what travels there, and what comes back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mlwrap import config
from mlwrap._capture.redact import Redactor
from mlwrap._recording.recorder import Recorder
from mlwrap._run.parent_run import ParentRun, parent_scope
from mlwrap._run.run import current
from mlwrap._spool.sweep_trials import POINT, last_values
from mlwrap.config import EffectiveSettings
from mlwrap.errors import JournalError, describe_error


class SweepWorker:
    """What travels to the workers."""

    def __init__(
        self, call: Callable[..., Any], told_here: EffectiveSettings, around: ParentRun | None
    ) -> None:
        self._call = call
        self._told = told_here
        self._around = around

    def __call__(self, number: int, point: Mapping[str, Any], digest: str) -> tuple[int, tuple[Any, ...]]:
        """Run one point; its number, and what :class:`SweepPoint` says of it after its parameters."""
        import asyncio  # noqa: PLC0415 - whose CancelledError is no Exception

        seen = _OutcomeReader()
        around = self._around
        if around is not None:
            around = around._replace(tags={**around.tags, POINT: digest}, on_end=seen.on_end)
        token = current.set(None)  # it was handed over, also to where it is this thread's own
        failure: BaseException | None = None
        try:
            with parent_scope(around), config.settings_scope(self._told):
                result = self._call(**point)
                if inspect.iscoroutine(result):
                    asyncio.run(result)
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - it stays this point's own
            failure = error
        finally:
            current.reset(token)
        return number, seen.outcome(failure)


class _OutcomeReader:
    """The run of one point, seen from outside."""

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self._metrics: dict[str, float] = {}

    def on_end(self, recorder: Recorder) -> None:
        """Read what it logged, while its folder is there; the first run is the point's own."""
        if self._recorder is not None:
            return
        self._recorder = recorder
        try:
            self._metrics = last_values(recorder.folder)
        except (JournalError, OSError) as error:
            recorder.warn(f"its metrics are not in the sweep's table: {describe_error(error)}")

    def outcome(self, failure: BaseException | None) -> tuple[Any, ...]:
        recorder = self._recorder
        text = None if failure is None else describe_error(failure)
        if recorder is None:
            text = text and Redactor().text(text)
            return {}, "FINISHED" if failure is None else "FAILED", None, None, text
        status = recorder.status
        if text is not None:
            text = None if status == "FINISHED" else recorder.redactor.text(text)
        return self._metrics, status, recorder.run_id, recorder.key, text
