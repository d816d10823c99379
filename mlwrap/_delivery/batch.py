"""What goes to MLflow in one request, and what becomes of the one value in it that MLflow refuses."""

from __future__ import annotations

from collections.abc import Sequence

from mlwrap._delivery.thinning import Thinning
from mlwrap._journal.records import Metrics
from mlwrap._journal.tags import TagName
from mlwrap._mlflow.client import BATCH, Client, MetricPoint
from mlwrap._mlflow.errors import http_status
from mlwrap.errors import Refused, Unreachable

_SERVER_ERROR = 500
_Entry = tuple[str, tuple[str, str] | MetricPoint]


class Batch:
    """Parameters, metrics and tags that wait to be sent.

    Args:
        thinning: Chooses the points that MLflow is told.
        probe: A tag that the run has: setting it again shows whether the server takes anything at all.

    Attributes:
        params: Name to text.
        tags: Name to text.
    """

    def __init__(self, thinning: Thinning, probe: tuple[str, str]) -> None:
        self._thinning = thinning
        self._probe = probe
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self._metrics: list[MetricPoint] = []

    def add(self, record: Metrics) -> None:
        """Add the points of a record that MLflow is told."""
        before = len(self._thinning.thinned)
        self._metrics += self._thinning.select(record)
        if len(self._thinning.thinned) > before:
            self.tags[TagName.THINNED] = ", ".join(self._thinning.thinned)[:5000]

    def add_of_model(self, points: Sequence[MetricPoint]) -> None:
        """Add points of the run that are a LoggedModel's, too; each takes the place of the same one here."""
        same = {point[:4] for point in points}
        self._metrics = [point for point in self._metrics if point not in same] + [*points]

    def add_deferred(self) -> None:
        """Add the points that were left out and are told all the same: the run is over."""
        self._metrics += self._thinning.deferred()

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
        entries: list[_Entry] = [("parameter", _text(*param)) for param in self.params.items()]
        entries += [("tag", _text(*tag)) for tag in self.tags.items()]
        entries += [("metric", metric) for metric in self._metrics]
        refused: dict[str, str] = {}
        for start in range(0, len(entries), BATCH):
            some = entries[start : start + BATCH]
            try:
                self._log(client, run_id, some)
            except Refused as error:
                client.check_run(run_id)  # a deleted run refuses every value: halving would lose them all
                refused |= self._halve(client, run_id, some, error)
        self.params, self.tags, self._metrics = {}, {}, []
        return refused

    def _log(self, client: Client, run_id: str, entries: list[_Entry]) -> None:
        """Log these.

        Raises:
            Unreachable: Nobody answered, or the server takes nothing at all.
            Refused: Something in the request is refused, or the run is.
        """
        try:
            _send_metrics(client, run_id, entries)
        except Unreachable as error:
            if http_status(error.__cause__) != _SERVER_ERROR or error.retry_after:
                raise
            # A value that its database does not take is a fault of the server's own, as it sees it.
            client.log_batch(run_id, [], [], [self._probe])
            try:
                _send_metrics(client, run_id, entries)
            except Unreachable as again:
                if str(again) != str(error):
                    raise
                raise Refused(str(error), of_value=True) from error

    def _halve(self, client: Client, run_id: str, entries: list[_Entry], error: Refused) -> dict[str, str]:
        """Log what was refused in halves, until what is refused stands alone."""
        if not error.of_value:
            raise error
        if len(entries) == 1:
            kind, entry = entries[0]
            return {f"{kind} {entry[0]!r}": str(error)}
        refused: dict[str, str] = {}
        for half in (entries[: len(entries) // 2], entries[len(entries) // 2 :]):
            try:
                self._log(client, run_id, half)
            except Refused as again:
                refused |= self._halve(client, run_id, half, again)
        return refused


def _text(name: str, text: str) -> tuple[str, str]:
    """A server on PostgreSQL, which knows no NUL, answers 500 to one, as if it were out of order."""
    return name, text.replace("\0", "\\x00")


def _send_metrics(client: Client, run_id: str, entries: list[_Entry]) -> None:
    client.log_batch(
        run_id,
        params=[e for kind, e in entries if kind == "parameter"],  # type: ignore[misc] # told apart by kind
        metrics=[e for kind, e in entries if kind == "metric"],  # type: ignore[misc]
        tags=[e for kind, e in entries if kind == "tag"],  # type: ignore[misc]
    )
