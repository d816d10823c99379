"""``RunLog``: the journal, redactor, tags and warnings that all parts of one run's recording share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._capture.redact import Redactor
from mlwrap._journal.records import AnyRecord, Tags
from mlwrap._recording.null_recorder import NullRecorder
from mlwrap._spool.open_run import OpenRun
from mlwrap._spool.run_folder import RunFolder
from mlwrap.errors import RunStateError, warn

MAX_TAG = 5000  # characters; the limit that every MLflow store shares


class RunLog(NullRecorder):
    """The journal of one run, with the redactor that all text passes through.

    Args:
        name: The run's name in MLflow.

    Attributes:
        redactor: Removes secrets from all text that is written or shown.
        ready: Whether a call can record at once: the run is open, this process writes it, and no failed
            background save has to be reported first.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.redactor = Redactor()
        self._journal: OpenRun | None = None

    @property
    def recorded(self) -> bool:
        """Whether the run has a journal, in whichever process it is written."""
        return self._journal is not None

    @property
    def journal(self) -> OpenRun:
        """The open journal.

        Raises:
            RunStateError: The run has none.
        """
        if self._journal is None:
            raise RunStateError(f"run {self.name!r} records nothing.")
        return self._journal

    @property
    def folder(self) -> RunFolder:
        """The run folder.

        Raises:
            RunStateError: The run has none.
        """
        return self.journal.folder

    def append(self, record: AnyRecord) -> None:
        """Write one record; while the disk can't be written, it waits in memory."""
        self.journal.append(record)

    def warn(self, message: str) -> None:
        """Warn the user, with the run's name and without secrets."""
        text = self.redactor.text(message)
        warn(f"run {self.name!r}: {text if len(text) <= MAX_TAG else text[:MAX_TAG] + ' …'}")

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Write tags."""
        self.append(Tags(values=self.tag_texts(tags)))

    def tag_texts(self, tags: Mapping[str, Any]) -> dict[str, str]:
        """Return tags as MLflow accepts them: text without secrets, at most ``MAX_TAG`` characters."""
        texts = {}
        for name, value in tags.items():
            try:
                text = self.redactor.text(str(self.redactor.value(str(name), value)))
            except Exception as error:  # noqa: BLE001 - whatever a value's own __str__ raises
                text = f"not readable: {type(error).__name__}"
            texts[to_mlflow_name(str(name))] = text[:MAX_TAG]
        return texts
