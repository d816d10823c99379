"""Work that is done while the training goes on: by one thread, which is there while there is any."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundSaver:
    """Does one piece of work at a time, in the order in which they came.

    Of each name one piece waits at most: a newer one takes its place. The thread is no daemon, for one that
    is stopped in the middle of foreign code may take the process with it: the interpreter waits
    for what is under way, and for what waits.
    """

    def __init__(self) -> None:
        # Its lock can be taken again: by the handler of a signal that came while this thread had it.
        self._changed = threading.Condition()
        self._waiting: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether there is anything that :meth:`wait` would wait for."""
        return self._thread is not None

    def do(self, name: str, work: Callable[[], None], replaced: Callable[[], None]) -> None:
        """Have ``work`` done, which must not raise; ``replaced`` is called if newer work takes its place.

        Raises:
            RuntimeError: No thread can be started; nothing will be done.
        """
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mlwrap-saves")
                try:
                    self._thread.start()
                except BaseException:
                    self._thread = None
                    raise
            before = self._waiting.get(name)
            self._waiting[name] = work, replaced
        if before is not None:
            before[1]()

    def wait(self) -> None:
        """Wait until all is done."""
        with self._changed:
            while self._thread is not None:
                self._changed.wait()

    def clear(self) -> None:
        """Do nothing of what waits."""
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
            del work, _  # and what they hold
