"""Deliver the runs that dead processes left in a spool."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from mlwrap._delivery.backlog import deliver_backlog
from mlwrap._journal.reader import header
from mlwrap._spool.run_folder import RunFolder
from mlwrap._spool.spool import remove_leftovers, run_folders
from mlwrap.errors import JournalError

_PERIOD_SECONDS = 60.0


class AbandonedRuns:
    """Delivers the runs of a spool that no process writes and no sender has, in a thread, now and then.

    Args:
        spool: The spool.
    """

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._thread: threading.Thread | None = None
        self._next = 0.0

    def look(self) -> None:
        """Look for such runs, unless that is being done or was done a moment ago; do not wait."""
        if time.monotonic() >= self._next and (self._thread is None or not self._thread.is_alive()):
            self._next = time.monotonic() + _PERIOD_SECONDS
            self._thread = threading.Thread(target=finish_abandoned, args=(self._spool,), daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for those that are being delivered; one that makes no progress is given up after a while."""
        if self._thread is not None:
            self._thread.join()


def finish_abandoned(spool: Path) -> None:
    """Deliver what dead processes left in the spool, except runs that wait for ``mlwrap sync``."""
    from mlwrap._delivery.deliver import deliver_once  # noqa: PLC0415 - loads MLflow

    remove_leftovers(spool)
    for _ in deliver_backlog(filter(_is_abandoned, run_folders(spool)), deliver_once):
        pass


def _is_abandoned(folder: RunFolder) -> bool:
    try:
        folder.check()
        return not header(folder.journal).offline
    except (JournalError, OSError):
        return False
