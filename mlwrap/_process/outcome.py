"""How a run ends, as one value: status, error, signal, and the tags that say so."""

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
    """How a run ends.

    Attributes:
        status: MLflow's status.
        error: The error in one line; ``None`` without one.
        tags: The tags that say why the run ends so.
        traceback: The error's traceback where the run has failed; ``None`` otherwise.
    """

    status: Status
    error: str | None = None
    tags: Mapping[str, str] = MappingProxyType({})
    traceback: str | None = None


def outcome_of(error: BaseException | None, signal: str | None = None) -> Outcome:
    """Judge what left a run's body.

    Args:
        error: The exception, if there was one.
        signal: The name of a signal that came while the run was open.
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
    """Judge a run that is open while its process ends, by a signal or by itself."""
    if signal:
        return Outcome("KILLED", tags={TagName.SIGNAL: signal})
    return Outcome("KILLED", tags={TagName.ERROR_MESSAGE: "the interpreter exited while the run was open"})


def is_pruned(error: BaseException | None) -> bool:
    """Tell whether Optuna stopped a trial early because others are better: that is no failure."""
    optuna = sys.modules.get("optuna")
    return optuna is not None and isinstance(error, optuna.TrialPruned)


def _status_of(error: BaseException, signal: str | None) -> Status:
    cancelled = getattr(sys.modules.get("asyncio"), "CancelledError", KeyboardInterrupt)
    if isinstance(error, KeyboardInterrupt | GeneratorExit | cancelled) or signal:
        return "KILLED"
    is_clean_exit = isinstance(error, SystemExit) and (error.code is None or error.code == 0)
    return "FINISHED" if is_clean_exit or is_pruned(error) else "FAILED"
