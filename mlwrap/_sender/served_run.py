"""One run, as the sender serves it: what it hears on the run's line, and what it does then."""

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
from mlwrap.errors import JournalError, Unreachable
from mlwrap.errors import describe_error as description

_LOOK_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 5.0
_FULL_BYTES = 100_000  # in the journal; about a thousand points, which is what one request takes
_OPENING_SECONDS = 60  # that MLflow may take to make the tables of a new sqlite store
_CLOSING_SECONDS = 5.0  # between the end of a dead writer's line and that of its lease


class _OutageTracker:
    """Since when each MLflow has not answered anybody: the breaker that all runs share."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def failed(self, uri: str) -> float:
        """Note that it did not answer; for how long it has not, in seconds."""
        return time.monotonic() - self._since.setdefault(uri, time.monotonic())

    def answered(self, uri: str) -> None:
        """Note that it did."""
        self._since.pop(uri, None)


_outages = _OutageTracker()
_opened: set[str] = set()  # URIs of the sqlite stores that have their tables
_ready = threading.Event()  # MLflow is imported


def warm_up() -> None:
    """Import MLflow, which takes seconds, and be prompt; no run can be delivered before."""
    from mlwrap._mlflow.tune_http import tune_http  # noqa: PLC0415 - urllib3, which MLflow imports

    tune_http()
    _ready.set()


def next_delivery_time(woken: float, last: float, joined: float, waiting: int) -> float:
    """When a run is to be delivered that nobody waits for; all times in seconds, of one clock.

    One that has just begun is watched, perhaps; later the server is spared, which may have many.

    Args:
        woken: When something came.
        last: When it was delivered last.
        joined: When it began.
        waiting: How many bytes of its journal wait; those of a whole request gain nothing by waiting.
    """
    if waiting >= _FULL_BYTES:
        return max(woken, last + _LOOK_SECONDS)
    return max(woken + _LOOK_SECONDS, last + min(2 * (last - joined), _MAX_PAUSE_SECONDS))


class ServedRun:
    """A run that is delivered when its line says so, or when it is time.

    One thread listens to all lines and calls everything here but :meth:`work`, which another thread is in.

    Args:
        folder: The run's folder.
        store: Where it is to be delivered.

    Attributes:
        folder: The run's folder.
        store: Where it is to be delivered.
        due: When it is to be delivered (monotonic seconds); infinite for not yet.
    """

    def __init__(self, folder: RunFolder, store: str = "") -> None:
        self.folder = folder
        self.store = store
        self.due = math.inf
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()  # so that no line is closed while something is said on it
        self._asked = False
        self._dead = False
        self._refused = False
        self._news = False
        self._joined = self._woken = self._began = 0.0
        self._taken = 0  # bytes of the journal that are delivered
        self._pauses = Backoff()
        self._pause_ends = 0.0  # until then records that come wake nobody
        self._retry_after = 0.0  # until then nothing does: MLflow asked for it
        self._next: float | None = math.inf
        self._watch: SystemMonitor | None = None  # touched in :meth:`work` alone

    @property
    def line(self) -> socket.socket | None:
        """The line to it, until that is closed."""
        return self._connection

    @property
    def has_waiter(self) -> bool:
        """Whether somebody waits for it."""
        return self._asked

    def on_connect(self, connection: socket.socket) -> None:
        """Take a line to it, be it another one than before."""
        connection.settimeout(1.0)  # of what is said; what is heard is there already
        with self._lock:
            self._connection = connection
        self._asked = self._dead = False
        self._joined = time.monotonic()
        self._schedule(self._joined)  # the run is made in MLflow while the training begins

    def on_message(self, data: bytes) -> None:
        """Something came on the line."""
        self._woken = time.monotonic()
        if ASK in data:
            self._asked = True
            self.tell_ready()
        self._schedule(self._wanted())

    def tell_ready(self) -> None:
        """Give whoever waits the first word, once MLflow is imported: from then on the deadline counts."""
        if self._asked and _ready.is_set():
            self._tell(SenderStatus(progress=_progress(self.folder)))

    def on_disconnect(self, connection: socket.socket) -> None:
        """A line has ended: the run has, or its writer is dead; or there has long been another line."""
        with self._lock:
            connection.close()
            if self._connection is not connection:
                return
            self._connection = None
        self._dead, self._asked = True, False
        self._schedule(self._wanted())

    def final_attempt(self) -> None:
        """Nobody is left who could wait for it."""
        self._schedule(max(time.monotonic(), self._retry_after))

    def _schedule(self, wanted: float) -> None:
        self._news = True
        self.due = min(self.due, wanted)

    def reschedule(self) -> bool:
        """Its work is done: find out when it is due again; ``False`` if nothing is left to do."""
        if self._next is None:
            if not self._news or self._connection is None:
                return False
            self._next = math.inf  # there is a new line to it, on which it is asked for
        self.due = min(self._next, self._wanted()) if self._news else self._next
        return True

    def _wanted(self) -> float:
        """When to deliver what came."""
        now = time.monotonic()
        if self._asked or self._dead:
            return max(now, self._retry_after)
        return math.inf if self._refused else max(self._look(now), self._pause_ends)

    def _look(self, woken: float) -> float:
        """When to deliver what came since."""
        try:
            waiting = self.folder.journal.stat().st_size - self._taken
        except OSError:  # delivered and gone
            waiting = 0
        return next_delivery_time(woken, self._began, self._joined, waiting)

    def begin(self) -> None:
        """Get ready for :meth:`work`; what comes from now on is news."""
        self.due, self._next, self._news = math.inf, None, False

    def work(self, moved: Callable[[ServedRun], None] = lambda _: None) -> None:
        """Deliver what there is; whatever goes wrong with it is said, and is no other run's matter.

        Args:
            moved: Called whenever MLflow has got more of it.
        """
        dead = self._dead  # one that dies from now on is delivered once more
        try:
            self._next = self._work(dead, moved)
        except Exception as error:  # noqa: BLE001 - refused, damaged, or a bug of ours: left for the user
            self._refused = True  # so nothing more is sent until the end, which has one more try
            last = self._asked or dead
            self._say(SenderStatus(progress=_progress(self.folder), done=True, error=description(error)))
            self._next = None if last else math.inf
        if self._watch is not None and self._next is None:
            self._watch.close()

    def _work(self, dead: bool, moved: Callable[[ServedRun], None]) -> float | None:
        if not _ready.is_set():
            self._probe_server()
            warm_up()
        over = dead or self._asked
        if self._watch is None and not over:
            self._watch = SystemMonitor(self.folder)
        elif self._watch is not None and over:
            self._watch.close()
        if not self.folder.exists() and (known := find_delivered(self.folder)) is not None:
            self._say(SenderStatus(progress=known, done=True))
            return None
        if dead and not mark_dead_run_killed(self.folder, _CLOSING_SECONDS):
            return None
        return self._deliver(dead, moved)

    def _probe_server(self) -> None:
        """Tell at once if nobody listens: who waits for us need not wait until MLflow is imported, too."""
        with contextlib.suppress(JournalError, OSError):
            uri = header(self.folder.journal).tracking_uri
            try:
                check_listening(uri)
            except Unreachable as error:
                told = SenderStatus(
                    progress=_progress(self.folder), error=str(error), away=_outages.failed(uri)
                )
                self._tell(told)

    def _deliver(self, dead: bool, moved: Callable[[ServedRun], None]) -> float | None:
        """Deliver what there is, all of it of a dead one; when to do so again, ``None`` for never."""
        from mlwrap._delivery.deliver import deliver_once  # noqa: PLC0415 - loads MLflow

        folder = self.folder
        self._began = time.monotonic()
        uri = header(folder.journal).tracking_uri
        note = on_change(functools.partial(moved, self))

        def told(progress: Progress) -> None:
            note(progress)
            self._say(SenderStatus(progress=progress))

        try:
            self._open_store(uri)
            progress = deliver_once(folder, told)
        except (Unreachable, OSError) as error:
            self._say(SenderStatus(progress=_progress(folder), error=str(error), away=_outages.failed(uri)))
            now = time.monotonic()
            self._pause_ends = now + self._pauses.after(error)
            self._retry_after = now + (getattr(error, "retry_after", None) or 0.0)
            return self._pause_ends
        _outages.answered(uri)
        self._pauses.over()
        self._taken = progress.offset
        self._say(SenderStatus(progress=progress, done=progress.ended))
        if progress.ended or dead:
            return None
        # A record that came within the second after a wake has sent none of its own: look once more.
        if self._woken + _LOOK_SECONDS > self._began:
            return self._look(self._woken)
        period = self._watch.period if self._watch is not None else math.inf
        return time.monotonic() + max(period, _LOOK_SECONDS)

    def _open_store(self, uri: str) -> None:
        """Have MLflow make the tables of an sqlite store, and say for a minute that it goes on."""
        if not uri.startswith("sqlite:") or uri in _opened:
            return
        from mlwrap._delivery.deliver import open_client  # noqa: PLC0415 - loads MLflow

        def say(seconds: int) -> None:
            self._say(SenderStatus(progress=msgspec.structs.replace(_progress(self.folder), seconds=seconds)))

        with ticking(_OPENING_SECONDS, say):
            open_client(header(self.folder.journal))
        _opened.add(uri)

    def _say(self, told: SenderStatus) -> None:
        """Tell how it goes, if somebody waits for that."""
        if self._asked or (told.done and told.error is None):
            self._tell(told)

    def _tell(self, told: SenderStatus) -> None:
        with self._lock, contextlib.suppress(OSError):  # it is gone; the line will say so
            if self._connection is not None:
                self._connection.sendall(msgspec.json.encode(told) + b"\n")


def _progress(folder: RunFolder) -> Progress:
    try:
        return folder.progress()
    except (JournalError, OSError):
        return Progress()
