"""How long to leave an MLflow alone that does not answer."""

from __future__ import annotations

import random

from mlwrap.errors import Unreachable


class Backoff:
    """How long to wait between tries: longer each time, not in step with others."""

    FIRST, LONGEST = 0.25, 30.0

    def __init__(self) -> None:
        self._pause = self.FIRST

    def after(self, error: Exception) -> float:
        """Seconds to wait after this error."""
        self._pause = min(self._pause * 2, self.LONGEST)
        asked = error.retry_after if isinstance(error, Unreachable) else None
        return max(self._pause * random.uniform(0.5, 1.0), asked or 0.0)  # noqa: S311 - jitter, not a secret

    def over(self) -> None:
        """Start again: it answered."""
        self._pause = self.FIRST
