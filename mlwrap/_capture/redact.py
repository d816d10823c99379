"""Secrets out, by name, by the shape of the text, and by a value once known to be secret.

Everything that leaves the training process as text goes through a :class:`Redactor` first: before it
is cut, before a digest is made of it, before it reaches the journal.

**By name.** A name is taken apart into words (``hfToken``, ``hf_token`` and ``hf.token`` are the same two)
and compared with whole words, so that ``tokenizer``, ``monkey`` and ``author`` are not touched.

* Strong words (``password``, ``api_key``, ``credentials``, ...), anywhere in the name: any value goes but
  ``None``, a bool and what is empty, which only say whether there is a secret; and but a number under a name
  that measures something (``max_password_length``).
* Weak words (``token``, ``auth``, ...), only as the last word: numbers stay too, and so do the
  tokens of natural language processing (``pad_token``). ``max_tokens`` does not end with one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import quote

from mlwrap.errors import OptionError

__all__ = ["REDACTED", "Redactor", "Secret"]

REDACTED = "[redacted]"

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name))


_STRONG = frozenset(
    _words(words)
    for words in """
    password|passwords|passwd|passphrase|passcode|pwd|passwort|db pass|user pass|smtp pass
    secret|secrets|credential|credentials|cred|creds|authorization|auth header|set cookie|dsn|jwt
    apikey|apikeys|api key|api keys|access key|accesskey|private key|privatekey|secret key|encryption key
    signing key|account key|accountkey|master key|ssh key|auth key|authkey|storage key|license key
    connection string|connectionstring|connection str|conn string|conn str
    access token|access tokens|auth token|auth tokens|authtoken|api token|api tokens|refresh token
    refresh tokens|bearer token|session token|sas token|id token
    """.replace("\n", "|").split("|")
    if words.strip()
)
_WEAK = frozenset(_words("token auth bearer cookie cookies oauth"))
_LANGUAGE = frozenset(  # a "pad_token" is no secret
    _words(
        "pad eos bos unk mask oov start end cls sep image audio video special stop next first last prompt"
        " output target source word sub sot eot eod blank empty begin per"
    )
)
_MEASURES = frozenset(_words("n num max min len length size count dim timeout ttl seconds days"))
_LONGEST_RUN = max(map(len, _STRONG))


_SHAPES = re.compile(
    r"(?P<keep>(?<=://)[^\s/:@]{0,256}:)"  # https://user:password@host
    r"(?:[^\s/]{1,1024}|(?!\d{1,5}/)[^\s@\"']{1,256})(?=@)"  # a / in it is not allowed, and happens
    r"|(?P<bearer>\b[Bb]earer\s+)[\w.~+/=-]{8,}"
    r"|(?P<query>[?&](?:sig|X-Amz-Signature|X-Goog-Signature)=)[^&\s\"']+"  # presigned addresses
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bgh[pousr]_\w{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}"  # GitHub, GitLab
    r"|\bxox[a-z]-[\w-]{8,}|\bxapp-[\w-]{8,}"  # Slack
    r"|\bAIza[\w-]{30,}|\bya29\.[\w-]{16,}"  # Google
    r"|\bsk-(?=[\w-]{0,200}\d)[\w-]{16,}|\b[rs]k_(?:live|test)_\w{8,}"  # OpenAI, Anthropic, Stripe
    r"|\bhf_[A-Za-z0-9]{16,}|\bdapi[0-9a-f]{32}\b|\bpypi-[\w-]{32,}"  # Hugging Face, Databricks, PyPI
    r"|\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"  # JSON web tokens
)
_ASSIGNED = re.compile(r"(?<![\w.-])(?P<name>-{0,2}\w[\w.-]{0,80})\\?[\"']?\s{0,4}(?:==?|:=?|!=)\s{0,4}")
_ASSIGNED_VALUE = re.compile(
    r"(?:(?:bearer|basic)\s+)?\[redacted\]|\\?[A-Za-z]{0,2}(?:\"[^\"\n]*\"|'[^'\n]*')"
    r"|\\?[\"']?(?:(?:bearer|basic)\s+)?[^\s,;&\"')\]}]+",
    re.IGNORECASE,
)
_SUSPECT = re.compile(r"[=:]|sk|gh|github|glpat|AKIA|ASIA|x(?:ox|app)|AIza|ya29|hf_|dapi|pypi|eyJ|earer|---")
_TELLS_NOTHING = frozenset({type(None), bool})
_NUMBERS = frozenset({int, float})
_SIZED = frozenset({str, bytes, list, tuple, dict, set, frozenset})
_NUMBER = re.compile(r"[\"']?[-+]?[\d.]+(?:[eE][-+]?\d+)?[\"']?|None|True|False|null|true|false|[\"']{2}")

_SHORTEST = 6  # a shorter remembered value would take too many innocent words with it
_LONGEST_NUMBER = 1024  # bits; a longer one is no pin code
_DEEPEST = 8


class Secret:
    """Marks a parameter as secret: ``api: Annotated[str, Secret]``.

    Its value is recorded as ``[redacted]``, and taken out of every other text of the run.
    """


class Redactor:
    """Takes secrets out of what one run records.

    Args:
        extra_names: More names whose values are secret, compared word by word like the strong ones.
        extra_patterns: More regular expressions; what one matches is replaced whole.

    Raises:
        OptionError: A name without any word, or a pattern that is none.
    """

    def __init__(
        self, *, extra_names: Iterable[str] = (), extra_patterns: Iterable[str | re.Pattern[str]] = ()
    ) -> None:
        self._extra = frozenset(_words_of_extra(name) for name in _several("extra_names", extra_names))
        self._patterns = [_compiled(pattern) for pattern in _several("extra_patterns", extra_patterns)]
        self._known: set[str] = set()
        self._literal: re.Pattern[str] | None = None

    def is_secret(self, name: str, value: object) -> bool:
        """Whether a parameter of this name and value is to be recorded as ``[redacted]``."""
        kind = _kind(name, self._extra)
        cls = type(value)  # not isinstance, which asks the value's own code
        if not kind or cls in _TELLS_NOTHING or (cls in _SIZED and not value):
            return False
        return kind == "strong" or cls not in _NUMBERS

    def remember(self, value: object) -> None:
        """From now on take this value out of every text; of a container, each text in it."""
        found = {form for text in islice(_texts(value, 0), 1000) for form in _forms(text)}
        if not found <= self._known:
            self._known |= found
            longest_first = sorted(self._known, key=len, reverse=True)
            self._literal = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """The text without the secrets in it; of any length, so that it comes before cutting."""
        if self._literal is not None:
            text = self._literal.sub(REDACTED, text)
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        if _SUSPECT.search(text) is None:
            return text
        text = _SHAPES.sub(_without_shape, text)
        return self._without_assigned(text)

    def value(self, name: str, value: Any) -> Any:
        """What may be recorded of a parameter: its value, its text without secrets, or ``[redacted]``."""
        if self.is_secret(name, value):
            self.remember(value)
            return REDACTED
        return self.text(value) if isinstance(value, str) else value

    def _without_assigned(self, text: str) -> str:
        """``password=...`` and the like; an assignment can stand in another's value, so one at a time."""
        kept: list[str] = []
        done = at = 0
        while match := _ASSIGNED.search(text, at):
            at = match.end()
            kind = _kind(match["name"], self._extra)
            value = _ASSIGNED_VALUE.match(text, at) if kind else None
            if value is None or (kind == "weak" and _NUMBER.fullmatch(value[0])):
                continue
            kept += text[done:at], REDACTED
            done = at = value.end()
        return "".join([*kept, text[done:]])


def _without_shape(match: re.Match[str]) -> str:
    return (match["keep"] or match["bearer"] or match["query"] or "") + REDACTED


@lru_cache(maxsize=8192)
def _kind(name: str, extra: frozenset[tuple[str, ...]]) -> str:
    """``"strong"``, ``"weak"`` or ``""``; names recur, so each is looked at once."""
    words = _words(name)
    longest = max([_LONGEST_RUN, *map(len, extra)])
    runs = {words[i : i + n] for n in range(1, longest + 1) for i in range(len(words) - n + 1)}
    if runs & extra:
        return "strong"
    if runs & _STRONG:
        return "weak" if _MEASURES & {words[0], words[-1]} else "strong"
    if words and words[-1] in _WEAK and not (len(words) > 1 and words[-2] in _LANGUAGE):
        return "weak"
    return ""


def _words_of_extra(name: Any) -> tuple[str, ...]:
    words = _words(name) if isinstance(name, str) else ()
    if not words:
        raise OptionError(f"extra_names takes names such as 'badge_number', not {name!r}.")
    return words


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
        compiled.search("")  # a pattern over bytes compiles, and fails only here
    except (re.error, TypeError) as error:
        raise OptionError(
            f"extra_patterns takes regular expressions over text, not {pattern!r}: {error}."
        ) from None
    return compiled


def _several(option: str, given: Iterable[Any]) -> list[Any]:
    if isinstance(given, (str, re.Pattern)):
        return [given]
    try:
        return list(given)
    except TypeError:
        raise OptionError(f"{option} takes several texts, not {given!r}.") from None


def _texts(value: Any, depth: int) -> Iterable[str]:
    """The texts in a secret value, looking into plain containers only."""
    if isinstance(value, str):
        yield str.__str__(value)
    elif isinstance(value, (bytes, bytearray)):
        yield bytes(value).decode("utf-8", "replace")
    elif isinstance(value, int) and value.bit_length() < _LONGEST_NUMBER:
        yield int.__repr__(value)
    elif depth < _DEEPEST and isinstance(value, (Mapping, list, tuple, set, frozenset)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item, depth + 1)
    elif hasattr(type(value), "get_secret_value"):  # pydantic's SecretStr and SecretBytes
        yield from _texts(value.get_secret_value(), depth + 1)


def _forms(text: str) -> set[str]:
    """How a secret can appear in other texts: as it is, quoted by Python or JSON, in an address."""
    text = text.strip()
    if len(text) < _SHORTEST:
        return set()
    return {text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text.encode("utf-8", "replace"), safe="")}
