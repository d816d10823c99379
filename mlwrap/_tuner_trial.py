"""Which trial of a tuner is going on? KerasTuner tells neither the model nor the callbacks."""

from __future__ import annotations

import sys
from types import FrameType


def tuner_trial() -> str | None:
    """The id of the KerasTuner trial that called, somewhere up this thread's stack; ``None`` for none."""
    if "keras_tuner" not in sys.modules:
        return None
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as inspect.currentframe(), which may be None
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("keras_tuner."):
            trial_id = getattr(frame.f_locals.get("trial"), "trial_id", None)
            if trial_id is not None:
                return str(trial_id)
        frame = frame.f_back
    return None
