"""The points of a sweep, as runs remember them in their tags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlwrap._journal.reader import header, read_records
from mlwrap._journal.records import Metrics, RunEnded
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import run_folders
from mlwrap.errors import JournalError

SWEEP = "mlwrap.sweep"
"""Tag of a sweep's run and of its points' runs: the sweep's own id, which a resumed one keeps."""
POINT = "mlwrap.sweep.point"
"""Tag of a point's run: a digest of its parameters and of the code."""


class FinishedTrial(NamedTuple):
    """A point's run that has finished.

    Attributes:
        key: Its key.
        run_id: MLflow's id of it, where that is known.
        metrics: The last value of each of its metrics.
    """

    key: str
    run_id: str | None
    metrics: dict[str, float]


def last_values(folder: RunFolder) -> dict[str, float]:
    """The last value of each metric so far: the latest of its highest step, as MLflow has it.

    Raises:
        JournalError: The journal can't be read.
    """
    found: dict[str, tuple[int, int, float]] = {}
    for record, _ in read_records(folder.journal):
        if isinstance(record, Metrics):
            for name, value in record.numbers().items():
                if name not in found or (record.step, record.time) >= found[name][:2]:
                    found[name] = (record.step, record.time, value)
    return {name: value for name, (_, _, value) in found.items()}


def waiting_trials(root: Path, sweep: str | None) -> Iterator[tuple[str, FinishedTrial]]:
    """The finished points among the runs that wait in a spool, each with its digest.

    Args:
        root: The spool.
        sweep: The sweep's own id; ``None`` for any.
    """
    for folder in run_folders(root):
        try:
            tags = header(folder.journal).tags
            if POINT not in tags or sweep not in {None, tags.get(SWEEP)}:
                continue
            last = [record for record, _ in read_records(folder.journal)][-1]
            if isinstance(last, RunEnded) and last.status == "FINISHED":
                yield tags[POINT], FinishedTrial(folder.key, folder.progress().run_id, last_values(folder))
        except (JournalError, OSError):  # delivered and gone in this very moment, or not to be read
            continue
