"""The artifacts of one run: each is staged under a name that every store takes, and written down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mlwrap._capture.artifact_names import ArtifactNames, storable_name
from mlwrap._journal.names import artifact_path
from mlwrap._journal.records import Artifact
from mlwrap._recording.run_log import RunLog
from mlwrap._recording.stage_checksums import StageChecksums

_NAMES = "artifact_names.json"


class ArtifactLog:
    """Stages the artifacts of one run.

    Args:
        run: The run.
        checksums: Makes the checksums of staged files.
    """

    def __init__(self, run: RunLog, checksums: StageChecksums) -> None:
        self._run, self._checksums = run, checksums
        self._names = ArtifactNames()

    def copy(self, source: Path, folder: str | None) -> None:
        """Stage a copy of a file or folder as it is now, as an artifact in ``folder``."""
        under = artifact_path(folder) if folder else PurePosixPath()
        wanted = under / source.absolute().name
        path = self._names.storable(wanted, is_folder=source.is_dir())
        self._write_down(
            self._run.folder.stage_copy(source.absolute(), path.name, storable_name), path, wanted
        )

    def text(self, text: str, artifact_file: str) -> None:
        """Stage text as an artifact, secrets left out."""
        data = self._run.redactor.text(text).encode("utf-8", "backslashreplace")
        self.file(artifact_file, lambda path: path.write_bytes(data))

    def file(self, artifact_file: str, write: Callable[[Path], object]) -> None:
        """Stage the file that ``write`` makes as an artifact."""
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
        """Stage the table of the artifacts that are stored under another name, if there are any."""
        if renamed := dict(sorted(self._names.renamed.items())):
            self.text(json.dumps(renamed, indent=2), _NAMES)  # which writes what is no UTF-8, too

    def _write_down(self, staged: Path, path: PurePosixPath, wanted: PurePosixPath) -> None:
        name = self._run.folder.relative(staged)
        files = self._checksums.files(staged.parent)
        self._run.append(Artifact(staged=name, path=str(path), files=files))
        self._checksums.follow(staged.parent, name, files)
        first = not self._names.renamed
        self._names.add(path, wanted)
        for inner in files if staged.is_dir() else ():
            self._names.add(path.parent / inner, wanted.parent / inner)
        if first and self._names.renamed:
            self._run.warn(
                f"the artifact {str(wanted)!r} is stored as {str(path)!r}, for not every store takes its "
                f"name, or a file and a folder would have the same one. {_NAMES} lists the artifacts of this "
                "run that are stored under another name."
            )
