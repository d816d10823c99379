"""The record types of a journal, one tagged JSON object per line.

The first record of every journal is a :class:`RunStarted`, which carries the format number. Later
formats may add record types and fields; a reader refuses a format that is newer than its own. The module has
more than 300 lines because it is the only description of the format.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Any, Literal

import msgspec

FORMAT = 2
"""The journal format that mlwrap writes, and the newest that it reads; format 1 has no checksums."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Record(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """One line of a journal."""


class SystemMetrics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Request to log system metrics during the run.

    Attributes:
        interval: Seconds between two samples (default 10).
        samples: Samples per data point of each metric, which is their mean (default 1).
        node: The machine's name within the metrics' names, if several machines log to one run.
    """

    interval: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 10.0
    samples: Annotated[int, msgspec.Meta(ge=1)] = 1
    node: str | None = None


class RunStarted(Record, frozen=True, kw_only=True, tag="run_started"):
    """The first record: the run's identity and destination.

    Attributes:
        format: Journal format number, which the writer sets; journals of format 1 omit it.
        key: mlwrap's own id of the run, also its tag ``mlwrap.key``.
        name: The run's name in MLflow.
        time: Milliseconds since the epoch, UTC.
        tracking_uri: Absolute URI of the server or store that gets the run.
        experiment: Name of the experiment, or ``None`` for MLflow's default experiment.
        experiment_id: MLflow's id of the experiment, if the user named it by id; overrides ``experiment``.
        parent_key: Key of the parent run, if mlwrap made that.
        parent_run_id: MLflow's id of the parent run, made by mlwrap or not, if known.
        run_id: MLflow's id of an existing run to log to; ``None`` to create one.
        folder: Working directory of the training process, against which relative store paths resolve.
        offline: Whether the run waits in the spool for ``mlwrap sync``.
        tags: Tags known at the start.
        thin_after: Points of one metric after which MLflow gets a down-sampled metric; 0, also the value of
            journals older than this field, for never.
        system_metrics: How to log system metrics; ``None`` to log none.
    """

    format: int = 1
    key: str
    name: str
    time: int
    tracking_uri: str
    experiment: str | None = None
    experiment_id: str | None = None
    parent_key: str | None = None
    parent_run_id: str | None = None
    run_id: str | None = None
    folder: str
    offline: bool = False
    tags: dict[str, str] = {}
    thin_after: int = 0
    system_metrics: SystemMetrics | None = None


class Params(Record, frozen=True, kw_only=True, tag="params"):
    """Parameters, name to text, both within MLflow's limits."""

    values: dict[str, str]


class Tags(Record, frozen=True, kw_only=True, tag="tags"):
    """Tags, by name."""

    values: dict[str, str]


Number = float | Literal["NaN", "Infinity", "-Infinity"]
"""A metric's value; a text for NaN and the infinities, which JSON numbers can't express."""


class Metrics(Record, frozen=True, kw_only=True, tag="metrics", gc=False):  # can't be part of a cycle
    """Metrics of one step.

    Attributes:
        values: Name to value.
        step: The step of all values.
        time: Milliseconds since the epoch, UTC.
    """

    values: dict[str, Number]
    step: int
    time: int

    @classmethod
    def of(cls, values: dict[str, float], *, step: int, time: int) -> Metrics:
        """Make a record of ``values``; if some are not finite, encode them in a copy of the dict."""
        if not all(map(math.isfinite, values.values())):
            return cls(values={k: _to_json_number(v) for k, v in values.items()}, step=step, time=time)
        return cls(values=values, step=step, time=time)  # type: ignore[arg-type] # floats are Numbers

    def numbers(self) -> dict[str, float]:
        """Return the values as floats, including NaN and the infinities."""
        return {name: float(value) for name, value in self.values.items()}


def _to_json_number(value: float) -> Number:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


class StagedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Size and checksum of a staged file, taken when it had been written.

    Attributes:
        size: Length of the content in bytes.
        crc: CRC-32 of the content; ``None`` until a :class:`Checksums` record follows.
        start: Offset of the content in the file, in bytes.
    """

    size: int
    crc: int | None = None
    start: int = 0


class Checksums(Record, frozen=True, kw_only=True, tag="checksums"):
    """Checksums of a stage that was too large to read while the training waited.

    Attributes:
        staged: Path of the stage, the same as in the record of its model or artifact.
        files: Files by their paths relative to the stage's folder.
    """

    staged: str
    files: dict[str, StagedFile]


class Artifact(Record, frozen=True, kw_only=True, tag="artifact"):
    """A file or folder of the run's own artifacts.

    Attributes:
        staged: Path of the staged file or folder, relative to the run folder.
        path: Path of the artifact, relative to the run's artifacts.
        files: Staged files by paths relative to the parent folder of ``staged``; empty in journals older than
            this field.
    """

    staged: str
    path: str
    files: dict[str, StagedFile] = {}


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output of a model.

    Attributes:
        name: Name of the input or output, or ``None`` for a model with a single, unnamed one.
        dtype: numpy's name of the type (``"float32"``; ``"str"`` for text).
        shape: Sizes of the axes, -1 for any size; the batch axis first.
    """

    name: str | None = None
    dtype: str
    shape: tuple[int, ...]


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs and outputs of a model, in a form that needs neither MLflow nor TensorFlow.

    Attributes:
        inputs: The inputs.
        outputs: The outputs.
        columns: Column names, if the only input is built from a frame; all columns are numeric.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    columns: tuple[str, ...] = ()


class Zip(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Request that delivery makes a zip file from a folder.

    Attributes:
        folder: Path of the folder.
        around: Name of a file in the folder that has room for the zip header before its content and becomes
            the zip file; ``""`` to copy all files into a new zip file.
        start: Offset of that file's content, in bytes.
        length: Length of that file's content, in bytes.
    """

    folder: str
    around: str = ""
    start: int = 0
    length: int = 0


class Saved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A saver's description of the files that it wrote: all that an ``MLmodel`` file needs.

    Attributes:
        flavors: MLflow's flavors to their configuration, for the loaders of unmodified MLflow;
            paths in them are relative to the model's folder.
        pyfunc: Configuration of MLflow's generic flavor, including ``loader_module``, or ``None``
            if MLflow has no loader.
        signature: Inputs and outputs, if the model provides them.
        details: Data for the ``load`` of the same saver.
        packages: Names of the distributions that loading needs (``tensorflow``, ``keras``).
        modules: Names of the modules to import before loading: they register the model's own classes.
        zips: Paths of the zip files that delivery makes, each with its contents.
        forms: Saved forms of an object that can be saved in several: ``"training"`` restores the object,
            ``"serving"`` predicts without its code, ``"weights"`` sets the weights of an existing object.
    """

    flavors: dict[str, dict[str, Any]] = {}
    pyfunc: dict[str, Any] | None = None
    signature: Signature | None = None
    details: dict[str, Any] = {}
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    zips: dict[str, Zip] = {}
    forms: tuple[str, ...] = ()


class Model(Record, frozen=True, kw_only=True, tag="model"):
    """A model that was saved, or that failed to save.

    Attributes:
        name: The model's name in MLflow.
        staged: The model's staged folder, relative to the run folder; also the model's key within the run.
        time: Milliseconds since the epoch, UTC.
        step: The model's training step.
        saver: Name of the saver that wrote the model.
        saver_format: Format number of the saver's layout.
        saved: The saver's description of the files; ``None`` if saving failed.
        requirements: Pinned pip requirements.
        python: Python version of the training process, such as ``3.11.7``.
        error: Why the model could not be saved, or ``None``.
        register_as: ``name`` or ``name@alias`` in MLflow's registry.
        verify: ``"load"`` to load the model once it is logged.
        search_path: The training process's module search path, with which the model is loaded then.
        metrics: Metrics of the run that rate this model; MLflow gets them as the model's metrics, too.
        newest: The run's newest metrics when the model was logged, used if ``metrics`` is ``None``.
        params: The run's first parameters when the model was logged.
        call: Number of the call that logged the model, counted per run; one call logs all that a function
            returned.
        checkpoint: Whether the model is a checkpoint, which never counts as the run's model.
        files: Staged files by paths relative to ``staged``; empty in journals older than this field.
    """

    name: str
    staged: str
    time: int
    step: int = 0
    saver: str
    saver_format: int
    saved: Saved | None = None
    requirements: tuple[str, ...] = ()
    python: str = ""
    error: str | None = None
    register_as: str | None = None
    verify: Literal["static", "load"] = "static"
    search_path: tuple[str, ...] = ()
    metrics: Metrics | None = None
    newest: tuple[Metrics, ...] = ()
    params: dict[str, str] = {}
    call: int = 0
    checkpoint: bool = False
    files: dict[str, StagedFile] = {}

    @property
    def has_step(self) -> bool:
        """Whether the step identifies the model; a returned model has step 0, which says nothing."""
        return self.checkpoint or self.step != 0


class RunEnded(Record, frozen=True, kw_only=True, tag="run_ended"):
    """The last record: how the run ended.

    Attributes:
        status: MLflow's status of the run.
        time: Milliseconds since the epoch, UTC.
        error: Type and message of the exception that ended the run, redacted.
        unwritten: Count of the training's numbers that may have no record; ``None``, for unknown, if another
            process wrote the end.
    """

    status: Status
    time: int
    error: str | None = None
    unwritten: int | None = None


AnyRecord = RunStarted | Params | Tags | Metrics | Artifact | Model | Checksums | RunEnded


def now() -> int:
    """Return the time in milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000
