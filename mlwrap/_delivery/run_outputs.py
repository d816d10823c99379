"""The models of a run, as MLflow has them."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from mlflow.entities import LoggedModel, LoggedModelStatus, Run

from mlwrap._delivery.queries import Queries
from mlwrap.errors import Refused


class RunModel(NamedTuple):
    """A model that a run logged.

    Attributes:
        entity: What MLflow has of it.
        name: Its name.
        step: The step that it was logged for.
        call: Which of the run's calls logged it; 0 where an older mlwrap did.
        checkpoint: Whether it is a state on the way.
    """

    entity: LoggedModel
    name: str
    step: int
    call: int
    checkpoint: bool

    @property
    def label(self) -> str:
        """Its name, and its step where it was logged for one: ``checkpoint@3``."""
        return f"{self.name}@{self.step}" if self.checkpoint or self.step else self.name


def run_outputs(client: Queries, run: Run) -> list[RunModel]:
    """The models that are outputs of a run, in the order of logging."""
    outputs = run.outputs.model_outputs if run.outputs else ()
    return _in_order([_of(client.get_model(output.model_id), int(output.step)) for output in outputs])


def with_unsaved(client: Queries, run: Run, models: list[RunModel]) -> list[RunModel]:
    """The run's models, and those that could not be saved; without checkpoints among these."""
    unsaved: list[LoggedModel] = []
    with contextlib.suppress(Refused):  # of a server without LoggedModels
        unsaved = client.unsaved_models(run)
    every = _in_order([*models, *(_of(model, 0) for model in unsaved)])
    return [m for m in every if not (m.checkpoint and m.entity.status == LoggedModelStatus.FAILED)]


def _of(model: LoggedModel, step: int) -> RunModel:
    call = model.tags.get("mlwrap.call", "")
    is_checkpoint = model.tags.get("mlwrap.checkpoint") == "true"
    return RunModel(model, str(model.name), step, int(call) if call.isdecimal() else 0, is_checkpoint)


def _in_order(models: list[RunModel]) -> list[RunModel]:
    return sorted(models, key=lambda m: (m.call, m.entity.creation_timestamp))
