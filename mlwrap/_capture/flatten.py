"""Flatten nested values to dotted names and leaves, and convert the leaves to text for MLflow.

No function raises because of a user's value: if examining the value fails, it is described instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from mlwrap._capture.describe import Branch, examine
from mlwrap._capture.mlflow_names import to_mlflow_name
from mlwrap._capture.redact import Redactor
from mlwrap._capture.secret_shapes import REDACTED
from mlwrap._capture.values import PLAIN, Foreign, Leaf, described, integer

__all__ = ["Captured", "flatten", "params"]

_MAX_DEPTH = 8
_MAX_PARTS = 1_000
_MAX_VALUE_LENGTH = 6_000
_MAX_UNTRUSTED_LENGTH = 200
_MAX_TEXT_LENGTH = 1_000_000
_MARGIN = 10_000


class Captured(msgspec.Struct, frozen=True):
    """Parameters in the form that the journal stores.

    Attributes:
        values: Name to text, both within MLflow's limits.
        full_values: For parameters that were cut or renamed: MLflow's name to original name and full value,
            in a form that JSON can express.
    """

    values: dict[str, str]
    full_values: dict[str, tuple[str, Any]] = {}


def params(
    values: Mapping[str, Any],
    *,
    redactor: Redactor | None = None,
    secrets: frozenset[str] = frozenset(),
    wanted: Callable[[str], bool] | None = None,
) -> Captured:
    """Return parameters in the form that MLflow accepts.

    Args:
        values: Original name to value.
        redactor: Removes secrets, and remembers those that it finds; by default a new one.
        secrets: Names of parameters that are always secret.
        wanted: Returns whether to record a dotted original name; by default all are recorded.
    """
    texts: dict[str, str] = {}
    full_values: dict[str, tuple[str, Any]] = {}
    for original, leaf in flatten(values, redactor or Redactor(), secrets=secrets, wanted=wanted).items():
        name, text = to_mlflow_name(original), _to_text(leaf)
        if len(text) > _MAX_VALUE_LENGTH:
            text = _cut(text)
            full_values[name] = (_storable(original), _jsonable(leaf))
        elif name != original:
            full_values[name] = (_storable(original), _jsonable(leaf))
        texts[name] = text
    return Captured(texts, full_values)


def flatten(
    values: Mapping[str, Any],
    redactor: Redactor,
    *,
    secrets: frozenset[str] = frozenset(),
    wanted: Callable[[str], bool] | None = None,
) -> dict[str, Leaf]:
    """Return the leaves of values under dotted original names, without secrets.

    At most 1,000 parts of a value are recorded, down to 8 levels; the count of the rest is under
    ``<name>.left_out``. If two values have the same dotted name, the later one gets the suffix ``#2``.

    Args:
        values: Original name to value.
        redactor: Removes secrets, and remembers those that it finds.
        secrets: Names of parameters that are always secret.
        wanted: Returns whether to record a dotted original name; by default all are recorded.
    """
    walk = _Walk(redactor, wanted)
    for name, value in values.items():
        walk.remaining_parts = _MAX_PARTS
        walk.visit(name if type(name) is str else _key_text(name), value, secret=name in secrets)
    leaves: dict[str, Leaf] = {}
    for original, leaf in walk.leaves:  # after the walk, when all secrets are known
        name = redactor.text(original)
        if name in leaves:
            name = next(f"{name}#{n}" for n in range(2, len(walk.leaves) + 2) if f"{name}#{n}" not in leaves)
        leaves[name] = _clean(leaf, redactor)
    return leaves


class _Walk:
    """One walk over a call's values, collecting leaves."""

    def __init__(self, redactor: Redactor, wanted: Callable[[str], bool] | None) -> None:
        self.leaves: list[tuple[str, Leaf]] = []
        self.remaining_parts = 0
        self._redactor = redactor
        self._wanted = wanted
        self._containers: dict[int, str] = {}  # names of the values that contain the current one, by identity

    def visit(self, name: str, value: object, *, secret: bool = False) -> None:
        """Record a value and its parts."""
        if secret or self._redactor.is_secret(name, value):
            self._add_redacted(name, value)
        elif self._wanted is not None and not self._wanted(name):
            return
        elif type(value) in PLAIN:
            self.leaves.append((name, cast("Leaf", value)))
        elif hasattr(type(value), "get_secret_value"):  # pydantic's SecretStr and SecretBytes
            self._add_redacted(name, value)
        elif id(value) in self._containers:
            self._add(name, f"the same as {self._containers[id(value)]}, which it is part of")
        else:
            self._record(name, value)

    def _record(self, name: str, value: object) -> None:
        try:
            part = examine(value)
        except Exception:  # noqa: BLE001  a value's own code can raise anything
            part = described(value)
        if not isinstance(part, Branch):
            self._add(name, self._redactor.arguments(part) if isinstance(part, list) else part)
        elif len(self._containers) >= _MAX_DEPTH:
            self._add(name, described(value))
        else:
            self._containers[id(value)] = name
            self._record_parts(name, value, part)
            del self._containers[id(value)]

    def _record_parts(self, name: str, value: object, branch: Branch) -> None:
        before = len(self.leaves)
        if branch.head is not None:
            self._add(name, branch.head)
        seen = 0
        secrets = branch.secrets | self._secret_parts(value)
        try:
            for key, part in branch.parts:
                if self.remaining_parts <= 0:
                    self._add_left_out(name, None if branch.size is None else branch.size - seen)
                    return
                seen += 1
                self.remaining_parts -= 1
                part_name = f"{name}.{_key_text(key)}"
                self.visit(part_name, part, secret=key in secrets)
        except Exception as error:  # noqa: BLE001  the user's properties and iterators can raise anything
            self.leaves.append((f"{name}.left_out", f"not readable: {type(error).__name__}"))
        if len(self.leaves) == before and not seen:  # its length was wrong: it has no parts
            self._add(name, described(value))

    def _secret_parts(self, value: object) -> frozenset[str]:
        """Return ``{"value"}`` for ``{"name": "API_KEY", "value": …}``, as in container environments."""
        if type(value) is not dict or "value" not in value:
            return frozenset()
        name = value.get("name", value.get("key"))
        secret = type(name) is str and self._redactor.is_secret(name, value["value"])
        return frozenset({"value"} if secret else ())

    def _add_redacted(self, name: str, value: object) -> None:
        with contextlib.suppress(Exception):  # a value's own code can raise anything
            self._redactor.remember(value)
        if self._wanted is None or self._wanted(name):
            self._add(name, None if value is None else REDACTED)

    def _add_left_out(self, name: str, count: int | None) -> None:
        self.leaves.append((f"{name}.left_out", f"{'more' if count is None else count} values"))

    def _add(self, name: str, leaf: Leaf) -> None:
        self.leaves.append((name, leaf))


def _key_text(key: object) -> str:
    """Return a mapping's key as a text for a dotted name."""
    if type(key) is str:
        return key
    try:
        leaf = examine(key)
    except Exception:  # noqa: BLE001  a key's own code can raise anything
        return described(key)
    return described(key) if isinstance(leaf, Branch) else _to_text(leaf)[:_MAX_UNTRUSTED_LENGTH]


def _clean(leaf: Leaf, redactor: Redactor) -> Leaf:
    """Return a leaf without secrets, and without characters that JSON or databases refuse."""
    if isinstance(leaf, list):
        return [_clean(item, redactor) for item in leaf]
    if not isinstance(leaf, str):
        return integer(leaf) if type(leaf) is int else leaf
    if len(leaf) > _MAX_TEXT_LENGTH + _MARGIN:
        # A secret that is split by the first cut is in the margin, which the second cut removes.
        text = redactor.text(leaf[: _MAX_TEXT_LENGTH + _MARGIN])[:-_MARGIN]
        return _storable(f"{text}…[{len(leaf)} chars]")
    text = redactor.text(str.__str__(leaf))
    if isinstance(leaf, Foreign) and len(text) > _MAX_UNTRUSTED_LENGTH:
        text = text[: _MAX_UNTRUSTED_LENGTH - 1] + "…"
    return _storable(text)


def _storable(text: str) -> str:
    if "\0" not in text and text.isascii():
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _to_text(leaf: Leaf) -> str:
    """Return a leaf as text for MLflow: a list as JSON, anything else by ``str``."""
    return json.dumps(leaf, ensure_ascii=False) if isinstance(leaf, list) else str(leaf)


def _cut(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    note = f"…[{len(text)} chars, sha256:{digest}]"
    return text[: _MAX_VALUE_LENGTH - len(note)] + note


def _jsonable(leaf: Leaf) -> Any:
    """Return a leaf that JSON can express; NaN, infinities and integers above 64 bits become texts."""
    if isinstance(leaf, list):
        return [_jsonable(item) for item in leaf]
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(leaf)]
    if type(leaf) is int and not -(2**63) <= leaf < 2**64:
        return str(leaf)
    return leaf
