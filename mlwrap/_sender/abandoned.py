"""Deliver the runs that dead processes left in a spool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from mlwrap._delivery.backlog import deliver_backlog, patience_for
from mlwrap._delivery.threads import on_change
from mlwrap._journal.progress import Progress
from mlwrap._journal.reader import header
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import remove_leftovers, run_folders
from mlwrap.errors import JournalError

_PERIOD_SECONDS = 60.0
_END_SECONDS = 60.0  # how long a sender stays for these runs at its end, while none makes progress
_LOOK_SECONDS = 1.0


class AbandonedRuns:
    """Delivers the runs of a spool that no process writes and no sender has, in a thread, now and then.

    Args:
        spool: The spool.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._thread: threading.Thread | None = None
        self._next = 0.0
        self._moved = 0.0  # when the last delivery began, made progress or ended
        self._patience: dict[Path, float] = {}  # of the runs that are being delivered, in seconds

    def look(self) -> None:
        """Look for such runs, unless that is being done or was done a moment ago; do not wait."""
        if time.monotonic() >= self._next and (self._thread is None or not self._thread.is_alive()):
            self._next = time.monotonic() + _PERIOD_SECONDS
            self._thread = threading.Thread(target=self._finish, daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for those that are being delivered, as long as one of them makes progress."""
        began = time.monotonic()
        while self._thread is not None and self._thread.is_alive():
            patience = max([_END_SECONDS, *list(self._patience.values())])
            if time.monotonic() > max(began, self._moved) + patience:
                return
            self._thread.join(_LOOK_SECONDS)

    def _finish(self) -> None:
        """Deliver what dead processes left in the spool, except runs that wait for ``mlwrap sync``."""
        remove_leftovers(self._spool)
        for _ in deliver_backlog(filter(_is_abandoned, run_folders(self._spool)), self._deliver):
            pass

    def _deliver(self, folder: RunFolder, on_progress: Callable[[Progress], None]) -> Progress:
        from mlwrap._delivery.deliver import deliver_once  # noqa: PLC0415 - loads MLflow

        note = on_change(self._note_moved)

        def both(progress: Progress) -> None:
            note(progress)
            on_progress(progress)

        self._patience[folder.path] = patience_for(folder)
        self._note_moved()
        try:
            return deliver_once(folder, both)
        finally:
            self._patience.pop(folder.path, None)
            self._note_moved()

    def _note_moved(self) -> None:
        self._moved = time.monotonic()


def _is_abandoned(folder: RunFolder) -> bool:
    try:
        folder.check()
        return not header(folder.journal).offline
    except (JournalError, OSError):
        return False
