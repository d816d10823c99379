"""Find a sweep's finished trials by the tags of their runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlwrap._journal.reader import header, read_records
from mlwrap._journal.records import Metrics, RunEnded
from mlwrap._journal.tags import TagName
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import run_folders
from mlwrap.errors import JournalError


class FinishedTrial(NamedTuple):
    """The finished run of a trial.

    Attributes:
        key: The run's key.
        run_id: MLflow's id of the run, if known.
        metrics: The last value of each metric.
    """

    key: str
    run_id: str | None
    metrics: dict[str, float]


def last_values(folder: RunFolder) -> dict[str, float]:
    """Return the last value of each metric so far: the latest one of its highest step, as in MLflow.

    Raises:
        JournalError: The journal can't be read.
    """
    latest: dict[str, tuple[int, int, float]] = {}
    for record, _ in read_records(folder.journal):
        if isinstance(record, Metrics):
            for name, value in record.numbers().items():
                if name not in latest or (record.step, record.time) >= latest[name][:2]:
                    latest[name] = (record.step, record.time, value)
    return {name: value for name, (_, _, value) in latest.items()}


def waiting_trials(root: Path, sweep: str | None) -> Iterator[tuple[str, FinishedTrial]]:
    """Yield the finished trials among the runs that wait in a spool, each with its digest.

    Args:
        root: The spool.
        sweep: The sweep's id; ``None`` for any sweep.
    """
    for folder in run_folders(root):
        try:
            tags = header(folder.journal).tags
            if TagName.TRIAL not in tags or sweep not in {None, tags.get(TagName.SWEEP)}:
                continue
            last = [record for record, _ in read_records(folder.journal)][-1]
            if isinstance(last, RunEnded) and last.status == "FINISHED":
                yield (
                    tags[TagName.TRIAL],
                    FinishedTrial(folder.key, folder.progress().run_id, last_values(folder)),
                )
        except (JournalError, OSError):  # delivered and removed at this moment, or unreadable
            continue
