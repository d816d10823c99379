"""Redact values in a text that follow the name of a secret.

The forms are ``password=…`` and others of programs, settings, command lines, headers and error messages:
``"a": "b"``, ``a => b``, ``a["b"] = "c"``, ``<a>b</a>``, ``a("b")``, ``PASSWORD 'b'``, ``"b" == a``,
``--a b``, ``['--a', 'b']``. :mod:`mlwrap._capture.secret_names` classifies the names.
"""

from __future__ import annotations

import re

from mlwrap._capture.secret_names import SecretKind, is_random, kind_of_name
from mlwrap._capture.secret_shapes import REDACTED

__all__ = ["is_number", "without_named"]

_SIGN = re.compile(r"[=!:](?:(?<=!)==?|(?<!!)(?:[=:>]=?)?)\s{0,4}")
# Without a sign, only after the name of a strong secret: a quoted text, an XML element, a long key.
_NO_SIGN = re.compile(r"[(>\s]\s{0,3}(?:(?=[\"'])|(?<=>)(?=[^\s<>=])|(?P<bare>(?=[\w+/=-]{20})))")
# The text before the sign, read backwards: closing brackets and quotes, and up to three words.
_NAME_BACKWARDS = re.compile(
    r"\s{0,4}[\])\"'\\]{0,4}(?:\d{0,8}\[)?(?P<name>[\w.\u0300-\u036f-]{1,80}(?: [\w.-]{1,40}){0,2})"
)
_MAX_NAME_LENGTH = 200
_MAX_KEY_LENGTH = 600
_VALUE = re.compile(
    r"\[redacted\]"
    r"|\\?[A-Za-z@]{0,2}(?:\"[^\"\n]*\"|'[^'\n]*')"
    r"|[A-Za-z]{0,9}\[[^\[\]\n]{0,4096}\]?|\([^()\n]{0,4096}\)?|\{[^{}\n]{0,4096}\}?"
    r"|\\?[\"'@]{0,2}(?:(?:bearer|basic|token|apikey|digest|negotiate)\s+)?(?:\[redacted\]|[^\s,;&\"')\]}<])+",
    re.IGNORECASE,
)
# For cookies and authorization everything up to the end of the line.
_HEADER = re.compile(r"(?!\[redacted\])[^\n\"']+")
_HEADERS = re.compile(r"(?:^|[\s-])(?:authorization|(?:set-)?cookie)\Z", re.IGNORECASE)
_OPTION = re.compile(r"-(?<![\w-]-)-?(?P<name>[A-Za-z][\w.-]{0,80})(?P<gap>\s{1,4}|[\"'],\s{0,4})(?=[^\s-])")
_COMPARED = re.compile(
    r"(?:\"[^\"\n]{1,256}\"|'[^'\n]{1,256}')(?P<sign>\s{0,4}[=!]==?\s{0,4}(?P<name>[\w.-]{1,80}))"
)
_NUMBER = re.compile(
    r"[\"']?[-+]?[\d.]+(?:[eE][-+]?\d+)?[\"']?|None|True|False|none|null|true|false|[\"']{2}"
    r"|[\[({][-+\d.eE,\s]*[\])}]?"
)


def is_number(text: str) -> bool:
    """Return whether a text is a number, a list of numbers, a boolean, a null value or empty quotes."""
    return _NUMBER.fullmatch(text) is not None


def without_named(text: str) -> str:
    """Replace each value under the name of a secret in the text by ``[redacted]``."""
    if "==" in text or "!=" in text:
        text = _COMPARED.sub(_without_compared, text)
    if "=" in text or ":" in text:
        text = _without(_SIGN, text)
    text = _without(_NO_SIGN, text)
    return _without_options(text) if "-" in text else text


def _without_compared(match: re.Match[str]) -> str:
    return f"{REDACTED}{match['sign']}" if kind_of_name(match["name"]) == "strong" else match[0]


def _without(sign_of: re.Pattern[str], text: str) -> str:
    """Redact assigned values one at a time, since an assignment can be part of another one's value."""
    no_sign = sign_of is _NO_SIGN
    pieces: list[str] = []
    copied = position = 0
    while sign := sign_of.search(text, position):
        position = sign.end()
        name, kind = _name_before(text, sign.start())
        if not kind or (no_sign and kind != "strong"):
            continue
        header = sign[0].startswith(":") and _HEADERS.search(name) and _HEADER.match(text, position)
        value = header or _VALUE.match(
            text, position, position + _MAX_KEY_LENGTH if kind == "key" else len(text)
        )
        bare = no_sign and sign["bare"] is not None
        if value is None or not _is_secret(kind, value[0], bare=bare):
            continue
        pieces += text[copied:position], REDACTED
        copied = position = value.end()
    return "".join([*pieces, text[copied:]])


def _without_options(text: str) -> str:
    """Redact the argument after an option: ``--password x``."""
    pieces: list[str] = []
    copied = position = 0
    while option := _OPTION.search(text, position):
        position = option.end()
        kind = kind_of_name(option["name"])
        value = _VALUE.match(text, position) if kind else None
        if value is None or not _is_secret(kind, value[0]):
            continue
        pieces += text[copied:position], REDACTED
        copied = position = value.end()
    return "".join([*pieces, text[copied:]])


def _name_before(text: str, end: int) -> tuple[str, SecretKind]:
    """Return the name before a sign, and its kind."""
    match = _NAME_BACKWARDS.match(text[max(0, end - _MAX_NAME_LENGTH) : end][::-1])
    if match is None:
        return "", ""
    name = match["name"][::-1]
    kind = kind_of_name(name.rpartition(" ")[2])
    words = name.split(" ")
    for start in range(len(words) - 1) if kind != "strong" else ():
        # "API key: …" is one name; in "password of user: …" only the last word counts.
        phrase_kind = kind_of_name(" ".join(words[start:]))
        if phrase_kind == "strong" and kind_of_name(" ".join(words[start:-1])) != "strong":
            return name, "strong"
        if kind == "weak" and not phrase_kind:  # a "pad token"
            return name, ""
    return name, kind


def _is_secret(kind: SecretKind, value: str, *, bare: bool = False) -> bool:
    if kind == "key" or bare:
        return is_random(value.strip("\"'@"))
    return kind == "strong" or not is_number(value)
