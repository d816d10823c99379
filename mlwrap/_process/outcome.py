"""``Outcome``: the status of a run at its end, with its error and tags."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mlwrap._journal.records import Status
from mlwrap._journal.tags import TagName
from mlwrap.errors import describe_error, message


class Outcome(NamedTuple):
    """The outcome of a run.

    Attributes:
        status: MLflow's status.
        error: The error in one line; ``None`` without one.
        tags: The tags that give the reason for the status.
        traceback: The error's traceback; ``None`` without an error, and for a clean exit or a pruned trial.
    """

    status: Status
    error: str | None = None
    tags: Mapping[str, str] = MappingProxyType({})
    traceback: str | None = None


def outcome_of(error: BaseException | None, signal: str | None = None) -> Outcome:
    """Return the outcome of a run whose training function or block has ended.

    Args:
        error: The exception that it raised; ``None`` without one.
        signal: The name of a signal that arrived while the run was open.
    """
    tags = {TagName.SIGNAL: signal} if signal else {}
    if is_pruned(error):
        tags[TagName.PRUNED] = "true"
    if error is None:
        return Outcome("FINISHED", tags=tags)
    status = _status_of(error, signal)
    if status == "FINISHED":
        return Outcome(status, describe_error(error), tags)
    tags |= {TagName.ERROR_TYPE: type(error).__qualname__, TagName.ERROR_MESSAGE: message(error)}
    return Outcome(status, describe_error(error), tags, "".join(traceback.format_exception(error)))


def outcome_of_exit(signal: str | None) -> Outcome:
    """Return the outcome of a run that is open when its process ends, by a signal or by itself."""
    if signal:
        return Outcome("KILLED", tags={TagName.SIGNAL: signal})
    return Outcome("KILLED", tags={TagName.ERROR_MESSAGE: "the interpreter exited while the run was open"})


def is_pruned(error: BaseException | None) -> bool:
    """Return whether Optuna stopped a trial early because others are better, which is no failure."""
    optuna = sys.modules.get("optuna")
    return optuna is not None and isinstance(error, optuna.TrialPruned)


def _status_of(error: BaseException, signal: str | None) -> Status:
    cancelled = getattr(sys.modules.get("asyncio"), "CancelledError", KeyboardInterrupt)
    if isinstance(error, KeyboardInterrupt | GeneratorExit | cancelled) or signal:
        return "KILLED"
    is_clean_exit = isinstance(error, SystemExit) and (error.code is None or error.code == 0)
    return "FINISHED" if is_clean_exit or is_pruned(error) else "FAILED"
