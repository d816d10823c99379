"""Passwords in tracking URIs: kept in memory, handed to the sender, and never written down.

Everywhere but in MLflow's own client ``http://me:secret@host`` is ``http://me:***@host``. Who delivers what
another process has left finds the password in the environment, where MLflow looks for the URI itself.
"""

from __future__ import annotations

import os
import re

from mlwrap.errors import Refused

_HIDDEN = "***"
_VARIABLES = ("MLWRAP_TRACKING_URI", "MLFLOW_TRACKING_URI")
# Up to the last @ before a slash; a slash in a password should be escaped, and databases take it as it is.
_PASSWORD = re.compile(r"(?P<before>[\w+.-]+://[^:/@]*):(?P<password>[^/]+|[^@]+)@")

_whole: dict[str, str] = {}


def without_password(uri: str) -> str:
    """``uri`` with its password, if it has one, replaced by ``***``, and kept in mind."""
    found = _PASSWORD.match(uri)
    if found is None or found["password"] == _HIDDEN:
        return uri
    shown = f"{found['before']}:{_HIDDEN}@{uri[found.end() :]}"
    _whole[shown] = uri
    return shown


def with_password(uri: str) -> str:
    """The URI behind one that :func:`without_password` gave, in this process or another.

    Raises:
        Refused: Its password is not known here.
    """
    if f":{_HIDDEN}@" not in uri:
        return uri
    for variable in _VARIABLES:
        without_password(os.environ.get(variable, ""))
    try:
        return _whole[uri]
    except KeyError:
        raise Refused(
            f"the password in the tracking URI {uri} is not known here, for it is never written down. "
            "Set MLFLOW_TRACKING_URI to the whole URI and run 'mlwrap sync'."
        ) from None


def mask_passwords(text: str) -> str:
    """``text`` with the passwords that are known left out of the URIs in it."""
    for uri in _whole.values():
        if found := _PASSWORD.match(uri):
            text = text.replace(f":{found['password']}@", f":{_HIDDEN}@")
    return text
