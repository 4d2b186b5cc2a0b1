"""From what a user has to an establishment: a token or access to the Director, secrets by reference."""

import base64
import json

import pytest
from quick_keys import QUICK_BITS
from steps import go, pending_of

from ucl_helpers.errors import NewTokenNeeded, ServerNotTrusted, Unreachable, UsageError
from ucl_helpers.models import NotNeeded, OneTimeToken
from ucl_helpers.procedures.establishment import DirectorAccess, Enrolment, access_from

pytest_plugins = ["procedure_fixtures"]
URL = "https://ucl.example/connector/graphql"
BARE, RAW = f"{'bare-token':-<86}==", f"{'raw-token':-<86}=="
DIRECTOR = {"director_url": URL, "tenant": "t", "application_id": "a", "bearer": "env:THE_BEARER"}


@pytest.fixture(autouse=True)
def secrets(monkeypatch, tmp_path):
    raw = json.dumps({"token": RAW, "connectorURL": URL}).encode()
    monkeypatch.setenv("THE_TOKEN", BARE)
    monkeypatch.setenv("THE_BEARER", "the-bearer")
    (tmp_path / "token").write_bytes(base64.b64encode(raw) + b"\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("given", "access"),
    [
        ({}, None),
        ({"token": "", "tenant": None, "bearer": ""}, None),
        ({"token": "env:THE_TOKEN", "connector_url": URL}, OneTimeToken(BARE, URL)),
        ({"token": "file:token"}, OneTimeToken(RAW, URL)),
        ({"token": "file:token", "connector_url": URL + "?x"}, OneTimeToken(RAW, URL + "?x")),
        (DIRECTOR, DirectorAccess(URL, "t", "a", "the-bearer")),
    ],
)
def test_what_is_given_is_the_way_in(given, access):
    assert access_from(given, None) == access


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({**DIRECTOR, "token": "env:THE_TOKEN"}, "Both a token and access to the Director"),
        ({"token": "env:THE_TOKEN", "tenant": "t"}, "Both a token and access to the Director"),
        *[({**DIRECTOR, name: ""}, f"Missing for the Director: {name}") for name in DIRECTOR],
        ({"tenant": "t"}, "director_url, application_id, bearer"),
        ({"token": "bare-token"}, "must be a reference"),
        ({**DIRECTOR, "bearer": "the-bearer"}, "must be a reference"),
        ({"token": "env:THE_TOKEN"}, "does not name its endpoint"),
        ({"token": "env:THE_TOKEN", "connector_url": URL + "?token=x"}, "an https URL without a token"),
        ({"token": "env:NOT_THERE"}, "NOT_THERE is empty or not set"),
    ],
)
def test_what_is_not_whole_is_an_error_without_the_secret(given, says):
    with pytest.raises(UsageError, match=says) as told:
        access_from(given, None)
    assert not any(secret in str(told.value) for secret in ("bare-token", "the-bearer", "raw-token"))


WORDS = ("x", "x" * 85, "x" * 89)
NO_WORDS = ("two words", "-----BEGIN CERTIFICATE-----", "<html>", "{}", "eyJ0b2tlbiI6")


@pytest.mark.parametrize("text", WORDS)
def test_a_word_of_another_length_is_refused_after_a_call_that_carries_no_token(ucl, between, monkeypatch, text):
    monkeypatch.setenv("THE_TOKEN", text)
    with pytest.raises(UsageError, match=f"has {len(text)} characters"):
        access_from({"token": "env:THE_TOKEN", "connector_url": between.connector_url}, ucl.ca_file)
    (call,) = between.calls
    assert call.token is None


def test_a_word_of_another_length_is_not_blamed_where_ucl_cannot_be_reached(ucl, between, monkeypatch):
    monkeypatch.setenv("THE_TOKEN", "x")
    given = {"token": "env:THE_TOKEN", "connector_url": between.connector_url}
    with pytest.raises(ServerNotTrusted):
        access_from(given, None)
    with pytest.raises(Unreachable):
        access_from({**given, "connector_url": "https://127.0.0.1:1/connector/graphql"}, ucl.ca_file)


@pytest.mark.parametrize("text", NO_WORDS)
def test_another_text_is_refused_without_a_call(ucl, between, monkeypatch, text):
    monkeypatch.setenv("THE_TOKEN", text)
    with pytest.raises(UsageError, match="It was not sent"):
        access_from({"token": "env:THE_TOKEN", "connector_url": between.connector_url}, ucl.ca_file)
    assert not between.calls


# -- begin -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def new(home):
    return home.new("new")


def test_by_the_director_a_token_is_fetched_only_if_one_is_needed(new, ucl, between, director):
    way = Enrolment(new, director, ucl.ca_file)
    go(way.begin(key_length=QUICK_BITS), "request")
    assert len(between.seen("token")) == 1
    establishment = way.begin(key_length=QUICK_BITS)
    assert go(establishment).outcome == "established"
    assert isinstance(way.begin().configuration(), NotNeeded)
    assert len(between.seen("token")) == 1


def test_with_a_token_a_cell_may_run_twice(new, ucl, between, token):
    way = Enrolment(new, token, ucl.ca_file)
    for upto in ("configuration", "configuration", "sign", "activate"):
        go(way.begin(key_length=QUICK_BITS), upto)
    assert new.current
    assert (len(between.seen("sign")), bool(pending_of(new).read_state())) == (1, False)


def test_without_either_only_what_was_interrupted_is_finished(new, ucl, token):
    way = Enrolment(new, None, ucl.ca_file)
    with pytest.raises(NewTokenNeeded):
        go(way.begin())
    go(Enrolment(new, token, ucl.ca_file).begin(key_length=QUICK_BITS), "sign")
    assert go(way.begin(key_length=QUICK_BITS)).outcome == "established"


def test_it_shows_the_way_and_no_secret(new, secure, director, token):
    shown = {str(Enrolment(new, access)) for access in (director, token, None)} | {str(Enrolment(secure, None))}
    assert [
        sum(text in one for one in shown) for text in ("the Director at", "a one-time token for", "none given")
    ] == [
        1,
        1,
        2,
    ]
    assert sum("not yet" in one for one in shown) == 3
    assert not any(secret in one + repr(shown) for one in shown for secret in (director.bearer, token.token))
    assert not any(
        secret in repr(Enrolment(new, one)) for one in (director, token) for secret in (director.bearer, token.token)
    )
