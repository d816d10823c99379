"""The record types of a journal: one tagged JSON object a line, described once, here.

The first record of every journal is a :class:`RunStarted`, which carries the format number. Later
formats may add record types and fields; a reader refuses a format that is newer than its own. These are more
than 300 lines, for the format is described in one place.
"""

from __future__ import annotations

import math
import time
from typing import Annotated, Any, Literal

import msgspec

FORMAT = 2
"""The journal format that this code writes, and the newest that it reads; format 1 has no checksums."""

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Record(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """One line of a journal."""


class SystemMetrics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That the machine is to be watched while a run lasts, and how.

    Attributes:
        interval: Seconds from one look to the next.
        samples: Looks that make one point of each metric, their mean.
        node: The machine's name within the metrics' names, where several machines log into one run.
    """

    interval: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 10.0
    samples: Annotated[int, msgspec.Meta(ge=1)] = 1
    node: str | None = None


class RunStarted(Record, frozen=True, kw_only=True, tag="run_started"):
    """The first record: who this run is and where it belongs.

    Attributes:
        format: Journal format number, which the writer sets; journals of format 1 don't say it.
        key: The run's own name for itself, made here; travels as the tag ``mlwrap.key``.
        name: The run's name in MLflow.
        time: Milliseconds since the epoch, UTC.
        tracking_uri: Absolute; where the run is to be delivered.
        experiment: Name of the experiment, or ``None`` for MLflow's default experiment.
        experiment_id: MLflow's id where that is what was given; goes before ``experiment``.
        parent_key: Key of the mlwrap run around this one.
        parent_run_id: MLflow's id of the run around this one, ours or not, where that is known.
        run_id: MLflow's id of a run that is there already, and is written on; ``None`` to make one.
        folder: Working folder of the training process, which relative store paths start from.
        offline: The user wants it to wait for ``mlwrap sync``.
        tags: Tags known at the start.
        thin_after: Points of one metric after which MLflow is told fewer of them; 0 for never, which is
            also what journals say that are older than this field.
        system_metrics: How the machine is watched; ``None`` for not at all.
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
"""JSON has no word for what is not finite, so the journal spells it."""


class Metrics(Record, frozen=True, kw_only=True, tag="metrics", gc=False):  # which holds no cycle
    """Some metrics of one step.

    Attributes:
        values: Name to value.
        step: The step that they belong to.
        time: Milliseconds since the epoch, UTC.
    """

    values: dict[str, Number]
    step: int
    time: int

    @classmethod
    def of(cls, values: dict[str, float], *, step: int, time: int) -> Metrics:
        """A record of these numbers; the ones that are not finite are spelled out in a copy."""
        if not all(map(math.isfinite, values.values())):
            return cls(values={k: _to_json_number(v) for k, v in values.items()}, step=step, time=time)
        return cls(values=values, step=step, time=time)  # type: ignore[arg-type] # floats are Numbers

    def numbers(self) -> dict[str, float]:
        """The values as floats, NaN and the infinities among them."""
        return {name: float(value) for name, value in self.values.items()}


def _to_json_number(value: float) -> Number:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


class StagedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a file of a stage was when it had been written.

    Attributes:
        size: Bytes.
        crc: CRC-32 of them; ``None`` until a record of :class:`Checksums` tells it.
        start: Where they begin in the file.
    """

    size: int
    crc: int | None = None
    start: int = 0


class Checksums(Record, frozen=True, kw_only=True, tag="checksums"):
    """The files of a stage that was too large to read while the training waited, with their checksums.

    Attributes:
        staged: The stage, as the record of its model or artifact names it.
        files: By their paths relative to the stage's folder.
    """

    staged: str
    files: dict[str, StagedFile]


class Artifact(Record, frozen=True, kw_only=True, tag="artifact"):
    """A file or folder of the run's own artifacts.

    Attributes:
        staged: What lies in the run folder, relative to it.
        path: The run-relative artifact path that it is to have.
        files: What is staged, by paths relative to the folder that ``staged`` is in; empty in journals that
            are older than this field.
    """

    staged: str
    path: str
    files: dict[str, StagedFile] = {}


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output of a model.

    Attributes:
        name: Its name, or ``None`` for a model with a single, unnamed one.
        dtype: numpy's name for its type (``"float32"``; ``"str"`` for text).
        shape: Sizes of the axes, -1 where any size goes; the batch axis first.
    """

    name: str | None = None
    dtype: str
    shape: tuple[int, ...]


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs and outputs of a model, in a form that needs neither MLflow nor TensorFlow.

    Attributes:
        inputs: The inputs.
        outputs: The outputs.
        columns: Of a frame that the only input is made of: their names; all are numbers.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    columns: tuple[str, ...] = ()


class Zip(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A zip file that delivery is to make of a folder.

    Attributes:
        folder: Path of the folder.
        around: Name of a file in it that has room for the zip file's header before its content, and becomes
            the zip file; ``""`` if there is none, and all is copied.
        start: Where the content of that file begins, in bytes.
        length: How long it is, in bytes.
    """

    folder: str
    around: str = ""
    start: int = 0
    length: int = 0


class Saved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a saver says of the files that it wrote: all that an ``MLmodel`` file needs.

    Attributes:
        flavors: MLflow's flavors to their configuration, for the loaders that stock MLflow has;
            paths in them are relative to the model's folder.
        pyfunc: Configuration of MLflow's generic flavor, with ``loader_module`` in it, or ``None``
            where MLflow has no loader.
        signature: Inputs and outputs, where the model tells them.
        details: What this saver's own ``load`` wants to know again.
        packages: Names of the distributions that loading needs (``tensorflow``, ``keras``).
        modules: Names of the modules to import before loading: they register the model's own classes.
        zips: Paths of zip files that delivery is to make, to what it makes them of.
        forms: What there is of the object, where it may be kept in several forms: ``"training"`` gives it
            back, ``"serving"`` predicts without its code, ``"weights"`` restores one that exists.
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
    """A model that was saved, or that could not be.

    Attributes:
        name: Its name in MLflow.
        staged: The folder that holds it, relative to the run folder; also its key within the run.
        time: Milliseconds since the epoch, UTC.
        step: The training step that it belongs to.
        saver: Name of the saver that wrote it.
        saver_format: Number of that saver's layout.
        saved: What the saver said of it; ``None`` if it failed.
        requirements: Pinned pip requirements.
        python: The training process's Python, as ``3.11.7``.
        error: Why it could not be saved, or ``None``.
        register_as: ``name`` or ``name@alias`` in MLflow's registry.
        verify: ``"load"`` if it is to be loaded once it is logged.
        metrics: Points of the run that tell how good it is.
        newest: The run's newest points when it was logged, where ``metrics`` says nothing.
        params: The run's first parameters, likewise.
        call: Which call logged it, counted in the run: what a function returned was logged by one.
        checkpoint: Whether it is a state on the way, which is never taken for the run's model.
        files: What is staged, by paths relative to ``staged``; empty in journals that are older than this
            field.
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
    metrics: Metrics | None = None
    newest: tuple[Metrics, ...] = ()
    params: dict[str, str] = {}
    call: int = 0
    checkpoint: bool = False
    files: dict[str, StagedFile] = {}

    @property
    def has_step(self) -> bool:
        """Whether its step tells it apart: of a returned model it is 0 and says nothing."""
        return self.checkpoint or self.step != 0


class RunEnded(Record, frozen=True, kw_only=True, tag="run_ended"):
    """The last record: how the run ended.

    Attributes:
        status: As MLflow spells it.
        time: Milliseconds since the epoch, UTC.
        error: Type and message of the exception that ended it, redacted.
        unwritten: How many of the training's numbers may have no record; ``None`` where nobody knows, for
            another process wrote the end.
    """

    status: Status
    time: int
    error: str | None = None
    unwritten: int | None = None


AnyRecord = RunStarted | Params | Tags | Metrics | Artifact | Model | Checksums | RunEnded


def now() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000
