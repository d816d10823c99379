"""Redact secrets by name, by the shape of a text, and by values that are known to be secret.

Each text that leaves the training process passes through a :class:`Redactor` first: before it is cut,
hashed or written to the journal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote

from mlwrap._capture.secret_names import is_random, kind_of_name
from mlwrap._capture.secret_shapes import REDACTED, without_shapes
from mlwrap._capture.secret_texts import is_number, without_named

__all__ = ["REDACTED", "Redactor", "Secret"]

_NEVER_SECRET = frozenset({type(None), bool})
_NUMBERS = frozenset({int, float})
_SIZED = frozenset({str, bytes, list, tuple, dict, set, frozenset})
_COLLECTIONS = (list, tuple, set, frozenset)
_USER_OPTIONS = ("-u", "-U", "--user", "--proxy-user")
_OPTION = re.compile(r"--?(?P<name>[A-Za-z][\w.-]*)")

_MIN_LENGTH = 6  # characters; shorter remembered values would redact too many harmless words
_MAX_TEXTS = 100  # a container with more texts is a vocabulary, not secrets to search for in other texts
_MAX_NUMBER_BITS = 1024  # a longer number is not a PIN code
_MAX_DEPTH = 8


class Secret:
    """Mark a parameter as secret: ``api: Annotated[str, Secret]``.

    mlwrap records the value as ``[redacted]``, and removes it from every other text of the run.
    """


class Redactor:
    """Remove secrets from the records of one run."""

    def __init__(self) -> None:
        self._secret_forms: set[str] = set()
        self._secret_pattern: re.Pattern[str] | None = None

    def is_secret(self, name: str, value: object) -> bool:
        """Return whether to record a parameter of this name and value as ``[redacted]``."""
        kind = kind_of_name(name)
        cls = type(value)  # not isinstance, which can run the value's own code
        if not kind or cls in _NEVER_SECRET or (cls in _SIZED and not value):
            return False
        if kind == "key":
            texts = islice(value, _MAX_TEXTS) if cls in _COLLECTIONS else (value,)  # type: ignore[call-overload] # sized
            return any(type(text) is str and is_random(text) for text in texts)
        return kind == "strong" or not _is_number(value)

    def remember(self, value: object) -> None:
        """Remove this value from every text from now on; for a container, each of up to 100 texts in it."""
        texts = list(islice(_texts(value, 0), _MAX_TEXTS + 1))
        forms = {form for text in texts for form in _forms(text)} if len(texts) <= _MAX_TEXTS else set()
        if not forms <= self._secret_forms:
            self._secret_forms |= forms
            longest_first = sorted(self._secret_forms, key=len, reverse=True)
            self._secret_pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """Return the text with its secrets redacted; call it before cutting, with a text of any length."""
        if self._secret_pattern is not None:
            text = self._secret_pattern.sub(REDACTED, text)
        return without_named(without_shapes(text))

    def value(self, name: str, value: Any) -> Any:
        """Return a parameter's recordable form: its value, its text without secrets, or ``[redacted]``."""
        if self.is_secret(name, value):
            self.remember(value)
            return REDACTED
        return self.text(value) if isinstance(value, str) else value

    def arguments(self, items: Sequence[Any]) -> list[Any]:
        """Redact the items of a command line, or of a list that may be one or a pair of name and value.

        The value of an option can follow an ``=`` or be the next item.
        """
        redacted: list[Any] = []
        name = items[0] if len(items) == 2 and type(items[0]) is str else ""  # noqa: PLR2004 - a pair
        for item in items:
            text = item if isinstance(item, str) else ""
            if redacted and name and self.is_secret(name, 0 if is_number(text) else item):
                self.remember(item)
                redacted.append(REDACTED)
            elif redacted and text and redacted[-1] in _USER_OPTIONS:  # user and password: "-u", "user:pw"
                redacted.append(without_shapes(f"-u {text}").removeprefix("-u "))
            else:
                redacted.append(item)
            option = _OPTION.fullmatch(text)
            name = option["name"] if option else name if len(redacted) == 1 else ""
        return redacted


def _is_number(value: object) -> bool:
    """Return whether a value is a number or contains only numbers."""
    cls = type(value)
    if cls in _NUMBERS or (hasattr(cls, "shape") and hasattr(cls, "dtype")):  # recorded by shape
        return True
    return cls in _COLLECTIONS and all(type(item) in _NUMBERS for item in value)  # type: ignore[attr-defined] # sized


def _texts(value: Any, depth: int) -> Iterable[str]:
    """Yield the texts in a secret value, searching only plain containers."""
    if isinstance(value, str):
        yield str.__str__(value)
    elif isinstance(value, (bytes, bytearray)):
        yield bytes(value).decode("utf-8", "replace")
    elif isinstance(value, int) and value.bit_length() < _MAX_NUMBER_BITS:
        yield int.__repr__(value)
    elif depth < _MAX_DEPTH and isinstance(value, (Mapping, list, tuple, set, frozenset)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item, depth + 1)
    elif hasattr(type(value), "get_secret_value"):  # pydantic's SecretStr and SecretBytes
        yield from _texts(value.get_secret_value(), depth + 1)


def _forms(text: str) -> set[str]:
    """Return the forms of a secret in other texts: unchanged, quoted by Python or JSON, or URL-encoded."""
    text = text.strip()
    if len(text) < _MIN_LENGTH:
        return set()
    return {text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text.encode("utf-8", "replace"), safe="")}
