"""Every shape of secret alone, and what the detectors of ``detect-secrets`` find."""

from __future__ import annotations

import random
import re
import string

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.keyword import DENYLIST
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlwrap._capture.redact import Redactor
from mlwrap._capture.secret_shapes import REDACTED, SHAPES

DETECTORS = {cls.__name__: cls for cls in get_mapping_from_secret_type_to_class().values()}
# Not by shape: an address of the internet is no secret, and without a name any digest is as random as a key.
NO_SHAPES = {"IPPublicDetector", "HexHighEntropyString", "Base64HighEntropyString"}
HEADERS = {"PrivateKeyDetector"}  # it looks for the first line alone; the key is behind it
# By name: "<name> <sign> <value>", for which a name is needed that says so.
BY_NAME = {
    "CloudantDetector",
    "IbmCloudIamDetector",
    "IbmCosHmacDetector",
    "SoftlayerDetector",
    "KeywordDetector",
}
GENERATED = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def key(alphabet: str, length: int) -> str:
    """What a service would generate."""
    return "".join(random.Random(length).choices(alphabet, k=length))


HEX, LETTERS = string.hexdigits[:16], string.ascii_lowercase
KEY = key(string.ascii_letters + string.digits, 44)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.words[0])
def test_whatever_a_pattern_matches_has_one_of_its_words(shape):
    """Else the pattern would never be asked for it."""

    @GENERATED
    @given(st.from_regex(shape.pattern))
    def holds(text: str) -> None:
        found = shape.pattern.search(text)
        assert found is not None
        assert any(word in text for word in shape.words)
        assert all(REDACTED in match[0] for match in shape.pattern.finditer(Redactor().text(text)))

    holds()


@pytest.mark.parametrize("name", sorted(DETECTORS.keys() - NO_SHAPES - BY_NAME - HEADERS))
def test_a_detector_finds_nothing_in_what_is_recorded(name):
    """Texts are made from the detector's own patterns; what it finds in them is redacted."""
    detector = DETECTORS[name]()
    for loose in detector.denylist:
        pattern = re.compile(loose.pattern, loose.flags & ~re.IGNORECASE)  # as the services write them

        @GENERATED
        @given(
            st.from_regex(
                pattern, fullmatch=True, alphabet=st.characters(min_codepoint=33, max_codepoint=126)
            )
        )
        def holds(text: str) -> None:
            found = set(detector.analyze_string(text))
            assert not found & set(detector.analyze_string(Redactor().text(text)))

        holds()


@pytest.mark.parametrize("header", [p.pattern for p in DETECTORS["PrivateKeyDetector"].denylist])
@pytest.mark.parametrize("dashes", ["-----{}-----", "---- {} ----"])
def test_a_private_key_goes_with_its_header(header, dashes):
    """To its end, or that of the text where it was cut."""
    first = header if header.startswith("PuTTY") else dashes.format(header)
    assert Redactor().text(f"see\n{first}\n{KEY}\n") == f"see\n{REDACTED}"


@pytest.mark.parametrize(
    "text",
    [
        f"cloudant_password = {key(HEX, 64)}",
        f"cloudant-apikey: '{key(LETTERS, 24)}'",
        f"cl_pw => {key(HEX, 64)}",
        f"https://me:{key(LETTERS, 24)}@me.cloudant.com",
        f"ibm_cloud_iam_key = {KEY}",
        f"cloud-iam-api-token: {KEY}",
        f"ibm_pass={KEY}",
        f"key = {KEY}",
        f"[ibm_password] := {KEY}",
        f"cos_hmac_secret_access_key: {key(HEX, 48)}",
        f"secret_key={key(HEX, 48)}",
        f"secret-access-key {key(HEX, 48)}",
        f"softlayer_api_key: {key(HEX, 64)}",
        f"sl_token = {key(HEX, 64)}",
        f"https://api.softlayer.com/soap/v3/{key(HEX, 64)}",
    ],
)
def test_keys_that_are_known_by_their_name(text):
    """As the detectors of these services look for them."""
    secret = max(re.findall(r"\w+", text), key=len)
    assert any(list(DETECTORS[name]().analyze_string(text)) for name in BY_NAME)
    assert secret not in Redactor().text(text)


@pytest.mark.parametrize(
    "word", dict.fromkeys(word.replace("_?", by) for word in DENYLIST for by in ("_", ""))
)
@pytest.mark.parametrize(
    "text",
    [
        'my_{} := "hunter2"',
        "{}: hunter2",
        '{}: "hunter2"',
        'my_{} = "hunter2"',
        '{}[] = "hunter2";',
        'char {}[25] = "hunter2";',
        'my_{} = @"hunter2"',
        '{} === "hunter2"',
        '{} !== "hunter2"',
        '"hunter2" == my_{}',
        '{}("hunter2")',
        '{}.assign("hunter2",17)',
        '{} "hunter2";',
        '{} => "hunter2"',
    ],
)
def test_names_in_source_code_and_settings(word, text):
    """The words and the forms of the keyword detector."""
    assert "hunter2" not in Redactor().text(text.format(word))
    assert "hunter2" not in Redactor().text(text.format(word.upper()))
