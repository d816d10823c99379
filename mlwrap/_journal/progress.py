"""What delivery writes down of its own progress with a run folder."""

from __future__ import annotations

import sys

import msgspec

from mlwrap._journal.numbers import Numbers
from mlwrap._journal.records import Number

PROGRESS_FORMAT = 1


class ModelProgress(msgspec.Struct, kw_only=True):
    """How far delivery got with one model.

    Attributes:
        name: Its name in MLflow.
        model_id: MLflow's id of it; empty until it is known, and where a server has no LoggedModels.
        status: ``PENDING``, ``READY`` or ``FAILED``, as MLflow has it.
        location: Where its files lie.
        uploaded: Files that are there already, of a model that is uploaded file by file.
        registered: URI of its version in the registry; empty while MLflow has been asked for one.
        verified: What came of loading it; empty while that is still to be done, ``None`` if nobody asked.
        troubles: What could not be done as it was asked, in sentences.
    """

    name: str
    model_id: str = ""
    location: str = ""
    status: str = "PENDING"
    uploaded: set[str] = set()
    registered: str | None = None
    verified: str | None = None
    troubles: list[str] = []


class MetricStats(msgspec.Struct, array_like=True):
    """What delivery has seen of one metric, to choose which of its points MLflow is told.

    Attributes:
        count: Its points so far.
        least: Their least value, of those that are finite.
        greatest: Their greatest value, likewise.
        odd: Whether one was not finite.
        held: Points (value, time, step) that were left out and may have to be told at the run's end, by why.
    """

    count: int = 0
    least: float = sys.float_info.max
    greatest: float = -sys.float_info.max
    odd: bool = False
    held: dict[str, tuple[Number, int, int]] = {}


class Failing(msgspec.Struct, kw_only=True, frozen=True):
    """The model or artifact that failed last while the server answered.

    Attributes:
        staged: Its staged path.
        reason: Why.
        tries: How often.
    """

    staged: str
    reason: str
    tries: int


class Progress(msgspec.Struct, kw_only=True):
    """How far delivery got with a run folder, and the ids that MLflow gave.

    Attributes:
        format: Number of this file's own format.
        offset: All records that end at or before this byte of the journal are in MLflow.
        asked: MLflow has been asked to make the run: before it is asked again, it is searched.
        run_id: MLflow's id of the run, once known.
        experiment_id: MLflow's id of its experiment, once known.
        models: Progress with each model, by its staged path.
        seen: What was seen of each metric up to ``offset``, in runs that may be thinned.
        numbers: Of the journal's records up to ``offset``.
        damaged: Records that are damaged; while the run goes on, pieces of the journal that can't be read.
        refused: Values that MLflow would not take, and why.
        degraded: What the server is too old for, and what was done instead.
        held: Staged models and artifacts that MLflow would not take, by their staged paths, each with a
            sentence that names it and says why; they stay in the run folder.
        failing: The item that comes next, if it failed.
        refused_tag: What the run's tag says of all that was refused; ``None`` if that is not known.
        sending: What comes after ``offset`` may be in MLflow already; noted for a store that would double it.
        ended: All is delivered, the run's end too.
        seconds: That were spent where nothing else changes here: a sign of life.
        error: What stood in the way of the last delivery.
        rebuilt: What an earlier delivery had written here is lost: MLflow may have more than this says.
        parent_unknown: MLflow's run was made without the parent that it has; its end sets it.
    """

    format: int = PROGRESS_FORMAT
    offset: int = 0
    asked: bool = False
    run_id: str | None = None
    experiment_id: str | None = None
    models: dict[str, ModelProgress] = {}
    seen: dict[str, MetricStats] = {}
    numbers: Numbers = msgspec.field(default_factory=Numbers)
    damaged: int = 0
    refused: dict[str, str] = {}
    degraded: str | None = None
    held: dict[str, str] = {}
    failing: Failing | None = None
    refused_tag: str | None = ""
    sending: bool = False
    ended: bool = False
    rebuilt: bool = False
    seconds: int = 0
    error: str | None = None
    parent_unknown: bool = False

    def delivered(self) -> tuple[object, ...]:
        """What MLflow has got so far: delivery makes progress if this changes, whatever else does."""
        models = {
            key: (model.model_id, model.status, model.registered, model.verified, frozenset(model.uploaded))
            for key, model in self.models.items()
        }
        return self.offset, self.run_id, models, self.seconds, self.ended
