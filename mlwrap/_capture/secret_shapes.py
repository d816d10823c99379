"""Redact texts that look like secrets, whatever their name.

One table lists each shape with its words; a pattern is tried only if a text contains one of its words. Words
and patterns are together, so that no separate filter can miss a shape. A test generates texts from every
pattern and checks its words against them.

The prefixes are those that the services publish for secret scanning; the detectors of ``detect-secrets`` are
the reference in ``tests/unit/capture/test_secret_shapes.py``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["REDACTED", "SHAPES", "Shape", "without_shapes"]

REDACTED = "[redacted]"


class Shape(NamedTuple):
    """One shape of secret.

    Attributes:
        words: Texts of which every secret of this shape contains at least one.
        pattern: Pattern of the secret; the group ``keep`` is the text before it, which is kept.
    """

    words: tuple[str, ...]
    pattern: re.Pattern[str]


def _shape(words: str, pattern: str) -> Shape:
    return Shape(tuple(words.split()), re.compile(pattern))


SHAPES = (
    # Addresses. Passwords with a slash are invalid but occur; an http user without a password is a token.
    _shape(
        "://",
        r"(?P<keep>(?<=://)(?![^\s/:@]{0,256}:(?:x-oauth-basic|x)?@)[^\s/:@]{0,256}:)(?!\*{3}@)"
        r"(?:[^\s/]{1,1024}|(?!\d{1,5}/)[^\s@\"']{1,256})(?=@)",
    ),
    _shape("http", r"(?P<keep>https?://)[^\s/:@?#\"'\[\]]{1,1024}(?::(?:x-oauth-basic|x)?)?(?=@)"),
    _shape("://", r"(?P<keep>://)(?=[^\s/:@]{0,256}\d)[\w.~%+-]{20,1024}(?=(?::[^\s/@]{0,1024})?@)"),
    _shape(
        "sig= Signature=", r"(?P<keep>[?&;](?:sig|Signature|X-Amz-Signature|X-Goog-Signature)=)[^&\s\"']+"
    ),
    _shape("https://hooks.", r"(?P<keep>https://hooks\.[\w.-]{1,200}/)[^\s\"'<>]+"),  # Slack, Zapier
    _shape(
        "/webhook", r"(?P<keep>https://[\w.-]{1,200}/(?:api/(?:v\d+/)?)?webhook(?:s|b2)/)[^\s\"'<>]+"
    ),  # Discord, Teams
    _shape("softlayer.com/soap/", r"(?P<keep>softlayer\.com/soap/v3(?:\.1)?/)\w+"),
    # Headers and commands.
    _shape("earer EARER", r"(?P<keep>\b(?:[Bb]earer|BEARER)\s+)[\w.~+/=-]{8,}"),
    _shape(
        "asic ASIC",
        r"(?P<keep>\b(?:[Bb]asic|BASIC)\s+)(?:[A-Za-z0-9+/]{6,}={1,2}"
        r"|(?=[A-Za-z+/]{0,80}\d)(?=[a-z0-9+/]{0,80}[A-Z])[A-Za-z0-9+/]{20,})",
    ),
    _shape(
        "-u -U --user --proxy-user",
        r"(?P<keep>(?<![\w-])(?:-u|-U|--user|--proxy-user)(?:[\s=]{1,4}|[\"'],\s{0,4})[\"']?[^\s:/\"']{1,256}:)"
        r"(?!\d+(?!\S))[^\s\"']+",
    ),
    _shape("machine", r"(?P<keep>\bmachine\s+\S{1,256}\s+login\s+\S{1,256}\s+password\s+)\S+"),  # .netrc
    _shape(
        "PRIVATE",
        r"-{4,5} ?BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)? ?-{4,5}[\s\S]*?(?:-{4,5} ?END [A-Z0-9 ]*-{4,5}|\Z)",
    ),
    _shape("PuTTY-User-Key-File", r"PuTTY-User-Key-File-\d[\s\S]*"),
    # Clouds.
    _shape("AKIA ASIA ABIA ACCA A3T", r"\b(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}\b"),  # AWS
    _shape(
        "aws AWS Aws",
        r"(?P<keep>(?:aws|AWS|Aws).{0,20}?(?i:key|pwd?|pass(?:word)?|token).{0,20}?[\"'])[0-9a-zA-Z/+]{40}(?=[\"'])",
    ),
    _shape(
        "AIza ya29. GOCSPX- 1//0", r"\bAIza[\w-]{30,}|\bya29\.[\w-]{16,}|\bGOCSPX-[\w-]{20,}|\b1//0[\w-]{30,}"
    ),
    _shape("8Q~", r"\b[\w.~-]{3}8Q~[\w.~-]{31,34}"),  # Azure
    _shape("_v1_", r"\bdo[opr]_v1_[0-9a-f]{32,}"),  # DigitalOcean
    _shape("dapi", r"\bdapi[0-9a-f]{32}\b"),  # Databricks
    _shape("HRKU-", r"\bHRKU-[\w-]{20,}"),  # Heroku
    _shape("hvs. hvb. hvr.", r"\bhv[sbr]\.[\w-]{20,}"),  # Vault
    _shape("atlasv1", r"\b\w{14}\.atlasv1\.[\w-]{20,}"),  # Terraform
    _shape("NRAK- NRII- glsa_ glc_", r"\bNR(?:AK|II)-[\w-]{20,}|\bgl(?:sa|c)_\w{20,}"),  # New Relic, Grafana
    # Code and packages.
    _shape("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"\bgh[pousr]_\w{16,}|\bgithub_pat_\w{16,}"),
    _shape(
        "glpat- gldt- glft- glsoat- glrt- glcbt- glimt- glptt- glagent- gloas- glffct- GR1348941",
        r"\bgl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas|ffct)-[\w-]{16,}|\bGR1348941[\w-]{16,}",
    ),
    _shape("npm_ :_authToken", r"\bnpm_[A-Za-z0-9]{16,}|(?P<keep>:_authToken=\s{0,8})[^\s\"']+"),
    _shape("pypi-", r"\bpypi-[\w-]{32,}"),
    _shape("dckr_pat_ dckr_oat_", r"\bdckr_(?:pat|oat)_[\w-]{16,}"),
    _shape(
        "AKC AP",
        r"(?<![\w/+.-])(?:AKC(?=[A-Za-z]{0,80}\d)[A-Za-z0-9]{10,}|AP[\dA-F](?=[A-Za-z]{0,80}\d)[A-Za-z0-9]{8,})(?=[\s\"]|\Z)",
    ),
    _shape("ATATT rubygems_", r"\bATATT3x[\w=-]{20,}|\brubygems_[0-9a-f]{32,}"),  # Atlassian
    # Machine learning.
    _shape("sk- gsk_ xai- pplx-", r"\bsk-(?=[\w-]{0,200}\d)[\w-]{16,}|\b(?:gsk_|xai-|pplx-)[A-Za-z0-9]{20,}"),
    _shape("hf_ r8_ nvapi- KGAT_", r"\b(?:hf_|r8_|KGAT_)[A-Za-z0-9]{16,}|\bnvapi-[\w-]{20,}"),
    _shape("lsv2_ tvly- pcsk_", r"\blsv2_(?:pt|sk)_\w{20,}|\btvly-[\w-]{20,}|\bpcsk_\w{20,}"),
    # Messages, mail and money.
    _shape("xox xapp-", r"\bxox[a-z]-(?:[\w-]{8,}|(?:\d+-)+\w+)|\bxapp-[\w-]{8,}"),  # Slack
    _shape(".", r"(?<![\w-])[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,}"),  # Discord
    _shape(":", r"\d{8,10}:[A-Za-z0-9_-]{35,}"),  # Telegram
    _shape("SG.", r"\bSG\.[\w-]{16,}\.[\w-]{16,}"),  # SendGrid
    _shape("key-", r"\bkey-[0-9a-z]{32}\b"),  # Mailgun
    _shape("-us", r"\b[0-9a-z]{32}-us\d{1,2}\b"),  # Mailchimp
    _shape("AC SK", r"\b(?:AC|SK)[a-z0-9]{32}\b"),  # Twilio
    _shape("k_live_ k_test_ whsec_", r"\b[rsp]k_(?:live|test)_\w{8,}|\bwhsec_[\w+/=]{16,}"),  # Stripe
    _shape("sq0 EAAA", r"\bsq0[a-z]{3}-[\w\\-]{22,}|\bEAAA[\w-]{56,}"),  # Square
    _shape("shpat_ shpca_ shppa_ shpss_", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),  # Shopify
    # Self-contained tokens and keys.
    _shape("eyJ", r"\beyJ[\w=-]{8,}\.[\w=-]{4,}(?:\.[\w=-]*)?"),  # JSON web tokens
    _shape("AGE-SECRET-KEY-", r"\bAGE-SECRET-KEY-1[A-Z0-9]{20,}"),
)

# Except for the shortest texts, searching for each word is faster than one expression for all words.
_WORDS = tuple((word, shape.pattern) for shape in SHAPES for word in shape.words)
_MIN_LENGTH = 6  # "-u a:b"


def without_shapes(text: str) -> str:
    """Replace everything in the text that looks like a secret by ``[redacted]``."""
    if len(text) >= _MIN_LENGTH:
        for pattern in [pattern for word, pattern in _WORDS if word in text]:
            text = pattern.sub(_redacted, text)
    return text


def _redacted(match: re.Match[str]) -> str:
    return (match.groupdict().get("keep") or "") + REDACTED
