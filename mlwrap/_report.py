"""What a person is told: one line when a run starts, one block when it ends, on standard error."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console


class _Model(Protocol):
    name: str
    status: str
    uri: str | None


class _Run(Protocol):
    name: str
    key: str
    status: str
    run_id: str | None
    seconds: float
    models: Sequence[_Model]


@functools.lru_cache(maxsize=1)
def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - 50 ms that a quiet run need not pay

    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def started(name: str, experiment: str | None, tracking_uri: str) -> None:
    """Say that a run has started, and where it will be found."""
    _console().print(
        f"mlwrap: run {name!r} started, experiment {experiment or 'Default'!r} at {tracking_uri}"
    )


def ended(run: _Run, folder: Path) -> None:
    """Say how a run ended, its id, and what became of each model."""
    lines = [f"mlwrap: run {run.name!r} {run.status} after {run.seconds:.1f} s"]
    lines += [f"        run {run.run_id}" if run.run_id else f"        waits in {folder} for 'mlwrap sync'"]
    lines += [f"        {model.name} {model.uri or ''} {model.status}" for model in run.models]
    _console().print("\n".join(lines))
