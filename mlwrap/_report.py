"""What a person is told: one line when a run starts, one block when it ends, on standard error."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console


@functools.lru_cache(maxsize=1)
def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - 50 ms that a quiet run need not pay

    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def started(name: str, experiment: str | None, tracking_uri: str) -> None:
    """Say that a run has started, and where it will be found."""
    _console().print(
        f"mlwrap: run {name!r} started, experiment {experiment or 'Default'!r} at {tracking_uri}"
    )


def ended(
    name: str,
    *,
    status: str,
    seconds: float,
    run_id: str | None,
    models: Iterable[tuple[str, str | None, str]],
    folder: Path,
) -> None:
    """Say how a run ended, its id or where it waits, and what became of each model (name, URI, status)."""
    lines = [f"mlwrap: run {name!r} {status} after {seconds:.1f} s"]
    lines.append(f"        run {run_id}" if run_id else f"        waits in {folder} for 'mlwrap sync'")
    lines += [f"        {model} {model_status} {uri or ''}".rstrip() for model, uri, model_status in models]
    _console().print("\n".join(lines))
