"""``Backoff``: the pauses between requests to an MLflow that does not answer."""

from __future__ import annotations

import random

from mlwrap.errors import Unreachable


class Backoff:
    """Computes the pause before the next try: longer each time, with random jitter."""

    FIRST, LONGEST = 0.25, 30.0

    def __init__(self) -> None:
        self._pause = self.FIRST

    def after(self, error: Exception) -> float:
        """Return the seconds to wait after this error."""
        self._pause = min(self._pause * 2, self.LONGEST)
        retry_after = error.retry_after if isinstance(error, Unreachable) else None
        return max(self._pause * random.uniform(0.5, 1.0), retry_after or 0.0)  # noqa: S311 - jitter, not a secret

    def over(self) -> None:
        """Reset the pause, because the server has answered."""
        self._pause = self.FIRST
