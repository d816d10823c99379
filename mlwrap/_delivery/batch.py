"""What goes to MLflow in one request, and what becomes of the one value in it that MLflow refuses."""

from __future__ import annotations

from mlwrap._delivery.client import BATCH, Client
from mlwrap._journal import Metrics
from mlwrap.errors import Refused

_Entry = tuple[str, tuple[str, str] | tuple[str, float, int, int]]


class Batch:
    """Parameters, metrics and tags that wait to be sent.

    Attributes:
        params: Name to text.
        tags: Name to text.
    """

    def __init__(self) -> None:
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self._metrics: list[tuple[str, float, int, int]] = []

    def add(self, record: Metrics) -> None:
        """Add the points of a record."""
        self._metrics += [(name, value, record.time, record.step) for name, value in record.numbers().items()]

    @property
    def full(self) -> bool:
        """Whether it fills a request."""
        return len(self.params) + len(self._metrics) + len(self.tags) >= BATCH

    def send(self, client: Client, run_id: str) -> dict[str, str]:
        """Log all of it, and be empty.

        Returns:
            What MLflow would not take, with the reason; everything else is logged.

        Raises:
            Unreachable: Nobody answered; nothing is taken out of the batch.
            Refused: The run, and not a value, is what MLflow refuses.
        """
        entries: list[_Entry] = [("parameter", param) for param in self.params.items()]
        entries += [("tag", tag) for tag in self.tags.items()]
        entries += [("metric", metric) for metric in self._metrics]
        refused: dict[str, str] = {}
        for start in range(0, len(entries), BATCH):
            refused |= _send(client, run_id, entries[start : start + BATCH])
        self.params, self.tags, self._metrics = {}, {}, []
        return refused


def _send(client: Client, run_id: str, entries: list[_Entry]) -> dict[str, str]:
    """Log some entries; where MLflow refuses, halve them until what is refused stands alone."""
    try:
        client.log_batch(
            run_id,
            params=[e for kind, e in entries if kind == "parameter"],  # type: ignore[misc] # told apart by kind
            metrics=[e for kind, e in entries if kind == "metric"],  # type: ignore[misc]
            tags=[e for kind, e in entries if kind == "tag"],  # type: ignore[misc]
        )
    except Refused as error:
        if not error.of_value:
            raise
        client.check_run(run_id)  # a run that was deleted refuses every value: halving would lose them all
        if len(entries) == 1:
            kind, entry = entries[0]
            return {f"{kind} {entry[0]!r}": str(error)}
        half = len(entries) // 2
        return _send(client, run_id, entries[:half]) | _send(client, run_id, entries[half:])
    return {}
