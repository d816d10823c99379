"""The files of TensorFlow checkpoints: all of them, copied as a set, with a state file that may move.

A checkpoint named ``model.ckpt-35`` is ``model.ckpt-35.index``, ``.data-00000-of-0000N`` and, if a
graph was saved too, ``.meta``. Beside it the text file ``checkpoint`` names the latest one and all that are
kept.
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
        SaveError: One of its files is missing: half a checkpoint is none. Carries ``value``.
    """
    files: Any = imported("tensorflow").io.gfile
    source, _, name = prefix.rpartition("/")
    here = _suffixes(name, files.listdir(source or "."))
    if missing := missing_files(name, here):
        raise SaveError(
            f"The checkpoint {prefix} is not whole: {', '.join(missing)} is missing. Was it being "
            "removed while training went on? Keep more of them (keep_checkpoint_max, max_to_keep).",
            value,
        )
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in sorted(_needed(here) | (here & {".meta"})):
        files.copy(f"{prefix}{suffix}", str(folder / f"{name}{suffix}"), overwrite=True)
    write_state(folder, name)
    return name


def require_checkpoint(folder: Path, name: str) -> str:
    """The prefix of the checkpoint ``name``, relative to ``folder``, with all of its files there.

    Raises:
        LoadError: It is not there, not whole, or not in the folder.
    """
    prefix = inside(folder, name)
    if missing := missing_files(prefix.name, suffixes_in(prefix.parent, prefix.name)):
        raise LoadError(
            f"Expected the checkpoint {name} in {folder}, and {', '.join(missing)} is not there. "
            "Download the whole model folder again."
        )
    return str(prefix)


def place_checkpoints(folder: Path, names: Sequence[str], into: object) -> Path:
    """Copy checkpoints into a folder of the caller's own, where training can go on.

    Args:
        folder: Where they lie.
        names: Which, the latest last.
        into: The folder to copy them into, made if it is not there; text or a path.

    Raises:
        LoadError: It is no path, or a training has left checkpoints in it already.
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
        folder: Where the state file goes.
        names: Of the checkpoints that are kept, the latest last; relative, so that folders can move.
    """
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{n}"' for n in names)]
    # A manager takes those without a time for some that it was not to count any more.
    times = [folder.joinpath(f"{name}.index").stat().st_mtime for name in names]
    lines += [f"all_model_checkpoint_timestamps: {time!r}" for time in times]
    folder.joinpath(_STATE).write_text("".join(f"{line}\n" for line in lines))


def missing_files(name: str, here: set[str]) -> list[str]:
    """The files that the checkpoint ``name`` lacks, of which files with these suffixes are here."""
    return [name + suffix for suffix in sorted(_needed(here) - here)]


def suffixes_in(folder: Path, name: str) -> set[str]:
    """What follows ``name`` in the names of its files in ``folder``; nothing, where there is none."""
    return _suffixes(name, [file.name for file in folder.iterdir()] if folder.is_dir() else [])


def _suffixes(name: str, files: Sequence[str]) -> set[str]:
    """What follows ``name`` in the names of that checkpoint's files."""
    found = {file[len(name) :] for file in files if file.startswith(f"{name}.")}
    return {suffix for suffix in found if suffix in {".index", ".meta"} or _SHARD.fullmatch(suffix)}


def _needed(here: set[str]) -> set[str]:
    totals = [int(found[1]) for suffix in here if (found := _SHARD.fullmatch(suffix))]
    total = max(totals, default=1)
    return {".index", *(f".data-{number:05d}-of-{total:05d}" for number in range(total))}
