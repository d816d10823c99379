"""Copy the files of TensorFlow checkpoints as a set, with a state file that stays valid when moved.

A checkpoint named ``model.ckpt-35`` consists of ``model.ckpt-35.index``, ``.data-00000-of-0000N`` and, if a
graph was saved too, ``.meta``. The text file ``checkpoint`` beside it names the latest checkpoint and all
that are kept.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlwrap._savers.identify import class_name, imported
from mlwrap._savers.paths import inside
from mlwrap.errors import LoadError, SaveError

_STATE = "checkpoint"
_SHARD = re.compile(r"\.data-\d{5}-of-(\d{5})")


def copy_checkpoint(prefix: str, folder: Path, value: object) -> str:
    """Copy the checkpoint at ``prefix``, which may be remote, into ``folder``; return its name.

    Raises:
        SaveError: One of its files is missing, so the checkpoint is unusable. Carries ``value``.
    """
    files: Any = imported("tensorflow").io.gfile
    source, _, name = prefix.rpartition("/")
    suffixes = _suffixes(name, files.listdir(source or "."))
    if missing := missing_files(name, suffixes):
        raise SaveError(
            f"The checkpoint {prefix} is not whole: {', '.join(missing)} is missing. Was it being "
            "removed while training went on? Keep more of them (keep_checkpoint_max, max_to_keep).",
            value,
        )
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in sorted(_needed_suffixes(suffixes) | (suffixes & {".meta"})):
        files.copy(f"{prefix}{suffix}", str(folder / f"{name}{suffix}"), overwrite=True)
    write_state(folder, name)
    return name


def require_checkpoint(folder: Path, name: str) -> str:
    """Return the prefix of the checkpoint ``name``, relative to ``folder``, if all of its files exist.

    Raises:
        LoadError: It is missing, incomplete, or not in the folder.
    """
    prefix = inside(folder, name)
    if missing := missing_files(prefix.name, suffixes_in(prefix.parent, prefix.name)):
        raise LoadError(
            f"Expected the checkpoint {name} in {folder}, and {', '.join(missing)} is not there. "
            "Download the whole model folder again."
        )
    return str(prefix)


def place_checkpoints(folder: Path, names: Sequence[str], into: object) -> Path:
    """Copy checkpoints into a folder of the caller, where training can continue.

    Args:
        folder: The folder of the checkpoints.
        names: The names of the checkpoints, the latest last.
        into: The folder to copy them into, created if missing; text or a path.

    Raises:
        LoadError: ``into`` is not a path, or already contains the checkpoints of a training.
    """
    if not isinstance(into, str | os.PathLike):
        raise LoadError(
            f"Expected into= to be the path of a folder to restore into, got a {class_name(into)}."
        )
    target = Path(into)
    if target.joinpath(_STATE).exists():
        raise LoadError(
            f"{target} holds checkpoints of a training already, which are not written over. "
            "Give a new folder as into=."
        )
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        prefix = Path(require_checkpoint(folder, name))
        for suffix in sorted(suffixes_in(folder, name)):
            shutil.copyfile(f"{prefix}{suffix}", target / f"{name}{suffix}")
    write_state(target, *names)
    return target


def write_state(folder: Path, *names: str) -> None:
    """Write the state file that ``tf.train.get_checkpoint_state`` and a ``CheckpointManager`` read.

    Args:
        folder: The folder of the state file.
        names: The names of the kept checkpoints, the latest last; relative, so that folders can move.
    """
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{n}"' for n in names)]
    # A CheckpointManager does not count checkpoints without a timestamp.
    times = [folder.joinpath(f"{name}.index").stat().st_mtime for name in names]
    lines += [f"all_model_checkpoint_timestamps: {time!r}" for time in times]
    folder.joinpath(_STATE).write_text("".join(f"{line}\n" for line in lines))


def missing_files(name: str, here: set[str]) -> list[str]:
    """Return the files that the checkpoint ``name`` lacks, given the suffixes of its existing files."""
    return [name + suffix for suffix in sorted(_needed_suffixes(here) - here)]


def suffixes_in(folder: Path, name: str) -> set[str]:
    """Return what follows ``name`` in the names of its files in ``folder``; empty if there is no folder."""
    return _suffixes(name, [file.name for file in folder.iterdir()] if folder.is_dir() else [])


def _suffixes(name: str, files: Sequence[str]) -> set[str]:
    """Return what follows ``name`` in the names of that checkpoint's files."""
    suffixes = {file[len(name) :] for file in files if file.startswith(f"{name}.")}
    return {suffix for suffix in suffixes if suffix in {".index", ".meta"} or _SHARD.fullmatch(suffix)}


def _needed_suffixes(suffixes: set[str]) -> set[str]:
    totals = [int(match[1]) for suffix in suffixes if (match := _SHARD.fullmatch(suffix))]
    total = max(totals, default=1)
    return {".index", *(f".data-{number:05d}-of-{total:05d}" for number in range(total))}
