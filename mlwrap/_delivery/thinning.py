"""Which points of a very long run is MLflow told?

Its pages draw no ten million points, and its database takes a quarter of an hour to swallow them. So of a
metric with more than a number ``after`` of points it is told the first ``after``, every second one of as many
again, every fourth of twice as many after those, and so on: each time that a run gets twice as long MLflow is
told ``after / 2`` points more. The last point, the one of the highest step, the least and the greatest are
told at the run's end if they were left out, the first that is not finite at once. All of them are in
an artifact then.

It is decided by counting, in one pass and with a few numbers for each metric, which are written down with how
far delivery got: a delivery that is taken up chooses as one that was never interrupted.
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

FILE = "thinned_metrics.csv.gz"


class Thinning:
    """Chooses among a run's points.

    Args:
        after: Points of one metric of which none is left out; 0 for all of them.
        seen: What an earlier delivery saw of each metric, brought up to date here.

    Attributes:
        thinned: Names of the metrics of which not all points are told.
    """

    def __init__(self, after: int, seen: dict[str, MetricStats]) -> None:
        self._after = after
        self._seen = seen
        self.thinned = [name for name, one in seen.items() if one.count > after]

    def select(self, record: Metrics) -> list[MetricAt]:
        """The points of a record that are told."""
        when, step = record.time, record.step
        if not self._after:
            return [(name, float(value), when, step) for name, value in record.values.items()]
        told = []
        for name, value in record.values.items():
            seen = self._seen.get(name) or self._seen.setdefault(name, MetricStats())
            count = seen.count = seen.count + 1
            if count > self._after:
                if not self._is_told(name, seen, (value, when, step)):
                    continue
            elif isinstance(value, str):
                seen.odd = True
            elif not seen.least <= value <= seen.greatest:
                if value < seen.least:  # noqa: PLR1730 - a call of min() costs as much as all the rest here
                    seen.least = value
                if value > seen.greatest:  # noqa: PLR1730 - likewise
                    seen.greatest = value
            told.append((name, float(value), when, step))
        return told

    def deferred(self) -> list[MetricAt]:
        """The points that were left out and are told at the run's end."""
        return [
            (name, float(value), when, step)
            for name, seen in self._seen.items()
            for value, when, step in dict.fromkeys(seen.held.values())
        ]

    def _is_told(self, name: str, seen: MetricStats, point: tuple[Number, int, int]) -> bool:
        """Whether a point beyond the first ``after`` is; what it is held for if not."""
        index = seen.count - 1
        if index == self._after:
            self.thinned.append(name)
        value, when, step = point
        told = index % (1 << (index // self._after).bit_length()) == 0
        roles = ["last"]
        furthest = seen.held.get("furthest")
        if furthest is None or (step, when) >= (furthest[2], furthest[1]):
            roles.append("furthest")
        if isinstance(value, str):
            told = told or not seen.odd
            seen.odd = True
        else:
            if value < seen.least:
                seen.least = value
                roles.append("least")
            if value > seen.greatest:
                seen.greatest = value
                roles.append("greatest")
        for role in roles:
            if told:
                seen.held.pop(role, None)
            else:
                seen.held[role] = point
        return told


def write_points(journal: Path, names: Collection[str], file: Path, alive: Callable[[], None]) -> None:
    """Write all points of some metrics into a compressed table: name, step, timestamp, value.

    Args:
        journal: Where they are.
        names: The metrics' names.
        file: Made, or overwritten; the same for the same journal.
        alive: Called about once a second.

    Raises:
        OSError: The file can't be written.
    """
    wanted = set(names)
    next_sign = time.monotonic() + 1.0
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
                if time.monotonic() > next_sign:
                    next_sign = time.monotonic() + 1.0
                    alive()
