"""How did a run end?"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from mlwrap._journal.records import Status
from mlwrap.errors import describe_error, message

if TYPE_CHECKING:
    from mlwrap._recording.recorder import Recorder


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


def end_tags(status: Status, error: BaseException | None, signal: str | None) -> dict[str, str]:
    """The tags that say why a run ended as it did; see :func:`status_of`."""
    tags = {"mlwrap.signal": signal} if signal else {}
    if is_pruned(error):
        tags["mlwrap.pruned"] = "true"
    if error is not None and status != "FINISHED":
        tags |= {"mlwrap.error.type": type(error).__qualname__, "mlwrap.error.message": message(error)}
    elif status == "KILLED" and error is None and not tags:
        tags = {"mlwrap.error.message": "the interpreter exited while the run was open"}
    return tags


def close_run(recorder: Recorder, status: Status, error: BaseException | None) -> None:
    """Write down how a run ended, and why."""
    try:
        tags = end_tags(status, error, recorder.signal)
        if error is not None and status != "FINISHED":
            recorder.text("".join(traceback.format_exception(error)), "traceback.txt")
        if tags:
            recorder.tags(tags)
    except Exception as failure:  # noqa: BLE001 - the user's own error goes before any of ours
        recorder.warn(f"why it ended could not be written down: {describe_error(failure)}")
    finally:
        recorder.close(status, describe_error(error) if error is not None else None)
