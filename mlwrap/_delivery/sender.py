"""The sender: a process that delivers while training goes on, and after it has died.

A thread for each run waits on the run's line: a byte on it wakes it, its end means that the writer is gone.
It delivers what there is, looks once more a second later, and sleeps until it is woken again. It ends
when the one that started it is gone and no run is left.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from pathlib import Path

import filelock
import msgspec

from mlwrap._delivery.line import ASK, Told, connected, short
from mlwrap._journal import Progress, RunEnded, RunFolder, Tags, Writer, header, read, run_folders, sweep
from mlwrap.errors import DeliveryError, JournalError, Unreachable

_LOOK_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
_LINGER_SECONDS = (
    10.0  # after the writer's death, for an MLflow that does not answer; then `mlwrap sync` is needed
)
_CLOSING_SECONDS = 5.0  # between the end of a dead writer's line and that of its lease

# MLflow's own patience is four minutes a call. The sender brings its own: calls are short, and come again.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def main(listener: int, address: str) -> None:
    """Serve the lines that come in on a listening socket until nobody can bring another.

    Args:
        listener: Descriptor of the socket.
        address: Its path, removed at the end.
    """
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    server = socket.socket(fileno=listener)
    threading.Thread(target=_end_with_starter, args=(server,), daemon=True).start()
    threading.Thread(target=finish_abandoned, args=(Path(address).parent,), daemon=True).start()
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
        self._woken = 0.0
        self._pause = _FIRST_PAUSE

    def serve(self) -> None:
        """Deliver the run until all is delivered, or nothing can be done any more."""
        with self._connection:
            folder = self._folder()
            if folder is not None:
                self._serve(folder)

    def _serve(self, folder: RunFolder) -> None:
        due: float | None = time.monotonic()
        give_up: float | None = None
        while True:
            if self._listen(due):
                wanted = time.monotonic() + (0.0 if self._asked or self._dead else _LOOK_SECONDS)
                due = wanted if due is None else min(due, wanted)
            if self._dead and give_up is None:
                if not close_for_the_dead(folder, _CLOSING_SECONDS):
                    return
                give_up = time.monotonic() + _LINGER_SECONDS
            began = time.monotonic()
            if due is None or began < due:
                continue
            pause = self._deliver(folder)
            if pause is None or (pause and give_up is not None and began > give_up):
                return
            # A record that came within the second after a wake has sent none of its own: look once more.
            look = self._woken + _LOOK_SECONDS
            due = time.monotonic() + pause if pause else (look if look > began else None)

    def _folder(self) -> RunFolder | None:
        """The run's folder, which is the first line that is sent."""
        data = b""
        while not data.endswith(b"\n"):
            byte = self._connection.recv(1)
            if not byte:
                return None
            data += byte
        return RunFolder(Path(os.fsdecode(data[:-1])))

    def _listen(self, due: float | None) -> bool:
        """Wait until something comes or it is time; whether something came."""
        if self._dead:
            time.sleep(max(0.0, (due or 0.0) - time.monotonic()))
            return False
        self._connection.settimeout(None if due is None else max(0.001, due - time.monotonic()))
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
        """Deliver what there is: ``0`` if that went well, seconds until the next try, ``None`` for never."""
        from mlwrap._delivery import runs  # noqa: PLC0415 - imports MLflow, after the first line is accepted

        uri = ""
        try:
            uri = header(folder.journal).tracking_uri
            progress = runs.deliver(folder, told=self._tell)
        except (Unreachable, OSError) as error:
            self._tell(_progress(folder), error=str(error), away=_away.failed(uri))
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            return self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        except Exception as error:  # noqa: BLE001 - refused, damaged, or a bug of ours: said, and left for the user
            self._tell(_progress(folder), done=True, error=str(error) or repr(error))
            return None
        _away.answered(uri)
        self._pause = _FIRST_PAUSE
        self._tell(progress, done=progress.ended)
        return None if progress.ended else 0.0

    def _tell(
        self, progress: Progress, *, done: bool = False, error: str | None = None, away: float = 0.0
    ) -> None:
        if (self._asked or done) and not self._dead:
            told = Told(progress=progress, done=done, error=error, away=away)
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
        if not any(isinstance(entry.record, RunEnded) for entry in read(folder.journal)):
            why = "the training process died without a word (kill -9, out of memory, or a crash)"
            folder.free_reserve()  # it may be that the disk is full
            writer = Writer(folder.journal)
            writer.append(Tags(values={"mlwrap.error.message": why}))
            writer.append(RunEnded(status="KILLED", time=time.time_ns() // 1_000_000, error=why))
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
        except ConnectionRefusedError:  # noqa: PERF203 - few; its sender was killed
            address.unlink(missing_ok=True)
        except OSError:
            continue
    sweep(spool)
    for folder in run_folders(spool):
        with contextlib.suppress(DeliveryError, JournalError, OSError):
            if not header(folder.journal).offline and close_for_the_dead(folder, 0):
                runs.deliver(folder)
