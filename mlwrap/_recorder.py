"""One run's record while it is open: its journal, its staged files, and what MLflow said of it since.

The only thing that the training half knows of a run. A recorder without a journal records nothing: a
disabled run, or a child made by ``fork``, whose run is its parent's.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from mlwrap import savers
from mlwrap._capture import Captured, Redactor, pins, rename
from mlwrap._delivery import Line
from mlwrap._journal import (
    KEPT,
    AnyRecord,
    Artifact,
    Metrics,
    Model,
    OpenRun,
    Params,
    Progress,
    RunEnded,
    RunStarted,
    Status,
    Tags,
    open_run,
)
from mlwrap._logged_model import LoggedModel
from mlwrap.errors import DeliveryError, OptionError, RunStateError, SaveError, told, warn
from mlwrap.savers import SaveOptions, Saver

MAX_TAG = 5000  # characters; what every store of MLflow's takes


class Recorder:
    """Writes one run down.

    Args:
        name: The run's name in MLflow.
        strict: Raise ``SaveError`` where a model can't be saved.
    """

    def __init__(self, name: str, *, strict: bool) -> None:
        self.name = name
        self.key = uuid.uuid4().hex
        self.status: Literal["RUNNING"] | Status = "RUNNING"
        self.redactor = Redactor()
        self.models: dict[str, LoggedModel] = {}  # by staged path, in the order of logging
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.signal: str | None = None
        self.line: Line | None = None
        self._strict = strict
        self._journal: OpenRun | None = None
        self._process = os.getpid()
        self._server = ""
        self._began = time.monotonic()
        self._params: dict[str, str] = {}
        self._whole: dict[str, tuple[str, Any]] = {}
        self._saving: dict[str, Model] = {}
        self._full = False
        self._found: set[tuple[str, int]] = set()

    @property
    def recording(self) -> bool:
        """Whether there is a journal that is this process's to write."""
        return self.recorded and os.getpid() == self._process

    @property
    def recorded(self) -> bool:
        """Whether there is a journal, whoever's it is to write."""
        return self._journal is not None

    @property
    def journal(self) -> OpenRun:
        """The open journal.

        Raises:
            RunStateError: There is none.
        """
        if self._journal is None:
            raise RunStateError(f"run {self.name!r} records nothing.")
        return self._journal

    @property
    def url(self) -> str | None:
        """The run's page in the user interface of an MLflow server."""
        if self.run_id is None or not self._server.startswith(("http:", "https:")):
            return None
        return f"{self._server.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    @property
    def seconds(self) -> float:
        """Seconds since the run was made."""
        return time.monotonic() - self._began

    def open(self, root: Path, first: RunStarted, *, line: bool) -> None:
        """Open the journal, in the spool ``root``.

        Args:
            root: Where the run folder is made.
            first: The journal's first record.
            line: Whether a sender is to deliver it from now on.

        Raises:
            SpoolError: The spool can't be written.
        """
        self._journal = open_run(root, first)
        self._server = first.tracking_uri
        if line:
            try:
                self.line = Line(self._journal.folder)
            except DeliveryError as error:
                self.warn(f"MLflow will be told at its end, by this process: {error}")

    def append(self, record: AnyRecord) -> None:
        """Write one record; one that the disk does not take is kept for later, said once."""
        trouble = self.journal.append(record)
        if self.line is not None:
            self.line.wake()
        if trouble is not None and not self._full:
            self._full = True
            self.warn(
                f"{self.journal.folder.path} can't be written ({trouble.strerror}). Training goes on; until "
                f"it can, the next {KEPT:,} records wait in memory and those beyond are lost. Make room."
            )

    def warn(self, message: str) -> None:
        """Say what went wrong, secrets left out."""
        warn(f"run {self.name!r}: {self.redactor.text(message)}")

    def params(self, captured: Captured) -> None:
        """Write parameters down, each the first time that it comes."""
        fresh: dict[str, str] = {}
        for name, text in captured.values.items():
            if self._params.get(name, text) != text:
                free = next(f"{name}.{n}" for n in range(2, 1_000_000) if f"{name}.{n}" not in self._params)
                self.warn(
                    f"parameter {name!r} was {self._params[name]!r} and can't change; the new value is "
                    f"logged as {free!r}. Log what changes as a metric."
                )
                fresh[free] = text
            elif name not in self._params:
                fresh[name] = text
        if fresh:
            self._params |= fresh
            self.append(Params(values=fresh))
        if captured.whole:
            self._whole |= captured.whole
            table = {name: {"name": own, "value": value} for name, (own, value) in self._whole.items()}
            self.text(msgspec.json.format(msgspec.json.encode(table).decode(), indent=2), "params.json")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Write the metrics of one step down."""
        self.append(
            Metrics.of({rename(str(k)): float(v) for k, v in values.items()}, step=int(step), time=now())
        )

    def found(self, records: Iterable[Metrics]) -> None:
        """Write metrics down that a model or a history remembers, each point once however often it is met."""
        for record in records:
            fresh = {
                name: value for name, value in record.values.items() if (name, record.step) not in self._found
            }
            self._found |= {(name, record.step) for name in fresh}
            if fresh:
                self.append(msgspec.structs.replace(record, values={rename(k): v for k, v in fresh.items()}))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Write tags down."""
        self.append(Tags(values=self.tag_texts(tags)))

    def tag_texts(self, tags: Mapping[str, Any]) -> dict[str, str]:
        """Tags as MLflow takes them: text, without secrets, at most ``MAX_TAG`` characters."""
        return {rename(str(k)): str(self.redactor.value(str(k), v))[:MAX_TAG] for k, v in tags.items()}

    def copy(self, source: Path, artifact_path: str | None) -> None:
        """Stage a copy of a file or folder as an artifact."""
        under = _artifact_path(artifact_path) if artifact_path else PurePosixPath()
        staged = self.journal.folder.stage_copy(source.absolute())
        self.append(Artifact(staged=self.journal.folder.relative(staged), path=str(under / staged.name)))

    def text(self, text: str, artifact_file: str) -> None:
        """Stage text as an artifact, secrets left out."""
        self.file(artifact_file, lambda path: path.write_text(self.redactor.text(text), encoding="utf-8"))

    def file(self, artifact_file: str, write: Callable[[Path], object]) -> None:
        """Stage the file that ``write`` makes as an artifact."""
        folder = self.journal.folder
        path = _artifact_path(artifact_file)
        file = folder.stage(path.name) / path.name
        try:
            write(file)
        except BaseException:
            shutil.rmtree(file.parent, ignore_errors=True)
            raise
        self.append(Artifact(staged=folder.relative(file), path=str(path)))

    def model(self, model: Any, name: str, saver: Saver, options: SaveOptions, step: int = 0) -> LoggedModel:
        """Save a model into a staged folder and write it down; or take it back, and write that down.

        Raises:
            SaveError: It could not be saved, and the run is strict.
        """
        record = Model(
            name=name,
            staged=f"staged/none-{uuid.uuid4().hex}",  # of a model that there was not even room to stage
            time=now(),
            step=step,
            saver=saver.name,
            saver_format=saver.format,
            python=platform.python_version(),
        )
        try:
            folder = self.journal.folder.stage(name)
            record = msgspec.structs.replace(record, staged=self.journal.folder.relative(folder))
            self._saving[record.staged] = record
            saved = saver.save(model, folder, options)
            self.append(msgspec.structs.replace(record, saved=saved, requirements=pins(saved.packages)))
        except BaseException as error:
            self._abandon(record, told(error))
            if not isinstance(error, Exception):
                raise
            message = f"the model {name!r} could not be saved: {told(error)}"
            if self._strict:
                raise SaveError(self.redactor.text(f"run {self.name!r}: {message}"), model) from error
            self.warn(message + " It is FAILED in MLflow; the object itself reaches your code unharmed.")
        else:
            del self._saving[record.staged]
            self.models[record.staged] = LoggedModel(name, "STAGED")
        return self.models[record.staged]

    def unknown(self, unknown: Iterable[tuple[str, str]]) -> None:
        """Say that nobody knows how to save something: where it was found, and its type."""
        what = ", ".join(f"{kind} ({where})" for where, kind in unknown)
        self.warn(
            f"no saver knows {what}; it is not logged, and reaches your code unharmed. "
            f"There are savers for: {', '.join(savers.kinds())}. mlwrap.register_saver() adds one."
        )

    def abandon_all(self, why: str) -> None:
        """Take back every model that is being saved right now."""
        for record in list(self._saving.values()):
            self._abandon(record, why)

    def close(self, status: Status, error: str | None) -> None:
        """Write the run's end down and close the journal; a second call does nothing."""
        if self.status != "RUNNING":
            return
        self.status = status
        last = RunEnded(status=status, time=now(), error=self.redactor.text(error) if error else None)
        try:
            if lost := self.journal.end(last):
                self.warn(f"{lost:,} records are lost, for {self.journal.folder.path} could not be written.")
        except OSError as failure:
            self.warn(f"its end could not be written to {self.journal.folder.path}: {failure}")

    def release(self) -> None:
        """Let go of the run folder: what is not delivered yet is anybody's to deliver."""
        self.journal.release()
        if self.line is not None:
            self.line.close()

    def delivered(self, progress: Progress) -> None:
        """Learn what MLflow has of this run."""
        self.run_id, self.experiment_id = progress.run_id, progress.experiment_id
        for staged, known in progress.models.items():
            model = self.models[staged]
            model.status, model.uri = known.status, f"models:/{known.model_id}"

    def _abandon(self, record: Model, why: str) -> None:
        self._saving.pop(record.staged, None)
        shutil.rmtree(self.journal.folder.path / record.staged, ignore_errors=True)
        self.models[record.staged] = LoggedModel(record.name, "FAILED")
        self.append(msgspec.structs.replace(record, error=self.redactor.text(why)[:MAX_TAG]))


def now() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def _artifact_path(path: str) -> PurePosixPath:
    checked = PurePosixPath(path)
    if not checked.name or checked.is_absolute() or ".." in checked.parts:
        raise OptionError(
            f"{path!r} is no artifact path: expected a relative one without '..', as 'plots/roc.png'."
        )
    return checked
