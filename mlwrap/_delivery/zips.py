"""Folders that a saver wrote become the zip files that loaders want, off the training path."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

_CHUNK = 1 << 22


def zip_folders(root: Path, zips: Mapping[str, str]) -> None:
    """Put folders into zip files, uncompressed, and remove them; what was done before is left alone.

    Args:
        root: What the paths are relative to.
        zips: The path of each zip file, to that of the folder whose content it gets.
    """
    for file, source in zips.items():
        folder, target = root / source, root / file
        if not folder.is_dir():  # an earlier delivery got this far
            continue
        part = target.with_name(f".{target.name}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # without the time of day
                entry.file_size = path.stat().st_size
                with path.open("rb") as content, archive.open(entry, "w") as member:
                    shutil.copyfileobj(content, member, _CHUNK)
        part.rename(target)
        shutil.rmtree(folder)
