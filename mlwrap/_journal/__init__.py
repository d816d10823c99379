"""What is written down?

The journal is where the two halves of mlwrap meet, and nowhere else: the training half appends
records to a run folder, delivery reads them. This room may import ``mlwrap.errors`` and
``mlwrap.config``, msgspec, platformdirs and filelock, and numpy where arrays are written down. It never
imports MLflow, TensorFlow or Keras, and never knows what a record is about.
"""

from mlwrap._journal.artifact_path import artifact_path
from mlwrap._journal.copies import copy_regular
from mlwrap._journal.delivered import find_delivered, note_delivered
from mlwrap._journal.descriptors import above_standard_descriptors
from mlwrap._journal.example import Example
from mlwrap._journal.open_run import OpenRun, open_run
from mlwrap._journal.ownership import ForeignFolder, make_private
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
    now,
)
from mlwrap._journal.registered import Registered
from mlwrap._journal.run_folder import RunFolder
from mlwrap._journal.run_models import models_of_run
from mlwrap._journal.sender_protocol import ASK, WAKE, Hello, Told
from mlwrap._journal.sockets import connect_socket, is_own_peer, listen_at, short_path
from mlwrap._journal.spool import (
    foreign_folders,
    is_key,
    run_folders,
    spool_root,
    spool_roots,
    sweep,
    vain_root,
)
from mlwrap._journal.staged_files import (
    LARGE,
    Damaged,
    check_content,
    check_staged,
    damaged,
    staged_files,
    total_size,
    with_checksums,
)
from mlwrap._journal.sweeps import POINT, SWEEP, Point, last_values, waiting_points
from mlwrap._journal.writer import KEPT, LOST, Writer

__all__ = [
    "ASK",
    "FORMAT",
    "KEPT",
    "LARGE",
    "LOST",
    "POINT",
    "SWEEP",
    "WAKE",
    "AnyRecord",
    "Artifact",
    "Checksums",
    "Damaged",
    "Entry",
    "Example",
    "Failing",
    "ForeignFolder",
    "Hello",
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
    "Told",
    "Writer",
    "Zip",
    "above_standard_descriptors",
    "artifact_path",
    "check_content",
    "check_staged",
    "connect_socket",
    "copy_regular",
    "damaged",
    "find_delivered",
    "foreign_folders",
    "header",
    "is_key",
    "is_own_peer",
    "last_values",
    "listen_at",
    "make_private",
    "models_of_run",
    "note_delivered",
    "now",
    "open_run",
    "read",
    "run_folders",
    "short_path",
    "spool_root",
    "spool_roots",
    "staged_files",
    "sweep",
    "total_size",
    "vain_root",
    "waiting_points",
    "with_checksums",
]
