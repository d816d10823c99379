"""Down-sample the metrics of a very long run before they are sent to MLflow.

MLflow's pages can't draw ten million points, and its database takes a quarter of an hour to store them. Of a
metric with more than ``after`` points, MLflow gets the first ``after``, every second of the next ``after``,
every fourth of the next ``2 * after``, and so on: each time the run doubles in length, MLflow gets
``after / 2`` more points. The last point, the one of the highest step, the minimum and the maximum are sent
at the end of the run if they were omitted. The first point that is not finite is sent at once. An artifact
then contains all points.

The selection takes one pass and a few numbers for each metric. These are saved with the progress of the
delivery, so that an interrupted delivery selects the same points as an uninterrupted one.
"""

from __future__ import annotations

import csv
import gzip
import io
import time
from collections.abc import Callable, Collection
from pathlib import Path

from mlwrap._journal.progress import MetricStats
from mlwrap._journal.reader import read_records
from mlwrap._journal.records import Metrics, Number

MetricAt = tuple[str, float, int, int]
"""Name, value, milliseconds since the epoch, step."""

THINNED_FILE = "thinned_metrics.csv.gz"


class Thinning:
    """Selects the data points of a run that are sent to MLflow.

    Args:
        after: Number of points of each metric that are always sent; 0 sends all points.
        seen: The statistics of each metric from an earlier delivery; updated here.

    Attributes:
        thinned: Names of the metrics of which not all points are sent.
    """

    def __init__(self, after: int, seen: dict[str, MetricStats]) -> None:
        self._after = after
        self._seen = seen
        self.thinned = [name for name, stats in seen.items() if stats.count > after]

    def select(self, record: Metrics) -> list[MetricAt]:
        """Return the points of a record that are sent."""
        time_ms, step = record.time, record.step
        if not self._after:
            return [(name, float(value), time_ms, step) for name, value in record.values.items()]
        selected = []
        for name, value in record.values.items():
            stats = self._seen.get(name) or self._seen.setdefault(name, MetricStats())
            count = stats.count = stats.count + 1
            if count > self._after:
                if not self._is_told(name, stats, (value, time_ms, step)):
                    continue
            elif isinstance(value, str):
                stats.odd = True
            elif not stats.least <= value <= stats.greatest:
                if value < stats.least:  # noqa: PLR1730 - a call of min() costs as much as all the rest here
                    stats.least = value
                if value > stats.greatest:  # noqa: PLR1730 - as above
                    stats.greatest = value
            selected.append((name, float(value), time_ms, step))
        return selected

    def deferred(self) -> list[MetricAt]:
        """Return the points that were omitted at first and are sent at the end of the run."""
        return [
            (name, float(value), time_ms, step)
            for name, stats in self._seen.items()
            for value, time_ms, step in dict.fromkeys(stats.held.values())
        ]

    def _is_told(self, name: str, stats: MetricStats, point: tuple[Number, int, int]) -> bool:
        """Return whether a point beyond the first ``after`` is sent; if not, defer it if it may be needed."""
        index = stats.count - 1
        if index == self._after:
            self.thinned.append(name)
        value, time_ms, step = point
        selected = index % (1 << (index // self._after).bit_length()) == 0
        roles = ["last"]
        furthest = stats.held.get("furthest")
        if furthest is None or (step, time_ms) >= (furthest[2], furthest[1]):
            roles.append("furthest")
        if isinstance(value, str):
            selected = selected or not stats.odd
            stats.odd = True
        else:
            if value < stats.least:
                stats.least = value
                roles.append("least")
            if value > stats.greatest:
                stats.greatest = value
                roles.append("greatest")
        for role in roles:
            if selected:
                stats.held.pop(role, None)
            else:
                stats.held[role] = point
        return selected


def write_points(journal: Path, names: Collection[str], file: Path, alive: Callable[[], None]) -> None:
    """Write all points of some metrics to a compressed CSV table: name, step, timestamp, value.

    Args:
        journal: The journal that contains the points.
        names: The metrics' names.
        file: The file to write; its content depends only on the journal and the names.
        alive: Called about once a second, as a sign of life.

    Raises:
        OSError: The file can't be written.
    """
    wanted = set(names)
    next_alive = time.monotonic() + 1.0
    with (
        file.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed,
        io.TextIOWrapper(packed, "utf-8", newline="") as text,
    ):
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("name", "step", "timestamp", "value"))
        for record, _ in read_records(journal):
            if isinstance(record, Metrics):
                table.writerows(
                    (name, record.step, record.time, float(value))
                    for name, value in record.values.items()
                    if name in wanted
                )
                if time.monotonic() > next_alive:
                    next_alive = time.monotonic() + 1.0
                    alive()
