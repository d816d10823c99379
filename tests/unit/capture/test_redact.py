"""Secrets out, and nothing else."""

import numpy as np
import pytest

from mlwrap._capture.redact import Redactor
from mlwrap._capture.secret_shapes import REDACTED

SECRET = """
password PASSWORD db_password userPassword passwd pwd secret client_secret clientSecret apikey
api_key API_KEY apiKey x-api-key aws_access_key_id private_key credentials cred authorization auth
auth_header token hfToken access_token auth.token github_token connection_string dsn jwt passphrase
config.api.key AccountKey refresh_tokens bearer cookie
pass_ user_pw wandb_key wandbkey tokens sessionid session.id hftoken hf_tokens clientsecret dbpassword
awssecretaccesskey PGPASSWORD MYSQL_PWD db_pass mypass_ smtp.pass GITHUB_PAT x-api-key
slack_webhook webhookUrl
datadog-api-key proxy-authorization JSESSIONID csrf_token pässword pa\u0308ssword pass\u200bword
contraseña Contrasena passwort 数据库密码
"""
SPELLED_APART = [
    "pass word",
    "api key",
    "Connection String",
    "mot de passe",
    "user pw",
    "\uff30\uff21\uff33\uff33\uff37\uff2f\uff32\uff24",
]
INNOCENT = """
tokenizer max_tokens num_tokens token_embedding_dim vocab_tokens key_dim num_keys author authors
monkey keys key pad_token eos_token special_tokens stop_token token_ids compass passes forward_pass
bypass dsnet secretary tokens_per_batch keyboard rng_key passenger authentic
max_new_tokens new_tokens padtoken subtokens embed_key_dim num_heads turkey hockey key pass_through public_key
sort_key feature_key tokenized session sessions user_id path patience pwconv pw_filters
"""


@pytest.mark.parametrize("name", [*SECRET.split(), *SPELLED_APART])
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
        ("tokens", 512, False),
        ("tokens", [101, 2023, 102], False),
        ("tokens", ["the", "cat"], True),
        ("tokens", np.zeros(3), False),
        ("pass_", "hunter2", True),
        ("pass_", 2, False),
        ("token", "123456", True),
        ("some_key", "val_accuracy", False),
        ("some_key", "cifar10_resnet50_imagenet1k", False),
        ("some_key", "0a1b2c3d4e5f60718293", True),
        ("keys", ["image", "0a1b2c3d4e5f60718293"], True),
        ("cache_key", "0a1b2c3d4e5f60718293", False),
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
    "https://abcdef@host/x": "https://[redacted]@host/x",
    "git+https://abcdef:x-oauth-basic@host/x": "git+https://[redacted]@host/x",
    "https://abcdef:@host/x": "https://[redacted]@host/x",
    "https://0a1b2c3d4e5f60718293:pw@host/x": "https://[redacted]:[redacted]@host/x",
    "curl -u user:pw https://host": "curl -u user:[redacted] https://host",
    "['curl', '--user', 'user:pw']": "['curl', '--user', 'user:[redacted]']",
    "machine h login me password pw": "machine h login me password [redacted]",
    "run --password x --units 3": "run --password [redacted] --units 3",
    "['mysql', '--password', 'hunter2']": "['mysql', '--password', [redacted]]",
    "X-Api-Key: abc": "X-Api-Key: [redacted]",
    "Authorization: Token abc": "Authorization: [redacted]",
    "Cookie: a=b; c=d\nHost: h": "Cookie: [redacted]\nHost: h",
    "{'Cookie': 'a=b; c=d'}": "{'Cookie': [redacted]}",
    "sent Basic dXNlcjpwdw== there": "sent Basic [redacted] there",
    "CREATE USER me PASSWORD 'hunter2'": "CREATE USER me PASSWORD [redacted]",
    'login(set_password("hunter2"))': "login(set_password([redacted]))",
    "<password>hunter2</password>": "<password>[redacted]</password>",
    'os.environ["API_KEY"] = "abc"': 'os.environ["API_KEY"] = [redacted]',
    'if "hunter2" == password:': "if [redacted] == password:",
    '"password" => "x"': '"password" => [redacted]',
    "tokens=['abc', 'def']": "tokens=[redacted]",
    "pass word=abc": "pass word=[redacted]",
    "pässword: abc": "pässword: [redacted]",
    "the API key: abc": "the API key: [redacted]",
    "wandb key=abc": "wandb key=[redacted]",
    "dsn=https://abc@host/1": "dsn=[redacted]",
    "PuTTY-User-Key-File-2: ssh-rsa\nabc": REDACTED,
    "a" * 90 + ".password=hunter2": "a" * 90 + ".password=[redacted]",
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
        "pad token: <pad>",
        "tokens=[101, 2023, 102], tokens: 512",
        "epoch 3: loss=0.5 - val_loss: 0.4 - tokens: 300",
        "--max-tokens 512 --tokens 4 --key image",
        "password of user: bob",
        "docker run --user 1000:1000 image",
        "ssh://git@host/repo.git git@host:repo.git",
        "postgresql://me@host/db",
        "https://me:***@host",
        "sort_key=val_loss, rng_key=[0 1], key: 3",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "commit 3f2a1b4c5d6e7f8091a2b3c4d5e6f708192a3b4c",
        "model.layers.0.self_attn.q_proj.weight",
        "Basic block, basic training of networks",
        "2026-01-01T00:00:00.123456+00:00",
        "passes=3, first pass: done, bypass: yes",
        "columns=['password', 'token', 'name']",
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


def test_a_command_line_and_a_pair():
    """The next item is an option's value; of two items the first can be the name."""
    redactor = Redactor()
    shown = redactor.arguments(["curl", "-u", "me:pw", "--api-key", "hunter2hunter2", "--tokens", "5"])
    assert shown == ["curl", "-u", f"me:{REDACTED}", "--api-key", REDACTED, "--tokens", "5"]
    assert redactor.arguments(["X-Api-Key", "abc"]) == ["X-Api-Key", REDACTED]
    assert redactor.arguments(["password", "token", "name"]) == ["password", "token", "name"]
    assert redactor.text("got hunter2hunter2") == f"got {REDACTED}"


def test_a_vocabulary_is_not_looked_for_in_other_texts():
    """Under ``tokens`` it is taken for secrets; but no run has so many of those."""
    redactor = Redactor()
    assert redactor.value("tokens", [f"accuracy{n}" for n in range(101)]) == REDACTED
    assert redactor.text("accuracy7") == "accuracy7"


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a=",
        "://",
        "sk-",
        "a.",
        "password ",
        "-u ",
        "a(",
        "[",
        "--a ",
        "M",
        "machine ",
        "http",
        "'a'==",
        "key=",
        "token=[",
        "a b c ",
    ],
)
def test_long_texts_take_linear_time(text):
    """No text makes the patterns go back and forth: this test would take minutes."""
    text *= 200_000 // len(text)
    cleaned = Redactor().text(text)
    assert cleaned == text or REDACTED in cleaned
