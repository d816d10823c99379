"""Classify names by how likely their values are secret.

A name is split into words (``hfToken``, ``hf_token``, ``hf.token`` and ``hftoken`` give the same two) and
compared by whole words, so that ``tokenizer``, ``monkey`` and ``author`` do not match. Before that its
letters are normalised: no accents, no full-width forms, no invisible characters, no capitals.

* ``"strong"``: ``password``, ``api_key``, ``credentials``, ``wandb_key``, … anywhere in the name.
* ``"weak"``: ``token``, ``tokens``, ``auth``, ``pw``, ``sessionid``, … as the last word, or a strong word in
  the name of a measure (``max_password_length``). Numbers under such a name are counts.
* ``"key"``: any other name that ends in ``key``. Its value is secret only if the text looks random.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise
from typing import Literal

__all__ = ["SecretKind", "is_random", "kind_of_name"]

SecretKind = Literal["strong", "weak", "key", ""]

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_A-Za-z]+")
# Words that are written together with the previous one: "hftoken", "clientsecret".
_JOINED_SUFFIX = re.compile(r"(?<=[a-z])(?:secrets?|tokens?|credentials?)\Z")


def _to_ascii(name: str) -> str:
    """Return a name without accents, full-width forms and invisible characters."""
    if name.isascii():
        return name
    decomposed = unicodedata.normalize("NFKD", name)
    return "".join(c for c in decomposed if unicodedata.category(c) not in {"Mn", "Cf"})


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(phrase.split()) for phrase in text.replace("\n", "|").split("|") if phrase.strip())


_STRONG = _phrases("""
    password|passwords|passwd|passphrase|passcode|pass word|pass phrase|pwd|pswd|passkey|pass key
    keypass|key pass|passwort|kennwort|contrasena|motdepasse|mot de passe|senha|wachtwoord
    secret|secrets|credential|credentials|cred|creds|authorization|auth header
    set cookie|dsn|jwt|htpasswd|apikey|apikeys|api key|api keys|access key|accesskey|access keys
    private key|privatekey|priv key|secret key|secretkey|encryption key|signing key|account key
    accountkey|master key|ssh key|auth key|authkey|storage key|license key|client key|service key
    server key|db key|database key|deploy key|admin key|root key|app key|application key
    consumer key|subscription key|shared key|webhook key|hmac key|aes key|rsa key|gpg key|pgp key
    webhook url|webhook uri|otp secret|seed phrase|recovery code|recovery codes|connection string
    connectionstring|connection str|conn string|conn str|access token|access tokens|auth token
    auth tokens|authtoken|api token|api tokens|refresh token|refresh tokens|bearer token
    session token|sas token|sas url|id token
    """)
# Words that are not part of any harmless word: "dbpassword", "awssecretaccesskey".
_INSIDE = re.compile(
    "|".join(
        _to_ascii(word)
        for word in (
            "password",
            "passwd",
            "passphrase",
            "apikey",
            "accesskey",
            "secretkey",
            "privatekey",
            "пароль",
            "密码",
            "密碼",
            "パスワード",
            "비밀번호",
        )
    )
)
_WEAK = _word_set("""
    token tokens auth bearer cookie cookies oauth pw webhook webhooks sessionid jsessionid phpsessid
    csrf xsrf
""")
_WEAK_PAIRS = _phrases("session id|sess id|auth code|otp code")
# Issuers of keys, and holders of passwords: "wandb_key", "github_pat", "db_pass" and "user_pw" are secret.
_ISSUERS = _word_set("""
    wandb comet neptune openai anthropic hf huggingface aws azure gcp google gemini github gh gitlab
    bitbucket stripe twilio sendgrid mailgun mailchimp datadog dd slack telegram discord kaggle
    replicate cohere mistral groq pinecone weaviate qdrant databricks snowflake mlflow sentry heroku
    npm pypi docker dockerhub artifactory cloudflare cloudant firebase supabase algolia mapbox
    pagerduty clearml dagshub roboflow langchain langsmith tavily deepgram deepseek perplexity vault
    linode digitalocean tailscale square paypal shopify softlayer sl ibm iam cloud cl netlify vercel
    jira confluence notion figma airtable minio elastic kibana grafana
""")
_HOLDERS = _word_set("""
    user db database smtp mail email root admin ftp sftp ssh login http proxy wifi server sql mysql pg
    postgres redis mongo ldap auth git jdbc account my host client service app web key amqp rabbitmq
""")
# Words of language models: "pad_token" and "vocab_tokens" are not secret.
_LANGUAGE_MODEL_WORDS = _word_set("""
    pad eos bos unk mask oov start end cls sep image audio video special stop next first last prompt
    output target source word sub sot eot eod blank empty begin per input vocab new added extra total
    avg mean multi non pre un de re text visual patch query context completion reasoning cached
""")
_MEASURE_WORDS = _word_set("""
    n num max min len length size count dim timeout ttl seconds days
""")
# A "…_key" after one of these words is not secret, even if it looks random.
_PUBLIC_KEYS = _word_set("""
    public primary foreign cache experiment run dataset data content file object artifact model group
    sort partition rng prng
""")
_OF_HOLDERS = dict.fromkeys(_HOLDERS, _word_set("pass pw")) | dict.fromkeys(
    _ISSUERS, _word_set("key keys pat pass pw")
)
_MAX_PHRASE_LENGTH = max(map(len, _STRONG))

_RANDOM = re.compile(r"[A-Za-z0-9+/=_-]{20,512}")
_CHANGE = re.compile(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")
_MIN_CHANGES = 5  # changes between letters and digits; "cifar10_resnet50_imagenet1k" has four


@lru_cache(maxsize=8192)
def kind_of_name(name: str) -> SecretKind:
    """Return how likely this is the name of a secret; cached, since names recur."""
    words = _words(name)
    if not words:
        return ""
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if _has_strong_phrase(words) or any(map(_INSIDE.search, words)):
        return "weak" if _MEASURE_WORDS & {words[0], last} else "strong"
    if any(second in _OF_HOLDERS.get(first, ()) for first, second in pairwise(words)):
        return "strong"
    if (last in _WEAK or words[-2:] in _WEAK_PAIRS) and before not in _LANGUAGE_MODEL_WORDS | _MEASURE_WORDS:
        return "weak"
    if words == ("pass",):
        return "weak"
    return "key" if last in {"key", "keys"} and before not in _PUBLIC_KEYS else ""


def is_random(text: str) -> bool:
    """Return whether a text looks like a generated key: long, no spaces, letters and digits mixed."""
    return _RANDOM.fullmatch(text) is not None and len(_CHANGE.findall(text)) >= _MIN_CHANGES


def _words(name: str) -> tuple[str, ...]:
    words: list[str] = []
    for word in _WORD.findall(_to_ascii(name)):
        word = word.casefold()  # noqa: PLW2901 - only the folded form is used below
        if suffix := _JOINED_SUFFIX.search(word):
            words += word[: suffix.start()], suffix[0]
        elif word.endswith("key") and (word[:-3] in _ISSUERS or (word[:-3], "key") in _STRONG):
            words += word[:-3], "key"
        elif word.endswith("pass") and word[:-4] in _HOLDERS:
            words += word[:-4], "pass"
        else:
            words.append(word)
    return tuple(words)


def _has_strong_phrase(words: tuple[str, ...]) -> bool:
    return any(
        words[i : i + n] in _STRONG
        for n in range(1, _MAX_PHRASE_LENGTH + 1)
        for i in range(len(words) - n + 1)
    )
