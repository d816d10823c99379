"""What went in, and where did it run?

May import: ``mlwrap.errors``, ``mlwrap.config`` and the standard library, msgspec and psutil.

Never imports a framework (it looks at the names of types, and at ``sys.modules``), never writes anything,
never runs, iterates or copies a model or data, and never raises for what a user's value does.
"""

from __future__ import annotations

from mlwrap._capture.arguments import Arguments
from mlwrap._capture.artifact_names import ArtifactNames, storable_name
from mlwrap._capture.flatten import Captured, flatten, params
from mlwrap._capture.names import rename, unrename
from mlwrap._capture.provenance import code, pins, provenance
from mlwrap._capture.redact import REDACTED, Redactor, Secret
from mlwrap._capture.target import Destination, destination, take_run_id, working_folder
from mlwrap._capture.workers import Role, role

__all__ = [
    "REDACTED",
    "Arguments",
    "ArtifactNames",
    "Captured",
    "Destination",
    "Redactor",
    "Role",
    "Secret",
    "code",
    "destination",
    "flatten",
    "params",
    "pins",
    "provenance",
    "rename",
    "role",
    "storable_name",
    "take_run_id",
    "unrename",
    "working_folder",
]
