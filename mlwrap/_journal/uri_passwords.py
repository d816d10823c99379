"""Keep passwords of tracking URIs in memory, pass them to the sender, and never write them to disk.

Everywhere but in MLflow's own client ``http://me:secret@host`` is ``http://me:***@host``. A process that
delivers another one's run takes the password from the environment, where MLflow looks for the URI itself.
"""

from __future__ import annotations

import os
import re

from mlwrap.errors import Refused

_HIDDEN = "***"
_VARIABLES = ("MLWRAP_TRACKING_URI", "MLFLOW_TRACKING_URI")
# Up to the last @ before a slash. A slash in a password should be escaped, but databases accept it unescaped.
_PASSWORD = re.compile(r"(?P<before>[\w+.-]+://[^:/@]*):(?P<password>[^/]+|[^@]+)@")

_full_uris: dict[str, str] = {}


def without_password(uri: str) -> str:
    """Replace the password in ``uri``, if it has one, by ``***``, and remember the original."""
    match = _PASSWORD.match(uri)
    if match is None or match["password"] == _HIDDEN:
        return uri
    masked = f"{match['before']}:{_HIDDEN}@{uri[match.end() :]}"
    _full_uris[masked] = uri
    return masked


def with_password(uri: str) -> str:
    """Return the URI that :func:`without_password` masked, in this process or another.

    Raises:
        Refused: The password is not known in this process.
    """
    if f":{_HIDDEN}@" not in uri:
        return uri
    for variable in _VARIABLES:
        without_password(os.environ.get(variable, ""))
    try:
        return _full_uris[uri]
    except KeyError:
        raise Refused(
            f"the password in the tracking URI {uri} is not known here, for it is never written down. "
            "Set MLFLOW_TRACKING_URI to the whole URI and run 'mlwrap sync'."
        ) from None


def mask_passwords(text: str) -> str:
    """Replace all known passwords in the URIs of ``text`` by ``***``."""
    for uri in _full_uris.values():
        if match := _PASSWORD.match(uri):
            text = text.replace(f":{match['password']}@", f":{_HIDDEN}@")
    return text
