"""How does this process end while runs are open?

Signals whose default is to end the process without a word to Python (SIGTERM, SIGHUP) first close the
open runs; then the signal does what it would have done without mlwrap. A signal that
is to be a warning (Slurm's ``--signal=USR1@60``) ends nothing: the open runs learn of it. Knows nothing of
what a run is.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from mlwrap.errors import OptionError


class ShutdownListener(Protocol):
    """Something open that wants to be told when the process is about to end."""

    def on_signal(self, signal_name: str) -> None:
        """A signal came, and a handler of the user's deals with it: the body may or may not go on."""

    def on_preemption(self, signal_name: str) -> None:
        """A signal came that says that the process will be ended soon."""

    def on_exit(self, signal_name: str | None) -> None:
        """The process ends as soon as this returns."""


_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
Handler = Callable[[int, FrameType | None], object] | int | None

_listeners: list[ShutdownListener] = []
_previous: dict[int, Handler] = {}
_exit_work: list[Callable[[], None]] = []


def signal_number(name: str) -> int:
    """The number of the signal called ``name``, as ``"SIGUSR1"``.

    Raises:
        OptionError: There is none that a process could be warned with.
    """
    found = getattr(signal, name, None)
    if not isinstance(found, signal.Signals) or found in {*_ENDING, signal.SIGKILL, signal.SIGSTOP}:
        raise OptionError(
            f"preemption_signal={name!r} can't be used: expected a signal that may come before the end, "
            "as 'SIGUSR1' or 'SIGUSR2'."
        )
    return found


def listen(item: ShutdownListener, warning: int | None = None) -> None:
    """Watch over ``item`` until :func:`unlisten`.

    Args:
        item: What is open.
        warning: A signal that is to end nothing, for it says that the process will be ended soon.
    """
    _listeners.append(item)
    # Python lets only the main thread set handlers; a run of another thread is watched over too, as long
    # as the main thread has one open.
    if threading.current_thread() is threading.main_thread():
        handlers = dict.fromkeys(_ENDING, _on_end)
        if warning is not None:
            handlers[signal.Signals(warning)] = _on_warning
        for number, handler in handlers.items():
            if number not in _previous:
                current = signal.getsignal(number)
                # None: set by something that is not Python; SIG_IGN: as under nohup. Both stay as they are.
                if current is not None and current is not signal.SIG_IGN:
                    _previous[number] = current
                    signal.signal(number, handler)


def unlisten(item: ShutdownListener) -> None:
    """Stop watching over ``item``; after the last one the signal handlers are as they were."""
    if item in _listeners:
        _listeners.remove(item)
    if not _listeners and threading.current_thread() is threading.main_thread():
        for number, handler in list(_previous.items()):
            if signal.getsignal(number) in _OURS:  # else somebody has set theirs since: it stays
                signal.signal(number, handler)
            del _previous[number]


def at_exit(work: Callable[[], None]) -> Callable[[], None]:
    """Have something done when the interpreter ends, after what is open then has been closed."""
    _exit_work.append(work)
    return work


@atexit.register
def _at_exit() -> None:
    """The interpreter ends, and there may be runs that nobody has closed."""
    for item in reversed(_listeners.copy()):
        item.on_exit(None)
    for work in _exit_work:
        work()


def _forget_in_child() -> None:
    """In a child made by ``fork``: the open runs are the parent's to end."""
    for number, handler in _previous.items():
        if signal.getsignal(number) in _OURS:
            signal.signal(number, handler)
    _previous.clear()
    _listeners.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def _on_warning(number: int, frame: FrameType | None) -> None:
    for item in _listeners:
        item.on_preemption(signal.Signals(number).name)
    previous = _previous.get(number)
    if callable(previous):
        previous(number, frame)


def _on_end(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    previous = _previous.get(number, signal.SIG_DFL)
    if callable(previous):
        for item in _listeners:
            item.on_signal(name)
        previous(number, frame)
        return
    try:
        for item in reversed(_listeners.copy()):
            item.on_exit(name)
    finally:  # whatever becomes of that, the signal is to do what it was sent for
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


_OURS = (_on_end, _on_warning)
