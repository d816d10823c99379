"""For the tests of code that uses mlwrap: what its runs record is looked at, and nothing is sent.

    with mlwrap.testing.capture_runs() as runs:
        train(units=3)
    assert runs[0].params["units"] == "3"

With pytest the fixture ``mlwrap_runs`` does the same for one test. No server, no database and no ``import
mlflow`` is needed; models are really saved, for a model that can't be is worth a test.
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
        step: The step that it was logged at.
        value: The value, NaN and the infinities as they were.
    """

    step: int
    value: float


class SavedModel(NamedTuple):
    """A model that was logged.

    Attributes:
        name: Its name.
        saver: Name of the saver that wrote it, or tried to.
        step: The training step that it belongs to.
        error: Why it could not be saved, or ``None``.
    """

    name: str
    saver: str
    step: int
    error: str | None


class CapturedRun:
    """What one run recorded.

    Attributes:
        key: Its key.
        name: Its name.
        parent: Key of the run around it, or ``None``.
        status: ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
        error: What ended it, where something did.
        params: Name to text, as MLflow would get them.
        tags: Name to text, likewise.
        metrics: Name to all its values, in the order in which they were logged.
        models: In the order in which they were logged.
        artifacts: Paths of its artifacts.
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
    """The runs so far, in the order in which they started; as they are now, each time one looks."""

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

    def __iter__(self) -> Iterator[CapturedRun]:  # Sequence's reads all journals for each
        return iter(self._runs())

    def __repr__(self) -> str:
        return repr(self._runs())

    def keep(self) -> None:
        """Stay as they are now: their folders go."""
        self._kept = self._runs()

    def _runs(self) -> list[CapturedRun]:
        if self._kept is not None:
            return self._kept
        return [CapturedRun(folder) for folder in run_folders(self._spool)]


@contextlib.contextmanager
def capture_runs() -> Iterator[CapturedRuns]:
    """Capture every run that starts within the block, whatever it is set to do with it.

    Settings of the environment, of ``configure()`` and of the decorators themselves that say where a run is
    delivered, or that it is disabled, do not count.

    Yields:
        The runs; they can be looked at within the block and after it.
    """
    with tempfile.TemporaryDirectory(prefix="mlwrap-") as folder:
        runs = CapturedRuns(Path(folder))
        with override(spool=folder, delivery="off", quiet=True, disabled=False, system_metrics=False):
            try:
                yield runs
            finally:
                runs.keep()
