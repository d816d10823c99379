"""Secrets out, by name, by the shape of the text, and by a value once known to be secret.

Everything that leaves the training process as text goes through a :class:`Redactor` first: before it
is cut, before a digest is made of it, before it reaches the journal.
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

_TELLS_NOTHING = frozenset({type(None), bool})
_NUMBERS = frozenset({int, float})
_SIZED = frozenset({str, bytes, list, tuple, dict, set, frozenset})
_SEVERAL = (list, tuple, set, frozenset)
_USERS = ("-u", "-U", "--user", "--proxy-user")
_OPTION = re.compile(r"--?(?P<name>[A-Za-z][\w.-]*)")

_MIN_LENGTH = 6  # a shorter remembered value would take too many innocent words with it
_MAX_TEXTS = 100  # texts; more are a vocabulary, and no secrets to be looked for in other texts
_MAX_NUMBER_BITS = 1024  # bits; a longer one is no pin code
_MAX_DEPTH = 8


class Secret:
    """Marks a parameter as secret: ``api: Annotated[str, Secret]``.

    Its value is recorded as ``[redacted]``, and taken out of every other text of the run.
    """


class Redactor:
    """Takes secrets out of what one run records."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._literal: re.Pattern[str] | None = None

    def is_secret(self, name: str, value: object) -> bool:
        """Whether a parameter of this name and value is to be recorded as ``[redacted]``."""
        kind = kind_of_name(name)
        cls = type(value)  # not isinstance, which asks the value's own code
        if not kind or cls in _TELLS_NOTHING or (cls in _SIZED and not value):
            return False
        if kind == "key":
            texts = islice(value, _MAX_TEXTS) if cls in _SEVERAL else (value,)  # type: ignore[call-overload] # sized
            return any(type(text) is str and is_random(text) for text in texts)
        return kind == "strong" or not _is_number(value)

    def remember(self, value: object) -> None:
        """From now on take this value out of every text; of a container, each of up to 100 texts in it."""
        texts = list(islice(_texts(value, 0), _MAX_TEXTS + 1))
        found = {form for text in texts for form in _forms(text)} if len(texts) <= _MAX_TEXTS else set()
        if not found <= self._known:
            self._known |= found
            longest_first = sorted(self._known, key=len, reverse=True)
            self._literal = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """The text without the secrets in it; of any length, so that it comes before cutting."""
        if self._literal is not None:
            text = self._literal.sub(REDACTED, text)
        return without_named(without_shapes(text))

    def value(self, name: str, value: Any) -> Any:
        """What may be recorded of a parameter: its value, its text without secrets, or ``[redacted]``."""
        if self.is_secret(name, value):
            self.remember(value)
            return REDACTED
        return self.text(value) if isinstance(value, str) else value

    def arguments(self, items: Sequence[Any]) -> list[Any]:
        """The items of a command line, or of a list that may be one or a pair of name and value.

        The value of an option can stand behind an ``=`` or be the next item.
        """
        shown: list[Any] = []
        name = items[0] if len(items) == 2 and type(items[0]) is str else ""  # noqa: PLR2004 - a pair
        for item in items:
            text = item if isinstance(item, str) else ""
            if shown and name and self.is_secret(name, 0 if is_number(text) else item):
                self.remember(item)
                shown.append(REDACTED)
            elif shown and text and shown[-1] in _USERS:  # and a password: "-u", "user:pw"
                shown.append(without_shapes(f"-u {text}").removeprefix("-u "))
            else:
                shown.append(item)
            option = _OPTION.fullmatch(text)
            name = option["name"] if option else name if len(shown) == 1 else ""
        return shown


def _is_number(value: object) -> bool:
    """Whether a value is a number or holds nothing else, and so no text either."""
    cls = type(value)
    if cls in _NUMBERS or (hasattr(cls, "shape") and hasattr(cls, "dtype")):  # recorded by shape
        return True
    return cls in _SEVERAL and all(type(item) in _NUMBERS for item in value)  # type: ignore[attr-defined] # sized


def _texts(value: Any, depth: int) -> Iterable[str]:
    """The texts in a secret value, looking into plain containers only."""
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
    """How a secret can appear in other texts: as it is, quoted by Python or JSON, in an address."""
    text = text.strip()
    if len(text) < _MIN_LENGTH:
        return set()
    return {text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text.encode("utf-8", "replace"), safe="")}
