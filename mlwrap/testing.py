"""Test code that uses mlwrap: capture what its runs record, and send nothing.

    with mlwrap.testing.capture_runs() as runs:
        train(units=3)
    assert runs[0].params["units"] == "3"

The pytest fixture ``mlwrap_runs`` does the same for one test. Neither needs a server, a database or ``import
mlflow``. Models are really saved, so that your test fails if a model can't be saved.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Artifact, Metrics, Model, Params, RunEnded, RunStarted, Tags
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import run_folders
from mlwrap.config import override

__all__ = ["CapturedRun", "CapturedRuns", "LoggedValue", "SavedModel", "capture_runs"]


class LoggedValue(NamedTuple):
    """One value of a metric.

    Attributes:
        step: The step at which the value was logged.
        value: The value, NaN and the infinities unchanged.
    """

    step: int
    value: float


class SavedModel(NamedTuple):
    """A model that was logged.

    Attributes:
        name: The model's name.
        saver: Name of the saver that wrote the model, or tried to.
        step: The model's training step.
        error: Why the model could not be saved, or ``None``.
    """

    name: str
    saver: str
    step: int
    error: str | None


class CapturedRun:
    """The records of one run.

    Attributes:
        key: The run's key.
        name: The run's name.
        parent: Key of the parent run, or ``None``.
        status: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        error: Type and message of the exception that ended the run, or ``None``.
        params: Parameters, name to text, in the form that MLflow would get.
        tags: Tags, name to text, in the form that MLflow would get.
        metrics: Metric name to all its values, in the order of logging.
        models: Models in the order of logging.
        artifacts: Paths of the artifacts.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.key = folder.key
        self.name = ""
        self.parent: str | None = None
        self.status = "RUNNING"
        self.error: str | None = None
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.metrics: dict[str, list[LoggedValue]] = {}
        self.models: list[SavedModel] = []
        self.artifacts: list[str] = []
        for record, _ in read_records(folder.journal):
            match record:
                case RunStarted():
                    self.name, self.parent = record.name, record.parent_key
                    self.tags |= record.tags
                case Params(values=values):
                    self.params |= values
                case Tags(values=values):
                    self.tags |= values
                case Metrics():
                    for name, value in record.numbers().items():
                        self.metrics.setdefault(name, []).append(LoggedValue(record.step, value))
                case Artifact(path=path):
                    self.artifacts.append(path)
                case Model(name=name, saver=saver, step=step, error=error):
                    self.models.append(SavedModel(name, saver, step, error))
                case RunEnded(status=status, error=error):
                    self.status, self.error = status, error

    def __repr__(self) -> str:
        return f"<CapturedRun {self.name!r} {self.status}>"


class CapturedRuns(Sequence[CapturedRun]):
    """The runs so far, in the order of their starts; each access reads their current state."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._kept: list[CapturedRun] | None = None

    @overload
    def __getitem__(self, index: int) -> CapturedRun: ...

    @overload
    def __getitem__(self, index: slice) -> list[CapturedRun]: ...

    def __getitem__(self, index: int | slice) -> CapturedRun | list[CapturedRun]:
        return self._runs()[index]

    def __len__(self) -> int:
        return len(self._runs())

    def __iter__(self) -> Iterator[CapturedRun]:  # Sequence's would read all journals once per run
        return iter(self._runs())

    def __repr__(self) -> str:
        return repr(self._runs())

    def keep(self) -> None:
        """Keep the current state of the runs, before their folders are removed."""
        self._kept = self._runs()

    def _runs(self) -> list[CapturedRun]:
        if self._kept is not None:
            return self._kept
        return [CapturedRun(folder) for folder in run_folders(self._spool)]


@contextlib.contextmanager
def capture_runs() -> Iterator[CapturedRuns]:
    """Capture every run that starts within the block, whatever its settings.

    The block overrides ``spool``, ``delivery``, ``quiet``, ``disabled`` and ``system_metrics`` from the
    environment, ``configure()`` and the decorators.

    Yields:
        The runs, which you can read within the block and after it.
    """
    with tempfile.TemporaryDirectory(prefix="mlwrap-") as folder:
        runs = CapturedRuns(Path(folder))
        with override(spool=folder, delivery="off", quiet=True, disabled=False, system_metrics=False):
            try:
                yield runs
            finally:
                runs.keep()
