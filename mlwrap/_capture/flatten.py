"""Nested values to dotted names, leaves and at last the text that MLflow takes.

Nothing here raises for what a user's value does: where asking it fails, it is described instead.
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
_PARTS = 1_000
_MAX_VALUE_LENGTH = 6_000
_MAX_UNTRUSTED_LENGTH = 200
_MAX_TEXT_LENGTH = 1_000_000
_MARGIN = 10_000


class Captured(msgspec.Struct, frozen=True):
    """Parameters, ready for the journal.

    Attributes:
        values: Name to text, both within MLflow's limits.
        whole: For those cut or renamed: MLflow's name to own name and whole value, fit for JSON.
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
    """Parameters as MLflow takes them.

    Args:
        values: Own name to value.
        redactor: Takes the secrets out, and remembers those it meets; a fresh one if not given.
        secrets: Names of parameters that are secret whatever they are called.
        wanted: Says of a dotted own name whether it is to be recorded.
    """
    texts: dict[str, str] = {}
    whole: dict[str, tuple[str, Any]] = {}
    for own, leaf in flatten(values, redactor or Redactor(), secrets=secrets, wanted=wanted).items():
        name, text = to_mlflow_name(own), _to_text(leaf)
        if len(text) > _MAX_VALUE_LENGTH:
            text = _cut(text)
            whole[name] = (_storable(own), _jsonable(leaf))
        elif name != own:
            whole[name] = (_storable(own), _jsonable(leaf))
        texts[name] = text
    return Captured(texts, whole)


def flatten(
    values: Mapping[str, Any],
    redactor: Redactor,
    *,
    secrets: frozenset[str] = frozenset(),
    wanted: Callable[[str], bool] | None = None,
) -> dict[str, Leaf]:
    """Values to leaves under dotted own names, without secrets.

    Of a value at most 1,000 parts are taken, down to 8 levels; what is left out is counted under
    ``<name>.left_out``. Where two values come to the same dotted name the later one gets ``#2``.

    Args:
        values: Own name to value.
        redactor: Takes the secrets out, and remembers those it meets.
        secrets: Names of parameters that are secret whatever they are called.
        wanted: Says of a dotted own name whether it is to be recorded.
    """
    walk = _Walk(redactor, wanted)
    for name, value in values.items():
        walk.left = _PARTS
        walk.visit(name if type(name) is str else _key_text(name), value, secret=name in secrets)
    leaves: dict[str, Leaf] = {}
    for own, leaf in walk.found:  # only now are all the secrets known
        name = redactor.text(own)
        if name in leaves:
            name = next(f"{name}#{n}" for n in range(2, len(walk.found) + 2) if f"{name}#{n}" not in leaves)
        leaves[name] = _clean(leaf, redactor)
    return leaves


class _Walk:
    """One walk over a call's values, collecting leaves."""

    def __init__(self, redactor: Redactor, wanted: Callable[[str], bool] | None) -> None:
        self.found: list[tuple[str, Leaf]] = []
        self.left = 0
        self._redactor = redactor
        self._wanted = wanted
        self._around: dict[int, str] = {}  # the values that this one is part of, by identity

    def visit(self, name: str, value: object, *, secret: bool = False) -> None:
        """Record a value and what it consists of."""
        if secret or self._redactor.is_secret(name, value):
            self._hide(name, value)
        elif self._wanted is not None and not self._wanted(name):
            return
        elif type(value) in PLAIN:
            self.found.append((name, cast("Leaf", value)))
        elif hasattr(type(value), "get_secret_value"):  # pydantic's SecretStr and SecretBytes
            self._hide(name, value)
        elif id(value) in self._around:
            self._add(name, f"the same as {self._around[id(value)]}, which it is part of")
        else:
            self._follow(name, value)

    def _follow(self, name: str, value: object) -> None:
        try:
            part = examine(value)
        except Exception:  # noqa: BLE001  whatever a value's own code raises
            part = described(value)
        if not isinstance(part, Branch):
            self._add(name, self._redactor.arguments(part) if isinstance(part, list) else part)
        elif len(self._around) >= _MAX_DEPTH:
            self._add(name, described(value))
        else:
            self._around[id(value)] = name
            self._parts(name, value, part)
            del self._around[id(value)]

    def _parts(self, name: str, value: object, branch: Branch) -> None:
        before = len(self.found)
        if branch.head is not None:
            self._add(name, branch.head)
        seen = 0
        secrets = branch.secrets | self._secret_value(value)
        try:
            for key, part in branch.parts:
                if self.left <= 0:
                    self._left_out(name, None if branch.size is None else branch.size - seen)
                    return
                seen += 1
                self.left -= 1
                own = f"{name}.{_key_text(key)}"
                self.visit(own, part, secret=key in secrets)
        except Exception as error:  # noqa: BLE001  a property, or an iteration, of the user's
            self.found.append((f"{name}.left_out", f"not readable: {type(error).__name__}"))
        if len(self.found) == before and not seen:  # its length said otherwise
            self._add(name, described(value))

    def _secret_value(self, value: object) -> frozenset[str]:
        """Of ``{"name": "API_KEY", "value": …}``, the form of environments in containers, what is secret."""
        if type(value) is not dict or "value" not in value:
            return frozenset()
        name = value.get("name", value.get("key"))
        secret = type(name) is str and self._redactor.is_secret(name, value["value"])
        return frozenset({"value"} if secret else ())

    def _hide(self, name: str, value: object) -> None:
        with contextlib.suppress(Exception):  # whatever a value's own code raises
            self._redactor.remember(value)
        if self._wanted is None or self._wanted(name):
            self._add(name, None if value is None else REDACTED)

    def _left_out(self, name: str, count: int | None) -> None:
        self.found.append((f"{name}.left_out", f"{'more' if count is None else count} values"))

    def _add(self, name: str, leaf: Leaf) -> None:
        self.found.append((name, leaf))


def _key_text(key: object) -> str:
    """A mapping's key as part of a name."""
    if type(key) is str:
        return key
    try:
        leaf = examine(key)
    except Exception:  # noqa: BLE001  whatever a key's own code raises
        return described(key)
    return described(key) if isinstance(leaf, Branch) else _to_text(leaf)[:_MAX_UNTRUSTED_LENGTH]


def _clean(leaf: Leaf, redactor: Redactor) -> Leaf:
    """A leaf without secrets, and without what neither JSON nor a database takes."""
    if isinstance(leaf, list):
        return [_clean(item, redactor) for item in leaf]
    if not isinstance(leaf, str):
        return integer(leaf) if type(leaf) is int else leaf
    if len(leaf) > _MAX_TEXT_LENGTH + _MARGIN:
        # A secret that the first cut goes through lies in the margin, and goes with it.
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
    """A leaf as MLflow's text: as ``str`` has it, and a list as JSON."""
    return json.dumps(leaf, ensure_ascii=False) if isinstance(leaf, list) else str(leaf)


def _cut(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    note = f"…[{len(text)} chars, sha256:{digest}]"
    return text[: _MAX_VALUE_LENGTH - len(note)] + note


def _jsonable(leaf: Leaf) -> Any:
    """A leaf as JSON has words for it: not for NaN, infinities and integers above 64 bits."""
    if isinstance(leaf, list):
        return [_jsonable(item) for item in leaf]
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(leaf)]
    if type(leaf) is int and not -(2**63) <= leaf < 2**64:
        return str(leaf)
    return leaf
