"""What lies in a spool."""

from __future__ import annotations

import os
from pathlib import Path

from mlwrap import Run
from mlwrap._spool.run_folder import RunFolder


def waiting_in(spool: Path) -> list[Path]:
    """What a spool holds beside its list of the runs that were delivered."""
    return sorted(path for path in spool.iterdir() if path.name != "delivered.jsonl")


def folder_of(run: Run) -> RunFolder:
    """The run folder of a run in the test's own spool."""
    return RunFolder(Path(os.environ["MLWRAP_SPOOL"]) / run.key)
