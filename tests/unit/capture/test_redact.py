"""Secrets out, and nothing else."""

import pytest

from mlwrap._capture import REDACTED, Redactor
from mlwrap.errors import OptionError

SECRET = """
password PASSWORD db_password userPassword passwd pwd secret client_secret clientSecret apikey
api_key API_KEY apiKey x-api-key aws_access_key_id private_key credentials cred authorization auth
auth_header token hfToken access_token auth.token github_token connection_string dsn jwt passphrase
config.api.key AccountKey refresh_tokens bearer cookie
"""
INNOCENT = """
tokenizer max_tokens num_tokens token_embedding_dim vocab_tokens key_dim num_keys author authors
monkey keys key pad_token eos_token special_tokens stop_token token_ids compass passes forward_pass
bypass dsnet secretary tokens_per_batch keyboard rng_key passenger authentic
"""


@pytest.mark.parametrize("name", SECRET.split())
def test_names_of_secrets(name):
    """A text under such a name is never recorded."""
    assert Redactor().value(name, "harmless looking") == REDACTED


@pytest.mark.parametrize("name", INNOCENT.split())
@pytest.mark.parametrize("value", ["text", 512, ["a", "b"]])
def test_words_of_machine_learning_survive(name, value):
    """Whole words count, so that nothing is lost that only looks alike."""
    assert Redactor().value(name, value) == value


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("password", 123456, True),
        ("password", None, False),
        ("use_password", True, False),
        ("password", "", False),
        ("token", 5, False),
        ("token", ["abc"], True),
        ("max_password_length", 12, False),
        ("credentials", {"user": "x"}, True),
        ("secret", {}, False),
    ],
)
def test_what_survives_under_the_name_of_a_secret(name, value, secret):
    """What only says whether there is a secret stays; numbers stay under weak words and measures."""
    assert Redactor().is_secret(name, value) is secret


SHAPES = {
    "https://user:hunter2@host/path": "https://user:[redacted]@host/path",
    "postgresql+psycopg://u:p@ss@h:5432/db": "postgresql+psycopg://u:[redacted]@h:5432/db",
    "mysql://u:p/w@h/db?mail=a@b": "mysql://u:[redacted]@h/db?mail=a@b",
    "key AKIAIOSFODNN7EXAMPLE used": "key [redacted] used",
    "ghp_" + "a1" * 18: REDACTED,
    "github_pat_" + "a1" * 18: REDACTED,
    "glpat-" + "a1" * 10: REDACTED,
    "xoxb-123456789012-abcdef": REDACTED,
    "AIza" + "a1" * 18: REDACTED,
    "ya29." + "a1" * 18: REDACTED,
    "sk-proj-" + "a1" * 18: REDACTED,
    "sk-ant-api03-" + "a1" * 18: REDACTED,
    "sk_live_" + "a1" * 8: REDACTED,
    "hf_" + "Ab" * 17: REDACTED,
    "dapi" + "0a" * 16: REDACTED,
    "pypi-" + "Ab" * 30: REDACTED,
    "a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1 b": "a [redacted] b",
    "Authorization: Bearer abcdefgh.1": "Authorization: [redacted]",
    "sent Bearer abcdefgh.1 there": "sent Bearer [redacted] there",
    "Authorization: Basic dXNlcjpwdw==": "Authorization: [redacted]",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest": "[redacted]\nrest",
    "-----BEGIN PRIVATE KEY-----\ncut off": REDACTED,
    "https://h/x?token=abc&page=2": "https://h/x?token=[redacted]&page=2",
    "https://h/x?sig=a%2Fb&se=1": "https://h/x?sig=[redacted]&se=1",
    "AccountName=me;AccountKey=abc/def==;Suffix=x": "AccountName=me;AccountKey=[redacted];Suffix=x",
    "Error: password=hunter2, user=me": "Error: password=[redacted], user=me",
    "C(api_key='abc def', units=3)": "C(api_key=[redacted], units=3)",
    '{"password": "a b", "units": 3}': '{"password": [redacted], "units": 3}',
    '"{\\"password\\": \\"a\\"}"': '"{\\"password\\": [redacted]}"',
    'if token == "abc": pass': "if token == [redacted]: pass",
    'password = f"abc"': "password = [redacted]",
    'password="hunter2': "password=[redacted]",
    "password: hunter2": "password: [redacted]",
}


@pytest.mark.parametrize(("text", "clean"), SHAPES.items(), ids=list(SHAPES.values()))
def test_shapes_of_secrets(text, clean):
    """Each default pattern has its example; what is clean stays as it is."""
    redactor = Redactor()
    assert redactor.text(text) == clean
    assert redactor.text(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "relu",
        "max_tokens=512, tokenizer=bert",
        "token=5",
        "https://host:8080/a@b",
        "gs://bucket/sk-learn-pipelines-for-all",
        "2026-01-02T03:04:05",
        "eyJust a word",
        "monkey: banana",
        "pad_token='<pad>'",
    ],
)
def test_innocent_texts_survive(text):
    """Not a character of these may change."""
    assert Redactor().text(text) == text


def test_a_remembered_value_vanishes_in_every_form():
    """Plain, quoted by Python and JSON, and in an address."""
    redactor = Redactor()
    redactor.remember({"nested": ["pa's/wö\"rd", b"bytes-secret", 987654321]})
    text = redactor.text("pa's/wö\"rd|pa's/w\\u00f6\\\"rd|pa%27s%2Fw%C3%B6%22rd|bytes-secret|987654321")
    assert text == "|".join([REDACTED] * 5)


def test_short_values_are_not_remembered():
    """A secret of a few letters would take innocent words with it."""
    redactor = Redactor()
    redactor.remember("adam")
    assert redactor.text("adam") == "adam"


def test_extra_names_and_patterns():
    """A house has secrets of its own."""
    redactor = Redactor(extra_names=["badge number"], extra_patterns=[r"EMP-\d+"])
    assert redactor.value("user.badgeNumber", 17) == REDACTED
    assert redactor.text("of EMP-123, badge_number=17") == f"of {REDACTED}, badge_number={REDACTED}"


@pytest.mark.parametrize(
    "options",
    [
        {"extra_names": [3]},
        {"extra_names": "--"},
        {"extra_names": 3},
        {"extra_patterns": "("},
        {"extra_patterns": [b"a"]},
    ],
)
def test_wrong_options_fail_at_the_door(options):
    """A rule that could never work is refused."""
    with pytest.raises(OptionError, match="extra_"):
        Redactor(**options)


@pytest.mark.parametrize(
    "text", ["a" * 300_000, "a=" * 100_000, "://" * 100_000, "sk-" * 100_000, "a." * 150_000]
)
def test_long_texts_take_linear_time(text):
    """No text makes the patterns go back and forth: this test would take minutes."""
    assert Redactor().text(text) == text
