"""Which runs has MLflow got whole? The spool remembers, for their folders are gone.

``delivered.jsonl`` in the spool has a line for each. It tells a run that was delivered from one whose folder
was lost, and whoever waits for the run later learns its id from it.
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
_MAX_BYTES = 1_000_000  # then the older half goes; without models that leaves some thousand runs
_TAIL = 1 << 16  # bytes, where the newest are
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class _Delivered(msgspec.Struct, kw_only=True, omit_defaults=True):
    key: str
    run_id: str | None = None
    experiment_id: str | None = None
    models: dict[str, ModelProgress] = {}
    degraded: str | None = None


def note_delivered(folder: RunFolder, progress: Progress) -> None:
    """Remember what MLflow has of a run, before its folder is removed.

    Raises:
        OSError: It can't be written.
    """
    models = {key: msgspec.structs.replace(model, uploaded=set()) for key, model in progress.models.items()}
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
    """What MLflow has of a run whose folder is gone; ``None`` if it was not delivered, or very long ago."""
    start = f'{{"key":"{folder.key}"'.encode()
    try:
        with _locked(folder.path.with_name(NAME), _FLAGS) as file:
            size = os.fstat(file).st_size
            for length in (_TAIL, size):
                text = os.pread(file, length, max(0, size - length))
                if (at := text.rfind(start)) >= 0:
                    found = msgspec.json.decode(text[at:].partition(b"\n")[0], type=_Delivered)
                    return Progress(
                        ended=True,
                        run_id=found.run_id,
                        experiment_id=found.experiment_id,
                        models=found.models,
                        degraded=found.degraded,
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
    """The file, open, and nobody else's for now."""
    while True:
        file = os.open(path, flags, 0o600)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
                raise PermissionError(f"{path} is no file of this user's")
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(found, path.stat()):  # else it was replaced in the meantime
                yield file
                return
        finally:
            os.close(file)
