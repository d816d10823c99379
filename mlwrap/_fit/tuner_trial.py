"""Find the current trial of KerasTuner, which tells it neither to the model nor to the callbacks."""

from __future__ import annotations

import inspect
import sys
import traceback


def tuner_trial() -> str | None:
    """Return the id of the KerasTuner trial in this thread's call stack, or ``None``."""
    if "keras_tuner" not in sys.modules:
        return None
    for frame, _ in traceback.walk_stack(inspect.currentframe()):
        if str(frame.f_globals.get("__name__")).startswith("keras_tuner."):
            trial_id = getattr(frame.f_locals.get("trial"), "trial_id", None)
            if trial_id is not None:
                return str(trial_id)
    return None
