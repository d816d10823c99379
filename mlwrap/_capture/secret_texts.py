"""Where in a text does a value stand under the name of a secret?

``password=…`` and what else programs, settings, command lines, headers and error messages write:
``"a": "b"``, ``a => b``, ``a["b"] = "c"``, ``<a>b</a>``, ``a("b")``, ``PASSWORD 'b'``, ``"b" == a``,
``--a b``, ``['--a', 'b']``. Names are judged by :mod:`mlwrap._capture.secret_names`.
"""

from __future__ import annotations

import re

from mlwrap._capture.secret_names import SecretKind, is_random, kind_of_name
from mlwrap._capture.secret_shapes import REDACTED

__all__ = ["is_number", "without_named"]

_SIGN = re.compile(r"[=!:](?:(?<=!)==?|(?<!!)(?:[=:>]=?)?)\s{0,4}")
# Without a sign only behind a name that is surely one: a text in quotes, an element of XML, a long key.
_APPOSED = re.compile(r"[(>\s]\s{0,3}(?:(?=[\"'])|(?<=>)(?=[^\s<>=])|(?P<bare>(?=[\w+/=-]{20})))")
# What stands before the sign, read backwards: brackets and quotes that close, and up to three words.
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
_HEADER = re.compile(
    r"(?!\[redacted\])[^\n\"']+"
)  # of cookies and authorization all parts, up to the end of the line
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
    """Whether a text is a number, several of them, or says only that there is nothing."""
    return _NUMBER.fullmatch(text) is not None


def without_named(text: str) -> str:
    """The text, ``[redacted]`` in the place of what stands under the name of a secret."""
    if "==" in text or "!=" in text:
        text = _COMPARED.sub(_without_compared, text)
    if "=" in text or ":" in text:
        text = _without(_SIGN, text)
    text = _without(_APPOSED, text)
    return _without_options(text) if "-" in text else text


def _without_compared(match: re.Match[str]) -> str:
    return f"{REDACTED}{match['sign']}" if kind_of_name(match["name"]) == "strong" else match[0]


def _without(sign_of: re.Pattern[str], text: str) -> str:
    """An assignment can stand in another's value, so one at a time."""
    apposed = sign_of is _APPOSED
    kept: list[str] = []
    done = at = 0
    while sign := sign_of.search(text, at):
        at = sign.end()
        name, kind = _name_before(text, sign.start())
        if not kind or (apposed and kind != "strong"):
            continue
        header = sign[0].startswith(":") and _HEADERS.search(name) and _HEADER.match(text, at)
        value = header or _VALUE.match(text, at, at + _MAX_KEY_LENGTH if kind == "key" else len(text))
        bare = apposed and sign["bare"] is not None
        if value is None or not _is_secret(kind, value[0], bare=bare):
            continue
        kept += text[done:at], REDACTED
        done = at = value.end()
    return "".join([*kept, text[done:]])


def _without_options(text: str) -> str:
    """The argument after an option: ``--password x``."""
    kept: list[str] = []
    done = at = 0
    while option := _OPTION.search(text, at):
        at = option.end()
        kind = kind_of_name(option["name"])
        value = _VALUE.match(text, at) if kind else None
        if value is None or not _is_secret(kind, value[0]):
            continue
        kept += text[done:at], REDACTED
        done = at = value.end()
    return "".join([*kept, text[done:]])


def _name_before(text: str, end: int) -> tuple[str, SecretKind]:
    """The name that stands before a sign, and its kind."""
    match = _NAME_BACKWARDS.match(text[max(0, end - _MAX_NAME_LENGTH) : end][::-1])
    if match is None:
        return "", ""
    name = match["name"][::-1]
    kind = kind_of_name(name.rpartition(" ")[2])
    words = name.split(" ")
    for start in range(len(words) - 1) if kind != "strong" else ():
        # "API key: …" is one name; in "password of user: …" it is the last word that counts.
        several = kind_of_name(" ".join(words[start:]))
        if several == "strong" and kind_of_name(" ".join(words[start:-1])) != "strong":
            return name, "strong"
        if kind == "weak" and not several:  # a "pad token"
            return name, ""
    return name, kind


def _is_secret(kind: SecretKind, value: str, *, bare: bool = False) -> bool:
    if kind == "key" or bare:
        return is_random(value.strip("\"'@"))
    return kind == "strong" or not is_number(value)
