"""The types in which delivery stores its progress with a run folder."""

from __future__ import annotations

import sys

import msgspec

from mlwrap._journal.numbers import Numbers
from mlwrap._journal.records import Number

PROGRESS_FORMAT = 1


class PartialUpload(msgspec.Struct, kw_only=True):
    """A large file that is uploaded in parts, of which some have arrived.

    Attributes:
        location: The artifact location.
        path: The file's path at the location.
        size: Its length in bytes.
        part_size: The length of each part but the last, in bytes.
        upload_id: The store's id of the upload; empty from the request until the store's answer.
        arrived: How many parts have arrived.
    """

    location: str
    path: str
    size: int
    part_size: int
    upload_id: str = ""
    arrived: int = 0


class ModelProgress(msgspec.Struct, kw_only=True):
    """How far delivery got with one model.

    Attributes:
        name: The model's name in MLflow.
        model_id: MLflow's id of the model; empty until it is known, and if the server has no LoggedModels.
        status: MLflow's status of the model: ``PENDING``, ``READY`` or ``FAILED``.
        location: Where the model's files are stored.
        uploaded: Files already uploaded, for a model that is uploaded file by file.
        partial: Files of which some parts are uploaded, by the same paths.
        registered: URI of the model's version in the registry; empty from the request until MLflow's answer;
            ``None`` before the request.
        verified: Result of loading the model; empty while that is pending, ``None`` if it was not requested.
        search_path: The module search path with which it is loaded for that.
        troubles: Sentences that say which requests could not be carried out.
    """

    name: str
    model_id: str = ""
    location: str = ""
    status: str = "PENDING"
    uploaded: set[str] = set()
    partial: dict[str, PartialUpload] = {}
    registered: str | None = None
    verified: str | None = None
    search_path: tuple[str, ...] = ()
    troubles: list[str] = []


class MetricStats(msgspec.Struct, array_like=True):
    """Statistics of one metric, from which delivery chooses the data points that MLflow gets.

    Attributes:
        count: Number of points so far.
        least: Minimum of the finite values.
        greatest: Maximum of the finite values.
        odd: Whether a value was NaN or infinite.
        held: Points (value, time, step) that were left out and may have to be sent at the run's end, by the
            reason to send them.
    """

    count: int = 0
    least: float = sys.float_info.max
    greatest: float = -sys.float_info.max
    odd: bool = False
    held: dict[str, tuple[Number, int, int]] = {}


class Failing(msgspec.Struct, kw_only=True, frozen=True):
    """The model or artifact that failed last while the server answered.

    Attributes:
        staged: Staged path of the item.
        reason: Why it failed.
        tries: How often it failed.
    """

    staged: str
    reason: str
    tries: int


class Progress(msgspec.Struct, kw_only=True):
    """How far delivery got with a run folder, and the ids that MLflow assigned.

    Attributes:
        format: Format number of ``delivered.json`` itself.
        offset: All records that end at or before this byte of the journal are in MLflow.
        asked: Creating the run was requested; before another request, MLflow is searched for the run.
        run_id: MLflow's id of the run, once known.
        experiment_id: MLflow's id of the experiment, once known.
        artifact_uri: Where the run's artifacts are stored; empty until known.
        models: Progress with each model, by its staged path.
        uploaded: Files of artifacts after ``offset`` that have arrived, by paths relative to the run folder.
        partial: Files of artifacts of which some parts have arrived, by the same paths.
        seen: Statistics of each metric up to ``offset``, in runs that may be down-sampled.
        numbers: Numbers of the journal's records up to ``offset``.
        damaged: Count of damaged records; while the run is open, of unreadable pieces of the journal.
        refused: Values that MLflow refused, each with the reason.
        degraded: What the server is too old for, and what was done instead.
        held: Models and artifacts that MLflow refused, by staged path. The sentence names the item and says
            why; the item stays in the run folder.
        failing: The next item, if it failed.
        refused_tag: Current text of the run's tag about everything refused; ``None`` if unknown.
        sending: Records after ``offset`` may already be in MLflow; set for a store that would duplicate them.
        ended: Everything is delivered, including the run's end.
        seconds: Time spent while nothing else here changed: a sign of life.
        error: What stopped the last delivery.
        rebuilt: The progress of an earlier delivery is lost: MLflow may have more than this says.
        parent_unknown: MLflow's run was created without its parent; the run's end sets the parent.
    """

    format: int = PROGRESS_FORMAT
    offset: int = 0
    asked: bool = False
    run_id: str | None = None
    experiment_id: str | None = None
    artifact_uri: str = ""
    models: dict[str, ModelProgress] = {}
    uploaded: set[str] = set()
    partial: dict[str, PartialUpload] = {}
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
        """Return what MLflow has so far; only a change of this value counts as progress."""
        models = {
            key: (model.model_id, model.status, model.registered, model.verified, frozenset(model.uploaded))
            for key, model in self.models.items()
        }
        parts = {(upload.location, upload.path): upload.arrived for upload in self.partial_uploads()}
        uploaded = frozenset(self.uploaded)
        return self.offset, self.run_id, models, uploaded, parts, self.seconds, self.ended

    def partial_uploads(self) -> list[PartialUpload]:
        """Return all files of which some parts have arrived, of artifacts and of models."""
        of_models = [upload for model in self.models.values() for upload in model.partial.values()]
        return [*self.partial.values(), *of_models]
