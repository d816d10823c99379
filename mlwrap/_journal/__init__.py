"""What is written down?

The journal is where the two halves of mlwrap meet, and nowhere else: the training half appends
records to a run folder, delivery reads them. This room may import ``mlwrap.errors`` and
``mlwrap.config``, msgspec, platformdirs and filelock, and numpy where arrays are written down. It never
imports MLflow, TensorFlow or Keras, and never knows what a record is about.
"""

from mlwrap._journal.copies import copy_regular
from mlwrap._journal.descriptors import above_standard_descriptors
from mlwrap._journal.example import Example
from mlwrap._journal.open_run import OpenRun, open_run
from mlwrap._journal.progress import Failing, ModelProgress, Progress, Seen
from mlwrap._journal.reader import Entry, header, read
from mlwrap._journal.records import (
    FORMAT,
    AnyRecord,
    Artifact,
    Checksums,
    Metrics,
    Model,
    Number,
    Params,
    RunEnded,
    RunStarted,
    Saved,
    Signature,
    StagedFile,
    Status,
    SystemMetrics,
    Tags,
    TensorSpec,
    Zip,
    artifact_path,
    now,
)
from mlwrap._journal.registered import Registered
from mlwrap._journal.spool import RunFolder, run_folders, spool_root, sweep, vain_root
from mlwrap._journal.staged_files import LARGE, staged_files, total_size, with_checksums
from mlwrap._journal.sweeps import POINT, SWEEP, Point, last_values, waiting_points
from mlwrap._journal.writer import KEPT, LOST, Writer

__all__ = [
    "FORMAT",
    "KEPT",
    "LARGE",
    "LOST",
    "POINT",
    "SWEEP",
    "AnyRecord",
    "Artifact",
    "Checksums",
    "Entry",
    "Example",
    "Failing",
    "Metrics",
    "Model",
    "ModelProgress",
    "Number",
    "OpenRun",
    "Params",
    "Point",
    "Progress",
    "Registered",
    "RunEnded",
    "RunFolder",
    "RunStarted",
    "Saved",
    "Seen",
    "Signature",
    "StagedFile",
    "Status",
    "SystemMetrics",
    "Tags",
    "TensorSpec",
    "Writer",
    "Zip",
    "above_standard_descriptors",
    "artifact_path",
    "copy_regular",
    "header",
    "last_values",
    "now",
    "open_run",
    "read",
    "run_folders",
    "spool_root",
    "staged_files",
    "sweep",
    "total_size",
    "vain_root",
    "waiting_points",
    "with_checksums",
]
