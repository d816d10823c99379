"""What earlier sweeps have in MLflow already."""

from __future__ import annotations

from mlwrap._delivery.answers import asking_once
from mlwrap._delivery.queries import Queries
from mlwrap._journal import POINT, SWEEP, Point
from mlwrap.errors import Refused


def finished_points(
    tracking_uri: str, experiment: str | None, experiment_id: str | None, sweep: str | None
) -> list[tuple[str, Point]]:
    """See the room's own :func:`mlwrap._delivery.finished_points`."""
    with asking_once():
        client = Queries(tracking_uri)
        place = experiment_id or client.experiment_id(experiment)
        wanted = f"attributes.status = 'FINISHED' and tags.`{POINT}` != ''"
        if sweep is not None:
            wanted += f" and tags.`{SWEEP}` = '{sweep}'"
        return [
            (
                run.data.tags[POINT],
                Point(run.data.tags.get("mlwrap.key", ""), run.info.run_id, dict(run.data.metrics)),
            )
            for run in client.search(place, wanted)
        ]


def sweep_of(tracking_uri: str, experiment: str | None, experiment_id: str | None, run: str) -> str | None:
    """See the room's own :func:`mlwrap._delivery.sweep_of`."""
    with asking_once():
        client = Queries(tracking_uri)
        place = experiment_id or client.experiment_id(experiment)
        try:
            found = [client.get_run(run)]
        except Refused:  # it is no id of MLflow's
            found = client.search(place, f"tags.`mlwrap.key` = '{run}'")
        return next((tags[SWEEP] for tags in (each.data.tags for each in found) if SWEEP in tags), None)
