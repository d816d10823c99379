"""Run one trial of a sweep on a worker, and return its outcome."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mlwrap import config
from mlwrap._capture.redact import Redactor
from mlwrap._journal.tags import TagName
from mlwrap._recording.recorder import Recorder
from mlwrap._run.parent_run import ParentRun, parent_scope
from mlwrap._run.run import current
from mlwrap._spool.sweep_trials import last_values
from mlwrap.config import EffectiveSettings
from mlwrap.errors import JournalError, describe_error


class SweepWorker:
    """The callable that is pickled to the workers."""

    def __init__(
        self, call: Callable[..., Any], settings: EffectiveSettings, parent: ParentRun | None
    ) -> None:
        self._call = call
        self._settings = settings
        self._parent = parent

    def __call__(self, number: int, point: Mapping[str, Any], digest: str) -> tuple[int, tuple[Any, ...]]:
        """Run one trial; return its number and the :class:`SweepTrial` fields that follow ``params``."""
        import asyncio  # noqa: PLC0415 - its CancelledError is not an Exception

        reader = _OutcomeReader()
        parent = self._parent
        if parent is not None:
            parent = parent._replace(tags={**parent.tags, TagName.TRIAL: digest}, on_end=reader.on_end)
        token = current.set(None)  # the parent comes with the trial, also in a thread that has a current run
        failure: BaseException | None = None
        try:
            with parent_scope(parent), config.settings_scope(self._settings):
                result = self._call(**point)
                if inspect.iscoroutine(result):
                    asyncio.run(result)
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001 - it fails this trial only
            failure = error
        finally:
            current.reset(token)
        return number, reader.outcome(failure)


class _OutcomeReader:
    """Reads the outcome of a trial's run."""

    def __init__(self) -> None:
        self._recorder: Recorder | None = None
        self._metrics: dict[str, float] = {}

    def on_end(self, recorder: Recorder) -> None:
        """Read the metrics while the run's folder exists; the first run is the trial's own."""
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
