"""Choose which of a run's logged models is *the* model of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class OfRun(Protocol):
    """The attributes of a model that the choice depends on."""

    @property
    def name(self) -> str: ...

    @property
    def checkpoint(self) -> bool: ...

    @property
    def call(self) -> int: ...


M = TypeVar("M", bound=OfRun)


def models_of_run(models: Sequence[M]) -> list[M]:
    """Return the run's models: the last one of each name.

    They come from the last call that logged anything but checkpoints; a training function's returned models
    are logged last. If a run logged only checkpoints, those are its models.

    Args:
        models: All of the run's models, in the order of logging.

    Returns:
        One model if the choice is clear; several if the user has to name one; empty if ``models`` is empty.
    """
    final = [model for model in models if not model.checkpoint]
    last_call = max((model.call for model in final), default=0)
    chosen = [model for model in final if model.call == last_call] if final else models
    return list({model.name: model for model in chosen}.values())
