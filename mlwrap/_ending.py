"""How did a run end?"""

from __future__ import annotations

import sys

from mlwrap._journal import Status


def status_of(error: BaseException | None, signal: str | None = None) -> Status:
    """The status that a run ends with.

    Args:
        error: What left its body, if something did.
        signal: A signal that came while it was open.
    """
    if error is None:
        return "FINISHED"
    cancelled = getattr(sys.modules.get("asyncio"), "CancelledError", KeyboardInterrupt)
    if isinstance(error, KeyboardInterrupt | GeneratorExit | cancelled) or signal:
        return "KILLED"
    well = isinstance(error, SystemExit) and (error.code is None or error.code == 0)
    return "FINISHED" if well or is_pruned(error) else "FAILED"


def is_pruned(error: BaseException | None) -> bool:
    """Whether Optuna stopped a trial early, because others are better: that is no failure."""
    optuna = sys.modules.get("optuna")
    return optuna is not None and isinstance(error, optuna.TrialPruned)
