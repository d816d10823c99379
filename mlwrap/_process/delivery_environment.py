"""What of this process decides how its runs are delivered: one sender serves all processes where it is equal.

That is the interpreter with its module search path, the machine or container, and the environment variables
that MLflow and its clients read: credentials, certificates, proxies. Only a digest leaves the process.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from functools import lru_cache
from pathlib import Path

from mlwrap._process.mlflow_settings import current_directory

_VARIABLES = re.compile(
    r"MLFLOW_|AWS_|AZURE_|GOOGLE_|DATABRICKS_|BOTO|S3_|PG|MYSQL|KRB5|HOME$|USER$|SSH_AUTH_SOCK$|"
    r".*(?:PROXY|TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|AUTH|CERT|CA_BUNDLE)",
    re.IGNORECASE,
)
# A run folder names these itself; a password in the URI goes to the sender with the run.
_OF_THE_RUN = {"MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"}
_PACKAGE_ROOT = str(Path(__file__).parents[2])
_NAMESPACES = ("mnt", "net", "pid", "user")


def delivery_digest() -> str:
    """Return a digest of all that decides how a run of this process is delivered; each run asks for it."""
    return _digest(tuple((name, value) for name, value in os.environ.items() if _decides(name)))


@lru_cache(maxsize=4096)
def _decides(variable: str) -> bool:
    return _VARIABLES.match(variable) is not None and variable not in _OF_THE_RUN


@lru_cache(maxsize=64)
def _digest(variables: tuple[tuple[str, str], ...]) -> str:
    version = getattr(sys.modules["mlwrap"], "__version__", None)
    parts = _machine(), sys.executable, _PACKAGE_ROOT, version, sender_search_path(), sorted(variables)
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


@lru_cache(maxsize=1)
def _machine() -> tuple[str, int, list[str]]:
    """Return what the processes have in common that can reach each other: host, user, namespaces."""
    namespaces = []
    for name in _NAMESPACES:
        try:
            namespaces.append(str(Path(f"/proc/self/ns/{name}").readlink()))
        except OSError:  # not Linux
            break
    return socket.gethostname(), os.getuid(), namespaces


def search_path() -> list[str]:
    """Return the module search path in a form that holds in any working directory."""
    return [str(current_directory() / entry) for entry in sys.path]


@lru_cache(maxsize=1)
def sender_search_path() -> list[str]:
    """Return the module search path for a sender: without the folder of the script and the working directory.

    Runs of scripts in several folders can share a sender then. It is that of the first call, so that a
    training which changes its search path or its folder keeps its sender.
    """
    script = sys.argv[0] if sys.argv else ""
    folders = {str(current_directory()), str((current_directory() / script).parent)} - {_PACKAGE_ROOT}
    return [entry for entry in search_path() if entry not in folders]
