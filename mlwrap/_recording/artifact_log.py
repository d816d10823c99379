"""Stage the artifacts of one run, under names that every artifact store accepts, and record them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mlwrap._capture.artifact_names import ArtifactNames, storable_name
from mlwrap._journal.names import artifact_path
from mlwrap._journal.records import Artifact
from mlwrap._recording.run_log import RunLog
from mlwrap._recording.staged_checksums import StageChecksums

_NAMES = "artifact_names.json"


class ArtifactLog:
    """Stages the artifacts of one run.

    Args:
        run: The run.
        checksums: Computes the checksums of staged files.
    """

    def __init__(self, run: RunLog, checksums: StageChecksums) -> None:
        self._run, self._checksums = run, checksums
        self._names = ArtifactNames()

    def copy(self, source: Path, folder: str | None) -> None:
        """Stage a copy of a file or folder as an artifact in the artifact folder ``folder``."""
        under = artifact_path(folder) if folder else PurePosixPath()
        wanted = under / source.absolute().name
        path = self._names.storable(wanted, is_folder=source.is_dir())
        self._write_down(
            self._run.folder.stage_copy(source.absolute(), path.name, storable_name), path, wanted
        )

    def text(self, text: str, artifact_file: str) -> None:
        """Stage text as an artifact; secrets are removed."""
        data = self._run.redactor.text(text).encode("utf-8", "backslashreplace")
        self.file(artifact_file, lambda path: path.write_bytes(data))

    def file(self, artifact_file: str, write: Callable[[Path], object]) -> None:
        """Stage the file that ``write`` creates as an artifact."""
        wanted = artifact_path(artifact_file)
        path = self._names.storable(wanted)
        file = self._run.folder.stage(path.name) / path.name
        try:
            write(file)
        except BaseException:
            shutil.rmtree(file.parent, ignore_errors=True)
            raise
        self._write_down(file, path, wanted)

    def finish(self) -> None:
        """Stage the table of the artifacts that are stored under another name, if any are."""
        if renamed := dict(sorted(self._names.renamed.items())):
            self.text(json.dumps(renamed, indent=2), _NAMES)  # also handles text that is not valid UTF-8

    def _write_down(self, staged: Path, path: PurePosixPath, wanted: PurePosixPath) -> None:
        name = self._run.folder.relative(staged)
        files = self._checksums.files(staged.parent)
        self._run.append(Artifact(staged=name, path=str(path), files=files))
        self._checksums.follow(staged.parent, name, files)
        is_first_rename = not self._names.renamed
        self._names.add(path, wanted)
        for inner in files if staged.is_dir() else ():
            self._names.add(path.parent / inner, wanted.parent / inner)
        if is_first_rename and self._names.renamed:
            self._run.warn(
                f"the artifact {str(wanted)!r} is stored as {str(path)!r}, for not every store takes its "
                f"name, or a file and a folder would have the same one. {_NAMES} lists the artifacts of this "
                "run that are stored under another name."
            )
