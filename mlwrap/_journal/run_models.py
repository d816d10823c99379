"""Which of the models that a run logged is *the* model of the run?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class OfRun(Protocol):
    """What has to be known of a model to tell."""

    @property
    def name(self) -> str: ...

    @property
    def checkpoint(self) -> bool: ...

    @property
    def call(self) -> int: ...


M = TypeVar("M", bound=OfRun)


def models_of_run(models: Sequence[M]) -> list[M]:
    """The models that a run stands for: of each name the last one that counts.

    Those are the models of the last call that logged any but checkpoints: what a training function returned
    is logged after all else. A run that logged checkpoints only stands for these.

    Args:
        models: All of the run's models, in the order of logging.

    Returns:
        One where it is clear which one is meant; several where one has to be named; none of none.
    """
    final = [model for model in models if not model.checkpoint]
    last_call = max((model.call for model in final), default=0)
    meant = [model for model in final if model.call == last_call] if final else models
    return list({model.name: model for model in meant}.values())
