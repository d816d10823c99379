"""Encode records as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from mlwrap._journal.records import AnyRecord


def _as_builtin(value: Any) -> Any:
    """Return the built-in equivalent of a ``str`` subclass or a number such as numpy's integers."""
    if isinstance(value, str):
        return str.__str__(value)
    return value.__index__() if hasattr(value, "__index__") else float(value)


encode = msgspec.json.Encoder(enc_hook=_as_builtin).encode
"""Encode a record or a number as JSON; raise ``UnicodeEncodeError`` for text that UTF-8 can't encode."""


def encode_record(record: AnyRecord) -> bytes:
    """Encode a record as JSON; escape in its texts what UTF-8 can't encode."""
    try:
        return encode(record)
    except UnicodeEncodeError:
        return encode(_writable(msgspec.to_builtins(record, enc_hook=_as_builtin)))


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return [_writable(item) for item in value] if isinstance(value, list | tuple) else value
