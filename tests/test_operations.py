"""What is sent fits the schema, and an answer becomes a model or an error that names the field."""

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.resources import files

import pytest
from contract_replay import load
from cryptography import x509
from graphql import build_schema, parse, validate

from ucl_helpers import operations
from ucl_helpers.checks import Expected
from ucl_helpers.crypto import parse_subject, same_subject
from ucl_helpers.errors import BadAnswer, ChecksFailed, EmptyAnswer, RequestRejected, UsageError
from ucl_helpers.keys import load_key
from ucl_helpers.models import Configuration, OneTimeToken, SignedCertificates
from ucl_helpers.operations import configuration_from, read_token, result_of, signed_from, token_from
from ucl_helpers.steps import decode

SCHEMAS = {
    name: build_schema(files("ucl_sandbox").joinpath(f"{name}.graphql").read_text()) for name in ("schema", "director")
}
CONNECTOR, DIRECTOR = SCHEMAS["schema"], SCHEMAS["director"]
TEXTS = {name: value for name, value in vars(operations).items() if name.isupper() and isinstance(value, str)}
OF_DIRECTOR = {"ONE_TIME_TOKEN", "VIEWER"}
EXCHANGES = {one["name"]: one for one in load("exchanges.json")}
SIGNED = [name for name, one in EXCHANGES.items() if "certificateChain" in one["responseBody"]]
TOKEN = "2ClhTW-dMgEWl9yb7j3XqzqHBCS4yvQsTPMfL94PIRu4viPgy0HroCo9BHzSIHzel0DWp67uZbB3QfcDX7__Pg=="
URL = "https://ucl.example/connector/graphql"


# -- operations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(name for name in TEXTS if not name.startswith("_")))
def test_an_operation_fits_its_schema_and_not_the_other(name):
    fits, other = (DIRECTOR, CONNECTOR) if name in OF_DIRECTOR else (CONNECTOR, DIRECTOR)
    document = parse(TEXTS[name])
    assert validate(fits, document) == []
    assert validate(other, document) != []


@pytest.mark.kind("outages: when a token expires")
@pytest.mark.parametrize(
    ("told", "expires"),
    [
        ("2026-11-30T10:00:00Z", datetime(2026, 11, 30, 10, tzinfo=UTC)),
        ("2026-11-30T10:00:00.123456789Z", datetime(2026, 11, 30, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2026-11-30T12:00:00+02:00", datetime(2026, 11, 30, 10, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2026-11-30T10:00:00", None),
        ("soon", None),
        (None, None),
        (5, None),
    ],
)
def test_a_token_says_when_it_expires_if_that_can_be_read(told, expires):
    raw = json.dumps({"token": TOKEN, "connectorURL": URL, "expiresAt": told})
    assert read_token(base64.b64encode(raw.encode()).decode()) == OneTimeToken(TOKEN, URL, expires)


def test_a_field_that_does_not_exist_would_be_found():
    assert validate(CONNECTOR, parse(operations.SIGN.replace("caCertificate", "rootCertificate"))) != []


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_result_is_unwrapped():
    assert result_of({"data": {"result": {"a": 1}}}) == {"a": 1}
    assert result_of({"data": {"result": False}}) is False


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ([], BadAnswer, "not a GraphQL answer but a list"),
        (None, BadAnswer, "but null"),
        ("x", BadAnswer, "but a text"),
        (True, BadAnswer, "but true or false"),
        (1.5, BadAnswer, "but a number"),
        ({}, EmptyAnswer, "neither data nor an error"),
        ({"data": None}, EmptyAnswer, "neither data nor an error"),
        ({"data": {}, "errors": []}, EmptyAnswer, "neither data nor an error"),
        ({"data": {"result": None}}, EmptyAnswer, "neither data nor an error"),
        ({"data": []}, BadAnswer, "no data.result"),
        ({"data": {"other": 1}}, BadAnswer, "no data.result"),
        ({"data": {"result": 1}, "errors": [{"message": "no"}]}, RequestRejected, "rejected the request: no"),
        ({"errors": "no"}, RequestRejected, "rejected the request: no"),
        ({"errors": [{"message": ["no"]}, 5]}, RequestRejected, "without a text; an error without a text"),
    ],
)
def test_an_answer_without_a_result_is_an_error(answer, error, text):
    with pytest.raises(error, match=re.escape(text)):
        result_of(answer)


def test_errors_are_kept_as_data_and_bounded():
    with pytest.raises(RequestRejected) as caught:
        result_of({"errors": [{"message": "x" * 10_000}] * 100})
    assert caught.value.data["errors"] == ["x" * 500] * 10


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("Unauthorized [reason=invalid bearer token]", "the URL is the Director's"),
        ("Object not found [object=application]", "Check the ID"),
        ("CSR: Invalid common name provided.", "subject"),
        ("illegal base64 data", "one line"),
        ("no", "request id"),
    ],
)
def test_a_rejection_says_what_to_do(text, remedy):
    with pytest.raises(RequestRejected) as caught:
        result_of({"errors": [{"message": text}]})
    assert remedy in caught.value.remedy


# -- models ------------------------------------------------------------------------------------------------------------

INFO = {"subject": "O=Org,CN=x", "keyAlgorithm": "rsa2048"}
PLANE = {"directorURL": "https://director.example", "certificateSecuredConnectorURL": URL}
CONFIGURED = {"certificateSigningRequestInfo": INFO, "managementPlaneInfo": PLANE, "token": {"token": TOKEN}}
PARTS = {"certificateChain": "YQ==", "caCertificate": "Yg==", "clientCertificate": "Yw=="}


def test_a_configuration_is_read():
    expected = Configuration("O=Org,CN=x", "rsa2048", PLANE["directorURL"], URL, TOKEN)
    found = configuration_from(CONFIGURED)
    assert (found, found.token) == (expected, TOKEN)


@pytest.mark.parametrize("plane", [None, {}, dict.fromkeys(PLANE), dict.fromkeys(PLANE, "")])
def test_urls_and_token_may_be_missing(plane):
    found = configuration_from({"certificateSigningRequestInfo": INFO, "managementPlaneInfo": plane, "token": None})
    assert (found.director_url, found.certificate_secured_connector_url, found.token) == (None, None, None)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"certificateSigningRequestInfo": None}, "certificateSigningRequestInfo"),
        ({"certificateSigningRequestInfo": "x"}, "certificateSigningRequestInfo"),
        ({"certificateSigningRequestInfo": {**INFO, "subject": None}}, "subject"),
        ({"certificateSigningRequestInfo": {**INFO, "subject": ""}}, "subject"),
        ({"certificateSigningRequestInfo": {"subject": "CN=x"}}, "keyAlgorithm"),
        ({"managementPlaneInfo": []}, "managementPlaneInfo"),
        ({"managementPlaneInfo": {"directorURL": 1}}, "directorURL"),
        ({"managementPlaneInfo": {"certificateSecuredConnectorURL": {}}}, "certificateSecuredConnectorURL"),
        ({"token": "bare"}, "token"),
        ({"token": {"token": 5}}, "token"),
        ({"token": {"token": "two\nlines"}}, "token"),
        ({"token": {"token": "€"}}, "token"),
    ],
)
def test_a_malformed_configuration_names_the_field(changed, field):
    with pytest.raises(BadAnswer, match=rf"^{field} in UCL's answer"):
        configuration_from({**CONFIGURED, **changed})


@pytest.mark.parametrize("result", [None, [], "text", 1])
def test_a_result_of_another_kind_names_the_first_field(result):
    with pytest.raises(BadAnswer, match="certificateSigningRequestInfo"):
        configuration_from(result)
    with pytest.raises(BadAnswer, match="certificateChain"):
        signed_from(result)
    with pytest.raises(BadAnswer, match="token"):
        token_from(result)


@pytest.mark.parametrize("field", PARTS)
@pytest.mark.parametrize("value", [None, "", 5, ["YQ=="]])
def test_a_malformed_signature_names_the_field(field, value):
    assert signed_from(PARTS) == SignedCertificates("YQ==", "Yg==", "Yw==")
    with pytest.raises(BadAnswer, match=rf"^{field} in UCL's answer"):
        signed_from({**PARTS, field: value})


# -- tokens ------------------------------------------------------------------------------------------------------------


def raw_encoded(**raw):
    return base64.b64encode(json.dumps(raw).encode()).decode()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (TOKEN, None),
        (f"  {TOKEN}\n", None),
        (raw_encoded(token=TOKEN, connectorURL=URL, used=False), URL),
        (raw_encoded(token=TOKEN, connectorURL=""), None),
        (f"{URL}?token={TOKEN}", URL),
        (f"{URL}?a=b&token={TOKEN}#part", URL),
        (f"https://adapter.example/v1/signing?token={TOKEN}", None),
    ],
)
def test_a_token_is_understood_as_the_director_gives_it(text, url):
    assert read_token(text) == OneTimeToken(TOKEN, url)
    assert token_from({"token": text, "connectorURL": url}) == OneTimeToken(TOKEN, url)


LINES = {
    "raw, escaped": json.dumps(json.dumps({"token": TOKEN, "connectorURL": URL, "text": 'a "quote"'})),
    "raw, a line of JSON": '"raw": ' + json.dumps(json.dumps({"token": TOKEN, "connectorURL": URL})) + ",",
    "rawEncoded, a line of JSON": f'  "rawEncoded": "{raw_encoded(token=TOKEN, connectorURL=URL)}",\n',
    "rawEncoded as a bearer": f"Bearer {raw_encoded(token=TOKEN, connectorURL=URL)}",
}


@pytest.mark.parametrize("text", LINES.values(), ids=LINES)
def test_a_token_is_read_from_a_line_of_the_directors_answer(text):
    assert read_token(text) == OneTimeToken(TOKEN, URL)


def test_a_token_that_is_marked_as_used_is_refused():
    with pytest.raises(UsageError, match="is used up"):
        read_token(raw_encoded(token=TOKEN, connectorURL=URL, used=True))
    assert read_token(raw_encoded(token=TOKEN, connectorURL=URL, used=False)) == OneTimeToken(TOKEN, URL)


DEEP = base64.b64encode(b"[" * 100_000).decode()


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "two words", "two\nlines", "tokén", "\ud800", URL, f"{URL}?token=", "https://[?token=abc"),
        *(f"{URL}?token=a%0Ab", raw_encoded(token="a b")),
    ],
)
def test_what_is_no_token_is_an_error_that_does_not_repeat_it(text):
    with pytest.raises(UsageError) as caught:
        read_token(text)
    assert not text.strip() or text not in str(caught.value)
    with pytest.raises(BadAnswer, match="token"):
        token_from({"token": text})


@pytest.mark.parametrize("text", [DEEP, raw_encoded(token=5), raw_encoded(token=""), raw_encoded(other="x"), "short"])
def test_a_form_that_is_not_known_is_taken_from_ucl_and_not_from_a_user(text):
    assert token_from({"token": text}) == OneTimeToken(text)
    with pytest.raises(UsageError, match="It was not sent"):
        read_token(text)


# -- what the real Connector answered ----------------------------------------------------------------------------------


def answered(name):
    one = EXCHANGES[name]
    return result_of(json.loads(one["responseBody"])), parsedate_to_datetime(one["date"]).astimezone(UTC)


def asked(name):
    """The key and the subject that a certificate was asked for with."""
    one = EXCHANGES[name]
    csr = one["request"].get("variables", {}).get("csr") or re.search('csr: "([^"]+)"', one["request"]["query"])[1]
    request = x509.load_pem_x509_csr(base64.b64decode(csr))
    return load_key(one["privateKeyPem"].encode()), request.subject


def check(name, *, key=None, subject=None, later=timedelta(0)):
    result, date = answered(name)
    signed, (own_key, own_subject) = signed_from(result), asked(name)
    public = (key or own_key).public_key()
    expected = Expected(public, subject or own_subject, server_now=date + later, local_now=date + later)
    return [check.name for check in decode(signed, expected).checks if check.status != "ok"]


@pytest.mark.parametrize("name", ["config-token-full", "cert-config-tutorial"])
def test_a_recorded_configuration_is_understood(name):
    found = configuration_from(answered(name)[0])
    assert same_subject(
        parse_subject(found.subject),
        parse_subject(f"C=DE,ST=province,L=locality,O=Org,OU=OrgUnit,CN={found.subject[-36:]}"),
    )
    whole = name == "config-token-full"  # the tutorial asks for less
    assert (found.key_algorithm, bool(found.token)) == ("rsa2048", whole)
    assert (found.certificate_secured_connector_url or "").endswith("/connector/graphql") == whole


@pytest.mark.parametrize("name", SIGNED)
def test_a_recorded_certificate_passes_every_check(name):
    assert check(name) == []


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize(
    ("changed", "failed"),
    [
        ({"subject": parse_subject("CN=somebody else")}, ["subject"]),
        ({"later": timedelta(minutes=-6)}, ["valid now"]),
        ({"later": timedelta(days=91)}, ["valid now"]),
    ],
    ids=["another subject", "before", "after"],
)
def test_and_fails_the_one_that_is_not_met(name, changed, failed):
    with pytest.raises(ChecksFailed) as caught:
        check(name, **changed)
    assert caught.value.data["failed"] == failed


def test_and_fails_with_another_key():
    other = asked("sign-rsa2048-variable")[0]
    with pytest.raises(ChecksFailed) as caught:
        check("sign-rsa4096-variable", key=other)
    assert caught.value.data["failed"] == ["key"]


def test_a_recorded_rejection_says_why():
    with pytest.raises(RequestRejected, match="Invalid common name provided"):
        answered("sign-wrong-CN")
