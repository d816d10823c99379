"""What lies in a spool."""

from __future__ import annotations

from pathlib import Path


def waiting_in(spool: Path) -> list[Path]:
    """What a spool holds beside its list of the runs that were delivered."""
    return sorted(path for path in spool.iterdir() if path.name != "delivered.jsonl")
