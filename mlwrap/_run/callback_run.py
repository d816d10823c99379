"""Choose the run that a framework's callback logs to."""

from __future__ import annotations

from mlwrap._run.run import Run, current_run
from mlwrap.errors import warn


def run_of_callback(given: Run | None, callback: str, how: str) -> Run | None:
    """Return the run that a callback logs to; ``None``, with a warning, if there is none.

    Args:
        given: The run that was passed to the callback; by default the current one.
        callback: The callback's name.
        how: What to do if there is no run, as the start of a sentence.
    """
    run = given or current_run()
    if run is None:
        warn(
            f"{callback} is used outside a run, and logs nothing. {how} within model_run() or a function "
            f"with @tracked_training, or give it the run: {callback}(run)."
        )
    elif run.status != "RUNNING":
        warn(f"{callback} logs nothing, for run {run.name!r} has ended ({run.status}).")
        return None
    return run
