"""``Outcome``: the status of a run at its end, and the reason for it."""

from __future__ import annotations

import sys
import traceback
from typing import NamedTuple

from mlwrap._journal.records import Status
from mlwrap._journal.tags import TagName
from mlwrap.errors import describe_error, message


class Outcome(NamedTuple):
    """The outcome of a run.

    All but the status is computed when it is read, because it calls the exception's own methods.

    Attributes:
        status: MLflow's status.
        exception: The exception that ended the training function or block; ``None`` without one.
        signal: The name of a signal that arrived while the run was open; ``None`` without one.
    """

    status: Status
    exception: BaseException | None = None
    signal: str | None = None

    @property
    def error(self) -> str | None:
        """The exception in one line; ``None`` without one."""
        return None if self.exception is None else describe_error(self.exception)

    @property
    def tags(self) -> dict[str, str]:
        """The tags that give the reason for the status."""
        tags = {TagName.SIGNAL: self.signal} if self.signal else {}
        if is_pruned(self.exception):
            tags[TagName.PRUNED] = "true"
        if self.exception is not None and self.status != "FINISHED":
            tags[TagName.ERROR_TYPE] = type(self.exception).__qualname__
            tags[TagName.ERROR_MESSAGE] = message(self.exception)
        elif self.status == "KILLED" and not self.signal:
            tags[TagName.ERROR_MESSAGE] = "the interpreter exited while the run was open"
        return tags

    @property
    def traceback(self) -> str | None:
        """The exception's traceback; ``None`` without one, and for a clean exit or a pruned trial."""
        if self.exception is None or self.status == "FINISHED":
            return None
        return "".join(traceback.format_exception(self.exception))


def outcome_of(error: BaseException | None, signal: str | None = None) -> Outcome:
    """Return the outcome of a run whose training function or block has ended.

    Args:
        error: The exception that it raised; ``None`` without one.
        signal: The name of a signal that arrived while the run was open.
    """
    return Outcome("FINISHED" if error is None else _status_of(error, signal), error, signal)


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
