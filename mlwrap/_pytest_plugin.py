"""The fixture ``mlwrap_runs``, which pytest finds by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlwrap.testing import CapturedRuns, capture_runs


@pytest.fixture
def mlwrap_runs() -> Iterator[CapturedRuns]:
    """The runs that start within a test, captured: nothing is sent."""
    with capture_runs() as runs:
        yield runs
