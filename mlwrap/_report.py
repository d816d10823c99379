"""What a person is told: one line when a run starts, one block when it ends, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


def started(name: str, experiment: str, tracking_uri: str) -> None:
    """Say that a run has started, and where it will be found."""
    say(f"mlwrap: run {name!r} started, experiment {experiment!r} at {tracking_uri}")


def ended(
    name: str,
    *,
    status: str,
    seconds: float,
    run_id: str | None,
    models: Iterable[tuple[str, str | None, str, str | None]],
    folder: Path,
) -> None:
    """Say how a run ended, its id or where it waits, and what became of each model."""
    lines = [f"mlwrap: run {name!r} {status} after {seconds:.1f} s"]
    lines.append(f"        run {run_id}" if run_id else f"        waits in {folder} for 'mlwrap sync'")
    for model, uri, model_status, registered in models:
        version = f", registered as {registered}" if registered else ""
        lines.append(f"        {model} {model_status} {uri or ''}".rstrip() + version)
    say("\n".join(lines))


def say(text: str) -> None:
    """Write a text to standard error, whatever has become of that: training goes on."""
    try:
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError, LookupError):  # closed, detached, or never there
        return
