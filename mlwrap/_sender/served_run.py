"""One run in the sender: what its messages and its connection's end cause, and when it is delivered."""

from __future__ import annotations

import contextlib
import functools
import math
import socket
import threading
import time
from collections.abc import Callable

import msgspec

from mlwrap._delivery.backoff import Backoff
from mlwrap._delivery.dead_runs import mark_dead_run_killed
from mlwrap._delivery.threads import on_change, ticking
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import header
from mlwrap._journal.sender_protocol import ASK, SenderStatus
from mlwrap._mlflow.connection import check_listening
from mlwrap._sender.system_monitor import SystemMonitor
from mlwrap._spool.delivered_runs import find_delivered
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import JournalError, Unreachable, describe_error

_LOOK_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 5.0
_FULL_BYTES = 100_000  # of journal: about a thousand data points, as many as one request takes
_OPENING_SECONDS = 60  # time that MLflow may take to create the tables of a new sqlite store
_CLOSING_SECONDS = 5.0  # from the end of a dead writer's connection to the release of its lease


class _OutageTracker:
    """Since when each MLflow server has not answered; all runs share this circuit breaker."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def failed(self, uri: str) -> float:
        """Note that a server did not answer, and return for how many seconds it has not."""
        return time.monotonic() - self._since.setdefault(uri, time.monotonic())

    def answered(self, uri: str) -> None:
        """Note that a server answered."""
        self._since.pop(uri, None)


_outages = _OutageTracker()
_opened: set[str] = set()  # URIs of the sqlite stores whose tables exist
ready = threading.Event()
"""Set once MLflow is imported."""


def warm_up() -> None:
    """Import MLflow, which takes seconds, and tune HTTP; no run can be delivered before."""
    import mlwrap._delivery.deliver  # noqa: F401, PLC0415 - loads MLflow
    from mlwrap._mlflow.tune_http import tune_http  # noqa: PLC0415 - urllib3, which MLflow imports

    tune_http()
    ready.set()


def next_delivery_time(woken: float, last: float, joined: float, waiting: int) -> float:
    """Return when to deliver a run without a waiter; all times are seconds of one clock.

    A young run is delivered often, because a user may watch it; later less often, to spare a busy server.

    Args:
        woken: When the last message came.
        last: When the run was last delivered.
        joined: When the run connected.
        waiting: Undelivered bytes of its journal; those of a whole request gain nothing by waiting.
    """
    if waiting >= _FULL_BYTES:
        return max(woken, last + _LOOK_SECONDS)
    return max(woken + _LOOK_SECONDS, last + min(2 * (last - joined), _MAX_PAUSE_SECONDS))


class ServedRun:
    """A run that is delivered when its writer says so, or when it is due.

    One thread reads all connections and calls every method but :meth:`work`, which runs in another thread.

    Args:
        folder: The run's folder.
        store: The URI of the store that it is delivered to.

    Attributes:
        folder, store: The arguments.
        due: When to deliver it (monotonic seconds); infinite if not scheduled.
    """

    def __init__(self, folder: RunFolder, store: str = "") -> None:
        self.folder = folder
        self.store = store
        self.due = math.inf
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()  # keeps the connection open while a message is sent on it
        self._has_waiter = False
        self._dead = False
        self._refused = False
        self._has_news = False
        self._connected_at = self._last_message = self._last_delivery = 0.0
        self._delivered_bytes = 0  # of the journal
        self._backoff = Backoff()
        self._pause_ends = 0.0  # until then new records do not cause a delivery
        self._retry_after = 0.0  # until then nothing does, as MLflow asked
        self._next_due: float | None = math.inf  # ``None`` if nothing is left to do
        self._monitor: SystemMonitor | None = None  # used in :meth:`work` only

    @property
    def connection(self) -> socket.socket | None:
        """The connection to the run's writer; ``None`` once it is closed."""
        return self._connection

    @property
    def has_waiter(self) -> bool:
        """Whether the writer waits for the delivery."""
        return self._has_waiter

    def on_connect(self, connection: socket.socket) -> None:
        """Use a connection to the writer; it may replace an earlier one."""
        connection.settimeout(1.0)  # for sending; received data is already here
        with self._lock:
            self._connection = connection
        self._has_waiter = self._dead = False
        self._connected_at = time.monotonic()
        self._schedule(self._connected_at)  # MLflow's run is created while the training begins

    def on_message(self, data: bytes) -> None:
        """Handle a message of the writer."""
        self._last_message = time.monotonic()
        if ASK in data:
            self._has_waiter = True
            self.tell_ready()
        self._schedule(self._wanted_time())

    def tell_ready(self) -> None:
        """Send a waiter the first status once MLflow is imported: its timeout counts from then."""
        if self._has_waiter and ready.is_set():
            self._send(SenderStatus(progress=_progress(self.folder)))

    def on_disconnect(self, connection: socket.socket) -> None:
        """Handle a connection's end: the run ended or its writer died, unless another one replaced it."""
        with self._lock:
            connection.close()
            if self._connection is not connection:
                return
            self._connection = None
        self._dead, self._has_waiter = True, False
        self._schedule(self._wanted_time())

    def final_attempt(self) -> None:
        """Schedule a last delivery: no process is left that could wait for the run."""
        self._schedule(max(time.monotonic(), self._retry_after))

    def _schedule(self, when: float) -> None:
        self._has_news = True
        self.due = min(self.due, when)

    def reschedule(self) -> bool:
        """Compute when the run is due again after :meth:`work`; return ``False`` if nothing is left."""
        if self._next_due is None:
            if not self._has_news or self._connection is None:
                return False
            self._next_due = math.inf  # a new connection asks for it again
        self.due = min(self._next_due, self._wanted_time()) if self._has_news else self._next_due
        return True

    def _wanted_time(self) -> float:
        """Return when to deliver the newest message."""
        now = time.monotonic()
        if self._has_waiter or self._dead:
            return max(now, self._retry_after)
        return math.inf if self._refused else max(self._time_for_news(now), self._pause_ends)

    def _time_for_news(self, woken: float) -> float:
        """Return when to deliver the records that came since ``woken``."""
        try:
            undelivered_bytes = self.folder.journal.stat().st_size - self._delivered_bytes
        except OSError:  # delivered and removed
            undelivered_bytes = 0
        return next_delivery_time(woken, self._last_delivery, self._connected_at, undelivered_bytes)

    def begin(self) -> None:
        """Prepare for :meth:`work`; messages from now on are news."""
        self.due, self._next_due, self._has_news = math.inf, None, False

    def work(self, moved: Callable[[ServedRun], None] = lambda _: None) -> None:
        """Deliver all records so far; report any error, which does not affect other runs.

        Args:
            moved: Called whenever MLflow has received more of the run.
        """
        dead = self._dead  # a writer that dies from now on causes another delivery
        try:
            self._next_due = self._work(dead, moved)
        except Exception as error:  # noqa: BLE001 - refused, damaged, or a bug in mlwrap: left for the user
            self._refused = True  # send nothing more until the run's end, which has one more try
            is_final = self._has_waiter or dead
            self._send_to_waiter(
                SenderStatus(progress=_progress(self.folder), done=True, error=describe_error(error))
            )
            self._next_due = None if is_final else math.inf
        if self._monitor is not None and self._next_due is None:
            self._monitor.close()

    def _work(self, dead: bool, moved: Callable[[ServedRun], None]) -> float | None:
        if not ready.is_set():
            self._probe_server()
            warm_up()
        is_final = dead or self._has_waiter
        if self._monitor is None and not is_final:
            self._monitor = SystemMonitor(self.folder)
        elif self._monitor is not None and is_final:
            self._monitor.close()
        if not self.folder.exists() and (progress := find_delivered(self.folder)) is not None:
            self._send_to_waiter(SenderStatus(progress=progress, done=True))
            return None
        if dead and not mark_dead_run_killed(self.folder, _CLOSING_SECONDS):
            return None
        return self._deliver(dead, moved)

    def _probe_server(self) -> None:
        """Report at once if nothing listens, so that a waiter does not wait for MLflow's import too."""
        with contextlib.suppress(JournalError, OSError):
            uri = header(self.folder.journal).tracking_uri
            try:
                check_listening(uri)
            except Unreachable as error:
                self._send(self._failed(uri, error))

    def _deliver(self, dead: bool, moved: Callable[[ServedRun], None]) -> float | None:
        """Deliver all records so far, of a dead run all; return when to deliver next, ``None`` for never."""
        from mlwrap._delivery.deliver import deliver_once  # noqa: PLC0415 - loads MLflow

        folder = self.folder
        self._last_delivery = time.monotonic()
        uri = header(folder.journal).tracking_uri
        notify = on_change(functools.partial(moved, self))

        def on_progress(progress: Progress) -> None:
            notify(progress)
            self._send_to_waiter(SenderStatus(progress=progress))

        try:
            self._open_store(uri)
            progress = deliver_once(folder, on_progress)
        except (Unreachable, OSError) as error:
            self._send_to_waiter(self._failed(uri, error))
            now = time.monotonic()
            self._pause_ends = now + self._backoff.after(error)
            self._retry_after = now + (getattr(error, "retry_after", None) or 0.0)
            return self._pause_ends
        _outages.answered(uri)
        self._backoff.over()
        self._delivered_bytes = progress.offset
        self._send_to_waiter(SenderStatus(progress=progress, done=progress.ended))
        if progress.ended or dead:
            return None
        # A record that came within a second of the last message sent no message of its own: look once more.
        if self._last_message + _LOOK_SECONDS > self._last_delivery:
            return self._time_for_news(self._last_message)
        period = self._monitor.period if self._monitor is not None else math.inf
        return time.monotonic() + max(period, _LOOK_SECONDS)

    def _open_store(self, uri: str) -> None:
        """Make MLflow create the tables of an sqlite store, and report progress for up to a minute."""
        if not uri.startswith("sqlite:") or uri in _opened:
            return
        from mlwrap._delivery.create_run import open_client  # noqa: PLC0415 - loads MLflow

        def report_seconds(seconds: int) -> None:
            self._send_to_waiter(
                SenderStatus(progress=msgspec.structs.replace(_progress(self.folder), seconds=seconds))
            )

        with ticking(_OPENING_SECONDS, report_seconds):
            open_client(header(self.folder.journal))
        _opened.add(uri)

    def _failed(self, uri: str, error: Exception) -> SenderStatus:
        return SenderStatus(progress=_progress(self.folder), error=str(error), away=_outages.failed(uri))

    def _send_to_waiter(self, status: SenderStatus) -> None:
        """Send a status if the writer waits for it, or if the run is delivered."""
        if self._has_waiter or (status.done and status.error is None):
            self._send(status)

    def _send(self, status: SenderStatus) -> None:
        with self._lock, contextlib.suppress(OSError):  # the peer is gone; the read end will report it
            if self._connection is not None:
                self._connection.sendall(msgspec.json.encode(status) + b"\n")


def _progress(folder: RunFolder) -> Progress:
    with contextlib.suppress(JournalError, OSError):
        return folder.progress()
    return Progress()
