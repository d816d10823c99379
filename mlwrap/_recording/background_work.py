"""Run saves in a background thread, which exists only while there is work, while the training continues."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundWork:
    """Runs one job at a time, in the order in which they were submitted.

    At most one job of each name waits: a newer one replaces it. The thread is not a daemon, because stopping
    a daemon inside foreign code may crash the process; so the interpreter waits for the running job and for
    the waiting ones.
    """

    def __init__(self) -> None:
        # Its lock is reentrant, because a signal handler may need it while this thread holds it.
        self._changed = threading.Condition()
        self._waiting: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is running or waiting."""
        return self._thread is not None

    def do(self, name: str, work: Callable[[], None], replaced: Callable[[], None]) -> None:
        """Run ``work`` in the background; call ``replaced`` instead if a newer job of that name replaces it.

        Args:
            name: The name of the job.
            work: The job; must not raise.
            replaced: Called in the thread that submits the newer job.

        Raises:
            RuntimeError: No thread can be started; the job is not run.
        """
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mlwrap-saves")
                try:
                    self._thread.start()
                except BaseException:
                    self._thread = None
                    raise
            previous = self._waiting.get(name)
            self._waiting[name] = work, replaced
        if previous is not None:
            previous[1]()

    def wait(self) -> None:
        """Wait until no job is running or waiting."""
        with self._changed:
            while self._thread is not None:
                self._changed.wait()

    def clear(self) -> None:
        """Drop the waiting jobs."""
        with self._changed:
            self._waiting.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                work, _ = self._waiting.pop(next(iter(self._waiting)))
            work()
            del work, _  # frees the model that they refer to
