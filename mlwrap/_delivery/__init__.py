"""What is MLflow told?

The only room that imports MLflow. It reads one run folder and makes MLflow look the same; what is there
already it leaves alone, so that delivering twice changes nothing. It may import ``mlwrap.errors``,
``mlwrap.config`` and the journal's room, and is told everything else by the journal: it never imports
TensorFlow or Keras, nor the rooms that do.

MLflow takes seconds and 200 MB to import, so it loads at the first call, not with this room.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlwrap._delivery.backlog import Outcome, is_stuck
from mlwrap._delivery.backlog import deliver_backlog as _deliver_backlog
from mlwrap._delivery.cache import Cache
from mlwrap._delivery.dead_runs import close_for_the_dead
from mlwrap._delivery.line import WAKE_SECONDS, Line
from mlwrap._delivery.served import get_ready
from mlwrap._journal import Point, Progress, RunFolder

if TYPE_CHECKING:
    from mlwrap._delivery.lookup import ModelFiles as ModelFiles
    from mlwrap._delivery.lookup import Shown
    from mlwrap._delivery.lookup import ShownModel as ShownModel

__all__ = [
    "WAKE_SECONDS",
    "Cache",
    "Line",
    "Outcome",
    "close_for_the_dead",
    "deliver",
    "deliver_backlog",
    "find_model",
    "finished_points",
    "get_ready",
    "imported_mlflow",
    "is_stuck",
    "show",
    "stock_predict",
    "sweep_of",
]

_ours: list[bool] = []


def imported_mlflow() -> bool:
    """Whether MLflow is in this process because this room imported it, and not the user."""
    return any(_ours)


def _note_import() -> None:
    if not _ours:
        _ours.append("mlflow" not in sys.modules)


def deliver(folder: RunFolder) -> Progress:
    """Make MLflow look like ``folder`` says, as far as its journal goes.

    The folder of a run that has ended is removed once all of it is delivered, and only then. Where MLflow
    does not answer it is asked again, for some seconds as long as that leads nowhere.

    Returns:
        How far delivery got, with the ids that MLflow gave.

    Raises:
        Unreachable: Nobody answered; the folder is as it was, less what was delivered.
        Refused: The server said no.
        JournalError: The folder can't be read.
    """
    _note_import()
    from mlwrap._delivery import runs  # noqa: PLC0415 - see above: MLflow loads late

    return runs.deliver_patiently(folder)


def deliver_backlog(folders: Iterable[RunFolder]) -> Iterator[Outcome]:
    """Deliver run folders, each on its own; how each ended, as soon as it has."""
    _note_import()
    from mlwrap._delivery import runs  # noqa: PLC0415 - see above: MLflow loads late

    yield from _deliver_backlog(folders, runs.deliver_patiently)


def find_model(uri: str, tracking_uri: str | None, cache_bytes: int) -> ModelFiles:
    """Find a logged model's files, where they lie or else in a downloaded copy, and see that they are whole.

    Args:
        uri: ``models:/<model id>``, ``models:/<name>/<version>``, ``models:/<name>@<alias>``,
            ``runs:/<run id>/<model name>``, a run id, or a folder.
        tracking_uri: Where to ask; ``None`` for MLflow's own.
        cache_bytes: What downloaded copies may take; the least recently used ones are removed.

    Raises:
        LoadError: There is no such model, it is not READY, or its files are not those that were logged.
        Unreachable: Nobody answered.
    """
    _note_import()
    from mlwrap._delivery import lookup  # noqa: PLC0415 - see above: MLflow loads late

    return lookup.find_model(uri, tracking_uri, cache_bytes)


def stock_predict(folder: Path, value: Any, *, trust: bool) -> Any:
    """What MLflow's own generic loader predicts for an example; ``None`` where it has no loader for it.

    Args:
        folder: The model's files.
        value: The example, or ``None`` to load the model and no more.
        trust: Whether code may run that came with the model.

    Raises:
        LoadError: It would run code that came with the model, without ``trust``.
        Exception: Whatever the loader or the model raises.
    """
    _note_import()
    from mlwrap._delivery import verifying  # noqa: PLC0415 - see above: MLflow loads late

    return verifying.stock_predict(folder, value, trust=trust)


def show(run_id: str | None, tracking_uri: str | None = None) -> Shown:
    """What MLflow has of a run; of the newest one that mlwrap logged where ``run_id`` is ``None``.

    Raises:
        Refused: There is no such run.
        Unreachable: Nobody answered.
    """
    _note_import()
    from mlwrap._delivery import lookup  # noqa: PLC0415 - see above: MLflow loads late

    return lookup.show(run_id, tracking_uri)


def finished_points(
    tracking_uri: str, experiment: str | None, experiment_id: str | None, sweep: str | None
) -> list[tuple[str, Point]]:
    """The points of sweeps that MLflow has as FINISHED, each with its digest, the newest first.

    Args:
        tracking_uri: Where to ask.
        experiment: Name of the experiment that they are in; ``None`` for MLflow's default one.
        experiment_id: MLflow's id of it, which goes before the name.
        sweep: The sweep's own id; ``None`` for any.

    Raises:
        DeliveryError: MLflow could not be asked.
    """
    _note_import()
    from mlwrap._delivery import sweeps  # noqa: PLC0415 - see above: MLflow loads late

    return sweeps.finished_points(tracking_uri, experiment, experiment_id, sweep)


def sweep_of(tracking_uri: str, experiment: str | None, experiment_id: str | None, run: str) -> str | None:
    """The own id of the sweep whose run has this id or key; ``None`` if there is none.

    Raises:
        DeliveryError: MLflow could not be asked.
    """
    _note_import()
    from mlwrap._delivery import sweeps  # noqa: PLC0415 - see above: MLflow loads late

    return sweeps.sweep_of(tracking_uri, experiment, experiment_id, run)
