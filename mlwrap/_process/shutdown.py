"""Notify open runs of signals and of the interpreter's exit.

Signals that by default end the process without running Python code (SIGTERM, SIGHUP) first close the open
runs; then the signal acts as it would without mlwrap. A preemption signal (Slurm's ``--signal=USR1@60``) ends
nothing: the open runs are only notified. The module knows its listeners only, not what a run is.
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
    """An object, such as an open run, that is notified when the process is about to end."""

    def on_signal(self, signal_name: str) -> None:
        """React to a signal that the user's own handler treats: the training may or may not continue."""

    def on_preemption(self, signal_name: str) -> None:
        """React to a signal that announces the end of the process."""

    def on_exit(self, signal_name: str | None) -> None:
        """React to the end of the process, which follows as soon as this returns."""


_ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
Handler = Callable[[int, FrameType | None], object] | int | None

_listeners: list[ShutdownListener] = []
_previous: dict[int, Handler] = {}
_exit_work: list[Callable[[], None]] = []


def signal_number(name: str) -> int:
    """Return the number of the signal called ``name``, such as ``"SIGUSR1"``.

    Raises:
        OptionError: No such signal exists, or it can't be used as a preemption signal.
    """
    value = getattr(signal, name, None)
    if not isinstance(value, signal.Signals) or value in {*_ENDING_SIGNALS, signal.SIGKILL, signal.SIGSTOP}:
        raise OptionError(
            f"preemption_signal={name!r} can't be used: expected a signal that may come before the end, "
            "as 'SIGUSR1' or 'SIGUSR2'."
        )
    return value


def listen(item: ShutdownListener, warning: int | None = None) -> None:
    """Notify ``item`` until :func:`unlisten`.

    Args:
        item: The listener.
        warning: Number of the preemption signal, which announces the end and ends nothing itself.
    """
    _listeners.append(item)
    # Python allows only the main thread to set handlers. A run of another thread is notified too while the
    # main thread has a run open.
    if threading.current_thread() is threading.main_thread():
        handlers = dict.fromkeys(_ENDING_SIGNALS, _on_end)
        if warning is not None:
            handlers[signal.Signals(warning)] = _on_warning
        for number, handler in handlers.items():
            if number not in _previous:
                current = signal.getsignal(number)
                # None: set by code outside Python; SIG_IGN: as under nohup. Neither is replaced.
                if current is not None and current is not signal.SIG_IGN:
                    _previous[number] = current
                    signal.signal(number, handler)


def unlisten(item: ShutdownListener) -> None:
    """Stop notifying ``item``; after the last one restore the signal handlers."""
    if item in _listeners:
        _listeners.remove(item)
    if not _listeners and threading.current_thread() is threading.main_thread():
        for number, handler in list(_previous.items()):
            if signal.getsignal(number) in _HANDLERS:  # a handler that was set later stays
                signal.signal(number, handler)
            del _previous[number]


def at_exit(work: Callable[[], None]) -> Callable[[], None]:
    """Register ``work`` to run when the interpreter ends, after all open runs are closed."""
    _exit_work.append(work)
    return work


@atexit.register
def _at_exit() -> None:
    """Close the runs that are still open when the interpreter ends, then run the registered work."""
    for item in reversed(_listeners.copy()):
        item.on_exit(None)
    for work in _exit_work:
        work()


def _forget_in_child() -> None:
    """Remove listeners and handlers in a child made by ``fork``: the parent process ends the open runs."""
    for number, handler in _previous.items():
        if signal.getsignal(number) in _HANDLERS:
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
    finally:  # even if closing the runs fails, the signal ends the process
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


_HANDLERS = (_on_end, _on_warning)
