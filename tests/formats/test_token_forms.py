"""One-time tokens and bearers in the forms in which people have them; what is none is refused before it is sent."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_keys import QUICK_BITS
from steps import go

from ucl_helpers.errors import NewTokenNeeded, UsageError
from ucl_helpers.models import OneTimeToken
from ucl_helpers.operations import read_bearer, read_token
from ucl_helpers.procedures.establishment import Enrolment, access_from

pytest_plugins = ["procedure_fixtures"]
TOKEN = "2ClhTW-dMgEWl9yb7j3XqzqHBCS4yvQsTPMfL94PIRu4viPgy0HroCo9BHzSIHzel0DWp67uZbB3QfcDX7__Pg=="
URL = "https://ucl.example/connector/graphql"
LEGACY = f"https://adapter.ucl.example/v1/applications/signingRequests/info?token={TOKEN}"
RAW = json.dumps({"token": TOKEN, "connectorURL": URL, "used": False, "usedAt": "0001-01-01T00:00:00Z"})
ENCODED = base64.b64encode(RAW.encode()).decode()
URL_SAFE = base64.urlsafe_b64encode(RAW.replace(URL, f"{URL}?>>>").encode()).decode()
ANSWER = json.dumps({"data": {"result": {"token": TOKEN, "connectorURL": URL, "legacyConnectorURL": LEGACY}}})


def wrapped(text, width=40):
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


FORMS = {
    "bare": (TOKEN, None),
    "bare, without the end": (TOKEN.rstrip("="), None),
    "bare, in quotes": (f'"{TOKEN}"', None),
    "bare, in single quotes": (f"'{TOKEN}'", None),
    "bare, in typographic quotes": (f"\u201c{TOKEN}\u201d", None),
    "bare, in backticks": (f"`{TOKEN}`", None),
    "bare, with blanks": (f"  {TOKEN}\r\n", None),
    "bare, wrapped": (wrapped(TOKEN), None),
    "bare, wrapped with an indent": (wrapped(TOKEN).replace("\n", "\n   "), None),
    "bare, with invisible characters": (f"\ufeff{TOKEN[:20]}\u200b{TOKEN[20:]}\u00a0", None),
    "bare, with a written line break": (f"{TOKEN}\\n", None),
    "as a header, in quotes": (f'"Connector-Token: {TOKEN}"', None),
    "as a header": (f"connector-token: {TOKEN}", None),
    "as a field": (f'token: "{TOKEN}"', None),
    "rawEncoded": (ENCODED, URL),
    "rawEncoded, wrapped": (wrapped(ENCODED, 76), URL),
    "rawEncoded, wrapped with written line breaks": (wrapped(ENCODED, 76).replace("\n", "\\n"), URL),
    "rawEncoded, URL-safe": (URL_SAFE, f"{URL}?>>>"),
    "rawEncoded, in quotes": (f'"{ENCODED}"', URL),
    "rawEncoded, without the end": (ENCODED.rstrip("="), URL),
    "raw": (RAW, URL),
    "raw, wrapped": (wrapped(RAW), URL),
    "raw, indented": (json.dumps(json.loads(RAW), indent=2), URL),
    "raw, as a JSON text": (json.dumps(RAW), URL),
    "raw, with escaped quotes": (RAW.replace('"', '\\"'), URL),
    "raw, in single quotes": (f"'{RAW}'", URL),
    "the Director's answer": (ANSWER, URL),
    "the Director's answer, with rawEncoded alone": (json.dumps({"data": {"result": {"rawEncoded": ENCODED}}}), URL),
    "JSON whose token is rawEncoded": (json.dumps({"token": ENCODED}), URL),
    "URL": (f"{URL}?token={TOKEN}", URL),
    "URL, in capitals": (f"HTTPS{URL[5:]}?token={TOKEN}", URL),
    "URL, encoded": (f"{URL}?token={TOKEN.replace('=', '%3D')}", URL),
    "URL, from HTML": (f"{URL}?a=b&amp;token={TOKEN}", URL),
    "URL, wrapped": (wrapped(f"{URL}?token={TOKEN}"), URL),
    "URL, in quotes": (f"'{URL}?token={TOKEN}'", URL),
    "legacyConnectorURL": (LEGACY, None),
}


@pytest.mark.kind("foreign files: forms of a token")
@pytest.mark.parametrize(("text", "url"), FORMS.values(), ids=FORMS)
def test_a_token_is_read_in_every_form(text, url):
    assert read_token(text) == OneTimeToken(TOKEN, url)


NO_TOKENS = {
    "empty": (" \n", "is empty"),
    "cut off": (TOKEN[:-9], "has 79 characters, and a token has 88"),
    "two of them": (f"{TOKEN} {TOKEN}", "has 176 characters"),
    "a word": ("changeme", "has 8 characters"),
    "a UUID": ("0b9c5f2e-5d3c-4b52-8a39-0a6a54d2bd9b", "has 36 characters"),
    "standard base64": (TOKEN.replace("-", "+").replace("_", "/"), "has characters that no token has"),
    "a JWT": ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", "is a JWT"),
    "a reference": ("file:/run/secrets/token", "is a reference itself"),
    "a key": ("-----BEGIN PRIVATE KEY-----\nMII\n", "is PEM"),
    "raw, cut off": (RAW[:-30], "is JSON or a page without a token in it, or was cut off"),
    "rawEncoded, cut off": (ENCODED[:-20], "is damaged or was cut off"),
    "an answer with errors": ('{"errors": [{"message": "no"}], "data": null}', "without a token in it"),
    "a page": ("<html><body>Log in</body></html>", "without a token in it"),
    "a URL without a token": (URL, "is a URL without ?token="),
    "a URL that is cut off": (f"{URL}?token={TOKEN[:50]}", "in the URL has 50 characters"),
}


@pytest.mark.kind("foreign files: what is no token")
@pytest.mark.parametrize(("text", "says"), NO_TOKENS.values(), ids=NO_TOKENS)
def test_what_is_no_token_is_named_and_not_repeated(text, says):
    with pytest.raises(UsageError) as caught:
        read_token(text)
    assert says in caught.value.message
    assert caught.value.remedy
    assert not text.strip() or text[:30].strip() not in str(caught.value)


BEARERS = {
    "alone": "a.b-c_d~e+f/g==",
    "prefix": "Bearer a.b-c_d~e+f/g==",
    "prefix in small letters": "bearer  a.b-c_d~e+f/g==",
    "prefix with a colon": "Bearer: a.b-c_d~e+f/g==",
    "header": "Authorization: Bearer a.b-c_d~e+f/g==",
    "quoted": '"a.b-c_d~e+f/g=="',
    "prefix, quoted": '"Bearer a.b-c_d~e+f/g=="',
    "prefix and quotes": 'Bearer "a.b-c_d~e+f/g=="',
    "wrapped": "Bearer a.b-c_d\n~e+f/g==\r\n",
    "as issued": '{"access_token": "a.b-c_d~e+f/g==", "token_type": "bearer", "expires_in": 43199}',
}


@pytest.mark.kind("foreign files: forms of a bearer")
@pytest.mark.parametrize("text", BEARERS.values(), ids=BEARERS)
def test_a_bearer_is_read_in_every_form(text):
    assert read_bearer(text) == "a.b-c_d~e+f/g=="


@pytest.mark.kind("foreign files: forms of a bearer")
@pytest.mark.parametrize(
    "text", ["", "Bearer ", '{"clientid": "x", "clientsecret": "hunter2"}', "<html>", "pässwörd", "Basic YTpi"]
)
def test_what_is_no_bearer_is_refused_and_not_repeated(text):
    with pytest.raises(UsageError, match="no bearer token") as caught:
        read_bearer(text)
    assert "hunter2" not in str(caught.value)


STEPS = {
    "quotes": lambda text: f'"{text}"',
    "blanks": lambda text: f" \t{text}\r\n",
    "JSON": lambda text: json.dumps({"data": {"result": {"rawEncoded": text}}}),
    "base64 of JSON": lambda text: base64.b64encode(json.dumps({"token": text}).encode()).decode(),
}


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=64, max_size=64), st.lists(st.sampled_from(list(STEPS)), max_size=2))
def test_any_mix_of_forms_yields_the_same_token(drawn, steps):
    token = text = base64.urlsafe_b64encode(drawn).decode()
    for step in steps:
        text = STEPS[step](text)
    assert read_token(text) == OneTimeToken(token)


# -- where it is for ---------------------------------------------------------------------------------------------------


def test_the_endpoint_is_remembered_while_a_new_token_is_needed(home, ucl, between, monkeypatch):
    connection = home.new("new")
    monkeypatch.setenv("THE_TOKEN", ucl.one_time_token())
    first = access_from({"token": "env:THE_TOKEN", "connector_url": between.connector_url}, None, connection)
    establishment = Enrolment(connection, first, ucl.ca_file).begin(key_length=QUICK_BITS)
    go(establishment, "request")
    connection.pending.keep_token(None)  # as after five minutes
    with pytest.raises(NewTokenNeeded):
        establishment.sign()
    monkeypatch.setenv("THE_TOKEN", ucl.one_time_token())
    second = access_from({"token": "env:THE_TOKEN"}, None, connection)
    assert second.connector_url == between.connector_url
    assert go(Enrolment(connection, second, ucl.ca_file).begin(key_length=QUICK_BITS)).outcome == "established"
    with pytest.raises(UsageError, match="does not name its endpoint"):
        access_from({"token": "env:THE_TOKEN"}, None, connection)


@pytest.mark.parametrize("form", [f"{URL}?token={{}}", '{{"token": "{}", "connectorURL": "' + URL + '"}}'])
def test_what_a_token_names_comes_before_what_is_remembered(form, home, ucl, between, *, token, monkeypatch):
    connection = home.new("new")
    go(Enrolment(connection, token, ucl.ca_file).begin(key_length=QUICK_BITS), "request")
    monkeypatch.setenv("THE_TOKEN", form.format(TOKEN))
    assert access_from({"token": "env:THE_TOKEN"}, None, connection).connector_url == URL
    monkeypatch.setenv("THE_TOKEN", TOKEN)
    assert access_from({"token": "env:THE_TOKEN"}, None, connection).connector_url == between.connector_url


def test_without_an_endpoint_the_error_names_the_option(home, monkeypatch):
    monkeypatch.setenv("THE_TOKEN", LEGACY)
    with pytest.raises(UsageError, match=r"--connector-url https://.*legacyConnectorURL is another"):
        access_from({"token": "env:THE_TOKEN"}, None, home.new("new"))
    found = access_from({"token": "env:THE_TOKEN", "connector_url": URL}, None, home.new("new"))
    assert found == OneTimeToken(TOKEN, URL)
