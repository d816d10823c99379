"""The files of one TensorFlow checkpoint: all of them, copied as a set, with a state file that may move.

A checkpoint named ``model.ckpt-35`` is ``model.ckpt-35.index``, ``.data-00000-of-0000N`` and, if a
graph was saved too, ``.meta``. Beside it the text file ``checkpoint`` names the latest one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mlwrap.errors import LoadError, SaveError
from mlwrap.savers._kind import imported

_SHARD = re.compile(r"\.data-\d{5}-of-(\d{5})")


def copy_checkpoint(prefix: str, folder: Path, value: object) -> str:
    """Copy the checkpoint at ``prefix``, which may be remote, into ``folder``; return its name.

    Raises:
        SaveError: One of its files is missing: half a checkpoint is none. Carries ``value``.
    """
    files: Any = imported("tensorflow").io.gfile
    source, _, name = prefix.rpartition("/")
    here = {file[len(name) :] for file in files.listdir(source or ".") if file.startswith(f"{name}.")}
    shards = {suffix: int(found[1]) for suffix in here if (found := _SHARD.fullmatch(suffix))}
    total = max(shards.values(), default=1)
    needed = {".index", *(f".data-{number:05d}-of-{total:05d}" for number in range(total))}
    if missing := [name + suffix for suffix in sorted(needed - here)]:
        raise SaveError(
            f"The checkpoint {prefix} is not whole: {', '.join(missing)} is missing. Was it being "
            "removed while training went on? Keep more of them (keep_checkpoint_max, max_to_keep).",
            value,
        )
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in sorted(needed | (here & {".meta"})):
        files.copy(f"{prefix}{suffix}", str(folder / f"{name}{suffix}"))
    write_state(folder, name)
    return name


def require_checkpoint(folder: Path, name: str) -> str:
    """The prefix of the checkpoint ``name`` in ``folder``.

    Raises:
        LoadError: It is not there.
    """
    if not folder.joinpath(f"{name}.index").is_file():
        raise LoadError(
            f"Expected the checkpoint {name} in {folder}, and it is not there. "
            "Download the whole model folder again."
        )
    return str(folder / name)


def write_state(folder: Path, name: str) -> None:
    """Write the state file that ``tf.train.latest_checkpoint`` reads; relative, so that folders can move."""
    folder.joinpath("checkpoint").write_text(
        f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
    )
