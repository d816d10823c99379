"""The sender: a process that delivers while training goes on, and after it has died.

A thread for each run waits on the run's line: a byte on it wakes it, its end means that the writer is gone.
It delivers what there is, looks once more a second later, and sleeps until it is woken again. It ends
when the one that started it is gone and no run is left.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from pathlib import Path

import filelock
import msgspec

from mlwrap._delivery.line import ASK, Hello, Told, connected, short
from mlwrap._delivery.pauses import Pauses
from mlwrap._delivery.reach import check_listening
from mlwrap._journal import Progress, RunEnded, RunFolder, Tags, Writer, header, now, read, run_folders, sweep
from mlwrap._passwords import without_password
from mlwrap.errors import DeliveryError, JournalError, Unreachable

_LOOK_SECONDS = 1.0
_LINGER_SECONDS = (
    10.0  # after the writer's death, for an MLflow that does not answer; then `mlwrap sync` is needed
)
_ABANDONED_SECONDS = 60.0  # that a sender stays for what others have left
_CLOSING_SECONDS = 5.0  # between the end of a dead writer's line and that of its lease


def main(listener: int, address: str) -> None:
    """Serve the lines that come in on a listening socket until nobody can bring another.

    Args:
        listener: Descriptor of the socket.
        address: Its path, removed at the end.
    """
    from mlwrap._delivery.prompt import take_answers_at_once  # noqa: PLC0415 - urllib3 loads late

    take_answers_at_once()
    server = socket.socket(fileno=listener)
    threading.Thread(target=_end_with_starter, args=(server,), daemon=True).start()
    abandoned = threading.Thread(target=finish_abandoned, args=(Path(address).parent,), daemon=True)
    abandoned.start()
    threads: list[threading.Thread] = []
    try:
        with contextlib.suppress(OSError):  # of accept(), once the starter is gone
            while True:
                connection, _ = server.accept()
                thread = threading.Thread(target=_Served(connection).serve)
                thread.start()
                threads = [*(t for t in threads if t.is_alive()), thread]
    finally:
        for thread in threads:
            thread.join()
        abandoned.join(_ABANDONED_SECONDS)
        with short(Path(address)) as path, contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - a path through a descriptor


def _end_with_starter(server: socket.socket) -> None:
    """Standard input ends when the process that started this one does."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    server.shutdown(socket.SHUT_RDWR)


class _Away:
    """Since when each MLflow has not answered anybody: the breaker that all runs share."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def failed(self, uri: str) -> float:
        """Note that it did not answer; for how long it has not, in seconds."""
        return time.monotonic() - self._since.setdefault(uri, time.monotonic())

    def answered(self, uri: str) -> None:
        """Note that it did."""
        self._since.pop(uri, None)


_away = _Away()


class _Served:
    """One run's line, from the sender's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._asked = False
        self._dead = False
        self._refused = False
        self._woken = 0.0
        self._pauses = Pauses()
        self._pause_ends = 0.0  # until then records that come wake nobody
        self._alone_until = 0.0  # until then nothing does: MLflow asked for it
        self._last: Told | None = None

    def serve(self) -> None:
        """Deliver the run until all is delivered, or nothing can be done any more."""
        with self._connection:
            folder = self._folder()
            if folder is not None:
                self._serve(folder)

    def _serve(self, folder: RunFolder) -> None:
        self._knock(folder)
        from mlwrap._delivery import runs  # noqa: F401, PLC0415 - imports MLflow, which takes its time

        self._tell(Told(progress=_progress(folder)))  # from now on the deadline of who waits for us counts
        due = time.monotonic()
        give_up = math.inf
        while True:
            if self._listen(due):
                due = min(due, self._wanted())
            if self._dead and give_up == math.inf:
                if not close_for_the_dead(folder, _CLOSING_SECONDS):
                    return
                give_up = time.monotonic() + _LINGER_SECONDS
            began = time.monotonic()
            if began < due:
                continue
            next_due = self._deliver(folder)
            if next_due is None or max(began, self._alone_until) > give_up:
                return
            due = next_due

    def _knock(self, folder: RunFolder) -> None:
        """Tell at once if nobody listens: who waits for us need not wait until MLflow is imported, too."""
        with contextlib.suppress(JournalError, OSError):
            uri = header(folder.journal).tracking_uri
            try:
                check_listening(uri)
            except Unreachable as error:
                self._tell(Told(progress=_progress(folder), error=str(error), away=_away.failed(uri)))

    def _wanted(self) -> float:
        """When to deliver what came."""
        now = time.monotonic()
        if self._dead:
            return max(now, self._alone_until)
        if not self._asked:
            return math.inf if self._refused else max(now + _LOOK_SECONDS, self._pause_ends)
        if self._last is not None and now < self._alone_until:
            self._tell(self._last)
        return max(now, self._alone_until)

    def _folder(self) -> RunFolder | None:
        """The run's folder, which is the first line that is sent."""
        data = b""
        while not data.endswith(b"\n"):
            byte = self._connection.recv(1)
            if not byte:
                return None
            data += byte
        hello = msgspec.json.decode(data, type=Hello)
        without_password(hello.tracking_uri)  # from now on it is known here
        return RunFolder(Path(hello.folder))

    def _listen(self, due: float) -> bool:
        """Wait until something comes or it is time; whether something came."""
        seconds = max(0.001, due - time.monotonic())
        if self._dead:
            time.sleep(seconds)
            return False
        self._connection.settimeout(None if seconds == math.inf else seconds)
        try:
            data = self._connection.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        self._dead = not data
        self._woken = time.monotonic()
        self._asked = self._asked or ASK in data
        return True

    def _deliver(self, folder: RunFolder) -> float | None:
        """Deliver what there is; when to do so again, ``None`` for never."""
        from mlwrap._delivery import runs  # noqa: PLC0415 - imports MLflow

        uri = ""
        began = time.monotonic()
        try:
            uri = header(folder.journal).tracking_uri
            progress = runs.deliver(folder, told=lambda progress: self._say(Told(progress=progress)))
        except (Unreachable, OSError) as error:
            self._say(Told(progress=_progress(folder), error=str(error), away=_away.failed(uri)))
            now = time.monotonic()
            self._pause_ends = now + self._pauses.after(error)
            self._alone_until = now + (getattr(error, "retry_after", None) or 0.0)
            return self._pause_ends
        except Exception as error:  # noqa: BLE001 - refused, damaged, or a bug of ours: said, and left for the user
            self._refused = True  # so nothing more is sent until the end, which has one more try
            self._say(Told(progress=_progress(folder), done=True, error=str(error) or repr(error)))
            return None if self._asked or self._dead else math.inf
        _away.answered(uri)
        self._pauses.over()
        self._say(Told(progress=progress, done=progress.ended))
        if progress.ended or self._dead:
            return None
        # A record that came within the second after a wake has sent none of its own: look once more.
        look = self._woken + _LOOK_SECONDS
        return look if look > began else math.inf

    def _say(self, told: Told) -> None:
        """Tell how it goes, if somebody waits for that."""
        self._last = told
        if self._asked or (told.done and told.error is None):
            self._tell(told)

    def _tell(self, told: Told) -> None:
        if not self._dead:
            with contextlib.suppress(OSError):  # it is gone; the next look at the line will tell
                self._connection.settimeout(1.0)
                self._connection.sendall(msgspec.json.encode(told) + b"\n")


def _progress(folder: RunFolder) -> Progress:
    try:
        return folder.progress()
    except (JournalError, OSError):
        return Progress()


def close_for_the_dead(folder: RunFolder, patience: float) -> bool:
    """Write the end of a run whose writer died without a word; ``False`` if it lives after all."""
    lease = folder.writer_lease()
    try:
        lease.acquire(timeout=patience)
    except (filelock.Timeout, OSError):  # it has a line to another sender, or the folder is gone
        return False
    try:
        if folder.gone():
            return False
        if not any(isinstance(entry.record, RunEnded) for entry in read(folder.journal)):
            why = "the training process died without a word (kill -9, out of memory, or a crash)"
            folder.free_reserve()  # it may be that the disk is full
            writer = Writer(folder.journal)
            writer.append(Tags(values={"mlwrap.error.message": why}))
            writer.append(RunEnded(status="KILLED", time=now(), error=why))
            writer.close()
    except (JournalError, OSError):
        return False
    finally:
        lease.release()
    return True


def finish_abandoned(spool: Path) -> None:
    """Deliver what dead processes left in the spool; what waits for ``mlwrap sync`` goes on waiting."""
    from mlwrap._delivery import runs  # noqa: PLC0415 - imports MLflow

    for address in spool.glob("sender-*.sock"):
        try:
            connected(address).close()
        except ConnectionRefusedError:
            address.unlink(missing_ok=True)
        except OSError:
            continue
    sweep(spool)
    for folder in run_folders(spool):
        with contextlib.suppress(DeliveryError, JournalError, OSError):
            if not header(folder.journal).offline and close_for_the_dead(folder, 0):
                runs.deliver(folder)
