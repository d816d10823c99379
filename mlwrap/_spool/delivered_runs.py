"""Record which runs are completely delivered, since their folders are removed.

``delivered.jsonl`` in the spool has a line for each. It distinguishes a delivered run from one whose folder
was lost, and gives the run's id to a process that waits for the run later.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mlwrap._journal.progress import ModelProgress, Progress
from mlwrap._spool.run_folder import RunFolder

NAME = "delivered.jsonl"
_MAX_BYTES = 1_000_000  # above this the older half is dropped; some thousand runs without models remain
_TAIL = 1 << 16  # bytes at the end of the file that are searched first, as the newest runs are there
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class _Delivered(msgspec.Struct, kw_only=True, omit_defaults=True):
    key: str
    run_id: str | None = None
    experiment_id: str | None = None
    models: dict[str, ModelProgress] = {}
    degraded: str | None = None


def note_delivered(folder: RunFolder, progress: Progress) -> None:
    """Write a run's ids and models to ``delivered.jsonl``, before the run folder is removed.

    Raises:
        OSError: ``delivered.jsonl`` can't be written.
    """
    models = {
        key: msgspec.structs.replace(model, uploaded=set(), partial={})
        for key, model in progress.models.items()
    }
    delivered = _Delivered(
        key=folder.key,
        run_id=progress.run_id,
        experiment_id=progress.experiment_id,
        models=models,
        degraded=progress.degraded,
    )
    line = msgspec.json.encode(delivered) + b"\n"
    path = folder.path.with_name(NAME)
    with _locked(path, _FLAGS | os.O_CREAT) as file:
        if os.fstat(file).st_size + len(line) <= _MAX_BYTES:
            os.write(file, line)
        else:
            _replace(path, _newer_half(os.pread(file, _MAX_BYTES, 0)) + line)


def find_delivered(folder: RunFolder) -> Progress | None:
    """Return what MLflow has of a run whose folder is gone.

    Returns:
        The progress; ``None`` if the run was not delivered, or so long ago that its line was dropped.
    """
    start = f'{{"key":"{folder.key}"'.encode()
    try:
        with _locked(folder.path.with_name(NAME), _FLAGS) as file:
            size = os.fstat(file).st_size
            for length in (_TAIL, size):
                text = os.pread(file, length, max(0, size - length))
                if (begin := text.rfind(start)) >= 0:
                    delivered = msgspec.json.decode(text[begin:].partition(b"\n")[0], type=_Delivered)
                    return Progress(
                        ended=True,
                        run_id=delivered.run_id,
                        experiment_id=delivered.experiment_id,
                        models=delivered.models,
                        degraded=delivered.degraded,
                    )
    except (OSError, msgspec.DecodeError):
        return None
    return None


def _newer_half(lines: bytes) -> bytes:
    return lines[lines.find(b"\n", len(lines) // 2) + 1 :]


def _replace(path: Path, text: bytes) -> None:
    part = path.with_suffix(".part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, text)
    finally:
        os.close(file)
    part.replace(path)


@contextlib.contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """Yield the descriptor of the opened file, locked against other processes."""
    while True:
        file = os.open(path, flags, 0o600)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
                raise PermissionError(f"{path} is no file of this user's")
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(status, path.stat()):  # else another process replaced the file
                yield file
                return
        finally:
            os.close(file)
