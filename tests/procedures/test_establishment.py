"""Establishing with a one-time token: each token is sent once, and the end is a whole connection or none."""

import base64
import json
import stat
from collections import Counter
from dataclasses import replace

import pytest
from meddler import answers, lost_on_the_way, lost_on_the_way_back, passes
from steps import STEPS, Clock, aside, events, go, install, pending_of, tree

from ucl_helpers import Establishment, establish, renew, revoke
from ucl_helpers.crypto import common_name
from ucl_helpers.errors import (
    AuthenticationFailed,
    NewTokenNeeded,
    RequestRejected,
    RetryLater,
    StorageFailed,
    Unavailable,
    Unreachable,
    UsageError,
)
from ucl_helpers.models import NotNeeded, OneTimeToken
from ucl_helpers.operations import CONFIGURATION_WITH_TOKEN, read_token
from ucl_helpers.wire.client import Client

pytest_plugins = ["procedure_fixtures"]


def tokens_sent(between):
    return Counter(call.token for call in between.calls if call.token)


def raw_encoded(token, url):
    return base64.b64encode(json.dumps({"token": token, "connectorURL": url, "used": False}).encode()).decode()


# -- tokens and where they come from -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [lambda token, url: token, raw_encoded, lambda token, url: f"{url}?token={token}"],
    ids=["bare", "rawEncoded", "URL"],
)
def test_a_token_in_each_of_its_forms_establishes(new, ucl, between, form):
    token = read_token(form(ucl.one_time_token(), between.connector_url))
    token = replace(token, connector_url=token.connector_url or between.connector_url)
    outcome = establish(new, token, ca_file=ucl.ca_file)
    assert (outcome.outcome, outcome.facts["fingerprint"]) == ("established", new.current.fingerprint)
    assert new.url == between.certificate_secured_connector_url
    assert new.current.server_ca.read_bytes() == ucl.ca_file.read_bytes()
    assert not pending_of(new)
    assert renew(new).facts["previous_fingerprint"] == outcome.facts["fingerprint"]


def test_a_token_without_its_endpoint_does_not(new, ucl, between):
    with pytest.raises(UsageError, match="endpoint is not known"):
        establish(new, OneTimeToken(ucl.one_time_token()), ca_file=ucl.ca_file)
    assert (new.current, between.calls) == (None, [])


def test_no_token_at_all_does_not(new, ucl):
    with pytest.raises(NewTokenNeeded, match="no one-time token is at hand") as needed:
        establish(new, None, ca_file=ucl.ca_file)
    assert needed.value.exit_code == 11


def test_with_access_to_the_director_the_token_comes_by_itself(new, ucl, between, director):
    assert establish(new, director, ca_file=ucl.ca_file).outcome == "established"
    assert len(between.seen("token")) == 1


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"bearer": "nobody"}, AuthenticationFailed),
        ({"application_id": "00000000-0000-0000-0000-000000000000"}, RequestRejected),
        ({"tenant": "nowhere"}, RequestRejected),
    ],
)
def test_with_wrong_access_it_does_not(new, ucl, director, wrong, error):
    with pytest.raises(error):
        establish(new, replace(director, **wrong), ca_file=ucl.ca_file)
    assert (new.current, bool(pending_of(new))) == (None, False)


def test_a_token_that_was_used_is_refused(new, ucl, token):
    with Client(token.connector_url, "token", ca_file=ucl.ca_file, headers={"connector-token": token.token}) as other:
        other.call(CONFIGURATION_WITH_TOKEN)
    with pytest.raises(AuthenticationFailed, match="was used before") as refusal:
        establish(new, token, ca_file=ucl.ca_file)
    assert "try it once more within its five minutes, which costs nothing" in refusal.value.remedy
    assert refusal.value.exit_code == 4
    assert new.current is None


def test_a_token_that_has_expired_is_refused(new, ucl, token, clock):
    clock.set(minutes=6)
    with pytest.raises(AuthenticationFailed, match="5 minutes"):
        establish(new, token, ca_file=ucl.ca_file)


# -- a token is sent once, and lies on disk no longer than it must -----------------------------------------------------


def test_the_kept_token_is_private_and_goes_when_it_is_used(new, ucl, token):
    establishment, kept = Establishment.begin(new, token, ca_file=ucl.ca_file), pending_of(new).path / "token"
    go(establishment, "request")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text() != token.token
    establishment.sign()
    assert not kept.exists()


@pytest.mark.parametrize("operation", ["configuration", "sign"])
@pytest.mark.parametrize("trouble", [lost_on_the_way_back, lost_on_the_way, answers(503), answers(429), answers(200)])
def test_no_token_is_ever_sent_twice(new, ucl, between, director, *, monkeypatch, operation, trouble):
    monkeypatch.setattr("ucl_helpers.wire.client.BACKOFF_SECONDS", (0.0, 0.0))
    between.on(operation, trouble)
    establish(new, director, ca_file=ucl.ca_file)
    assert set(tokens_sent(between).values()) == {1}


def test_a_token_alone_that_may_have_arrived_is_not_sent_again(new, ucl, between, token):
    between.on("configuration", lost_on_the_way_back)
    with pytest.raises(RetryLater, match="its token is used up: then get a new one"):
        establish(new, token, ca_file=ucl.ca_file)
    assert set(tokens_sent(between).values()) == {1}


def test_by_certificate_the_same_trouble_is_met_by_asking_again(new, ucl, between, director, monkeypatch):
    monkeypatch.setattr("ucl_helpers.wire.client.BACKOFF_SECONDS", (0.0, 0.0))
    between.on("configuration", passes, lost_on_the_way_back)
    assert establish(new, director, ca_file=ucl.ca_file).outcome == "established"
    assert len(between.seen("configuration")) == 3


# -- the answer with the certificate is lost ---------------------------------------------------------------------------


@pytest.fixture
def lost(new, ucl, between, token):
    """An establishment whose signing request was sent and never answered."""
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(NewTokenNeeded, match="its token is gone") as needed:
        establish(new, token, ca_file=ucl.ca_file)
    assert needed.value.exit_code == 11
    return new


def test_then_key_and_csr_are_kept_and_nothing_is_sent_without_a_token(lost, ucl, between):
    kept, sent = tree(pending_of(lost).path), len(between.calls)
    with pytest.raises(NewTokenNeeded):
        establish(lost, None, ca_file=ucl.ca_file)
    assert {"key.pem", "csr.pem", "state.json"} <= set(tree(pending_of(lost).path)) == set(kept)
    assert (lost.current, len(between.calls)) == (None, sent)


def test_then_another_token_for_the_same_client_finishes_it(lost, ucl, token):
    key = pending_of(lost).key_path.read_bytes()
    client = pending_of(lost).read_state().configuration.subject.rpartition("CN=")[2]
    again = replace(token, token=ucl._memory.issue_token(client)["token"])
    assert establish(lost, again, ca_file=ucl.ca_file).outcome == "established"
    assert (lost.current.path / "key.pem").read_bytes() == key
    assert aside(lost) == []


def test_then_a_token_for_another_client_sets_it_aside(lost, ucl, token):
    key = pending_of(lost).key_path.read_bytes()
    other = replace(token, token=ucl.one_time_token())
    assert establish(lost, other, ca_file=ucl.ca_file).outcome == "established"
    assert [(one / "key.pem").read_bytes() for one in aside(lost)] == [key]


def test_with_access_to_the_director_a_lost_token_is_replaced_once(new, ucl, between, director):
    between.on("sign", lost_on_the_way_back)
    assert establish(new, director, ca_file=ucl.ca_file).outcome == "established"
    assert len(between.seen("token")) == 2


def test_but_not_twice(new, ucl, between, director):
    between.on("sign", lost_on_the_way_back, lost_on_the_way_back)
    with pytest.raises(NewTokenNeeded):
        establish(new, director, ca_file=ucl.ca_file)
    assert len(between.seen("token")) == 2


@pytest.mark.parametrize(("trouble", "error"), [(lost_on_the_way_back, Unreachable), (answers(503), Unavailable)])
def test_when_the_very_first_answer_is_lost_it_says_what_became_of_the_token(
    new, ucl, between, token, *, trouble, error
):
    between.on("configuration", trouble)
    with pytest.raises(error, match="If the request arrived, its token is used up") as told:
        establish(new, token, ca_file=ucl.ca_file)
    assert told.value.exit_code == 3


# -- interrupted -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upto", STEPS[:-1])
def test_what_was_interrupted_is_finished_without_a_token(new, ucl, between, token, upto):
    first = Establishment.begin(new, token, ca_file=ucl.ca_file)
    go(first, upto)
    again = Establishment.begin(new, ca_file=ucl.ca_file)
    assert again.can_go_on()
    assert go(again).outcome == "established"
    assert len(between.seen("sign")) == 1


@pytest.mark.parametrize("minutes", [4, 6])
def test_a_kept_token_is_good_for_five_minutes(new, ucl, token, minutes):
    go(Establishment.begin(new, token, ca_file=ucl.ca_file), "request")
    pending_of(new).update(created=Clock(minutes=-minutes)().isoformat())
    later = Establishment.begin(new, ca_file=ucl.ca_file)
    assert later.can_go_on() is (minutes == 4)
    if minutes == 4:
        go(later)
    else:
        with pytest.raises(NewTokenNeeded, match="no one-time token is at hand"):
            later.configuration()


# -- a name that is taken ----------------------------------------------------------------------------------------------


def test_what_ucl_still_accepts_is_not_replaced(secure, ucl, token):
    before = tree(secure.path)
    with pytest.raises(UsageError, match="UCL accepts its certificate"):
        establish(secure, token, ca_file=ucl.ca_file)
    assert tree(secure.path) == before
    establishment = Establishment.begin(secure, token, only_if_needed=True)
    assert all(isinstance(getattr(establishment, name)(), NotNeeded) for name in STEPS)
    assert establishment.outcome().outcome == "already-established"


def expired(home, ucl, clock, between, folder):
    clock.set(days=-91)
    connection = install(home, ucl, folder, url=between.certificate_secured_connector_url)
    clock.set()
    return connection


@pytest.mark.parametrize("why", ["expired", "revoked here", "deleted there", "damaged"])
def test_what_no_longer_works_gets_a_new_generation(secure, home, ucl, clock, *, between, token, tmp_path, why):
    if why == "expired":
        secure = expired(home, ucl, clock, between, tmp_path)
    elif why == "revoked here":
        revoke(secure)
    elif why == "deleted there":
        ucl._memory.delete_system_auth(common_name(secure.current.certificate.subject))
    else:
        (secure.current.path / "key.pem").write_text("gone")
        with pytest.raises(StorageFailed):
            renew(secure)
    before = secure.current
    outcome = establish(secure, token, ca_file=ucl.ca_file)
    assert outcome.facts["previous_fingerprint"] == before.fingerprint
    assert secure.current != before
    assert events(secure)[-1] == "established"
    assert renew(secure).outcome == "renewed"


def test_when_ucl_cannot_be_asked_nothing_is_replaced(secure, ucl, between, token):
    between.on("configuration", lost_on_the_way)
    with pytest.raises(Unreachable):
        establish(secure, token, ca_file=ucl.ca_file)
    assert tokens_sent(between) == {}
