"""``Batch``: send parameters, metrics and tags in few requests, and find the values that MLflow refuses."""

from __future__ import annotations

from collections.abc import Sequence

from mlwrap._delivery.thinning import Thinning
from mlwrap._journal.records import Metrics
from mlwrap._journal.tags import TagName
from mlwrap._mlflow.client import BATCH, Client, MetricPoint
from mlwrap._mlflow.server_errors import http_status
from mlwrap.errors import Refused, Unreachable

_SERVER_ERROR = 500
_Entry = tuple[str, tuple[str, str] | MetricPoint]


class Batch:
    """Parameters, metrics and tags that wait to be sent.

    Args:
        thinning: Chooses the data points that are sent to MLflow.
        probe: A tag that the run has already: setting it again shows whether the server accepts anything.

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
        """Add the points of a record that thinning selects."""
        thinned_before = len(self._thinning.thinned)
        self._metrics += self._thinning.select(record)
        if len(self._thinning.thinned) > thinned_before:
            self.tags[TagName.THINNED] = ", ".join(self._thinning.thinned)[:5000]

    def add_of_model(self, points: Sequence[MetricPoint]) -> None:
        """Add points of the run that belong to a LoggedModel; each replaces the same point in the batch."""
        same = {point[:4] for point in points}
        self._metrics = [point for point in self._metrics if point not in same] + [*points]

    def add_deferred(self) -> None:
        """Add the deferred points of :class:`Thinning`, at the end of the run."""
        self._metrics += self._thinning.deferred()

    @property
    def full(self) -> bool:
        """Whether the batch fills a request."""
        return len(self.params) + len(self._metrics) + len(self.tags) >= BATCH

    def send(self, client: Client, run_id: str) -> dict[str, str]:
        """Log everything in the batch, and empty it.

        Returns:
            The values that MLflow refused, each with the reason; everything else is logged.

        Raises:
            Unreachable: The server did not answer; the batch is unchanged.
            Refused: MLflow refuses the run, and not a single value.
        """
        entries: list[_Entry] = [("parameter", _escape_nul(*param)) for param in self.params.items()]
        entries += [("tag", _escape_nul(*tag)) for tag in self.tags.items()]
        entries += [("metric", metric) for metric in self._metrics]
        refused: dict[str, str] = {}
        for start in range(0, len(entries), BATCH):
            request_entries = entries[start : start + BATCH]
            try:
                self._log(client, run_id, request_entries)
            except Refused as error:
                client.check_run(run_id)  # a deleted run refuses every value: halving would lose them all
                refused |= self._halve(client, run_id, request_entries, error)
        self.params, self.tags, self._metrics = {}, {}, []
        return refused

    def _log(self, client: Client, run_id: str, entries: list[_Entry]) -> None:
        """Log some entries in one request.

        Raises:
            Unreachable: The server did not answer, or accepts nothing at all.
            Refused: The server refuses a value in the request, or the run.
        """
        try:
            _send_entries(client, run_id, entries)
        except Unreachable as error:
            if http_status(error.__cause__) != _SERVER_ERROR or error.retry_after:
                raise
            # A server also answers with an internal error if its database rejects a value.
            client.log_batch(run_id, [], [], [self._probe])
            try:
                _send_entries(client, run_id, entries)
            except Unreachable as again:
                if str(again) != str(error):
                    raise
                raise Refused(str(error), of_value=True) from error

    def _halve(self, client: Client, run_id: str, entries: list[_Entry], error: Refused) -> dict[str, str]:
        """Log refused entries in halves, until each refused value is found; return those with the reasons."""
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


def _escape_nul(name: str, text: str) -> tuple[str, str]:
    """Escape NUL characters: PostgreSQL rejects them, and the server then answers with status 500."""
    return name, text.replace("\0", "\\x00")


def _send_entries(client: Client, run_id: str, entries: list[_Entry]) -> None:
    client.log_batch(
        run_id,
        params=[entry for kind, entry in entries if kind == "parameter"],  # type: ignore[misc] # the kind gives the type
        metrics=[entry for kind, entry in entries if kind == "metric"],  # type: ignore[misc]
        tags=[entry for kind, entry in entries if kind == "tag"],  # type: ignore[misc]
    )
