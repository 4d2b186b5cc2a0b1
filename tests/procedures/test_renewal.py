"""The tutorial's four steps, verify and activate: step by step, at once, interrupted, twice, and by two at a time."""

import base64
from itertools import pairwise

import pytest
from meddler import changes, lost_on_the_way, lost_on_the_way_back
from quick_keys import QUICK_BITS
from steps import STEPS, Clock, events, go, in_other_hands, install, judged, pending_of, tree

from ucl_helpers import Renewal, renew
from ucl_helpers.crypto import common_name
from ucl_helpers.errors import (
    AuthenticationFailed,
    Busy,
    CertificateRejected,
    NotYetAccepted,
    PossibleOutage,
    Refused,
    SettledElsewhere,
    UnknownConnection,
    Unreachable,
    UsageError,
)
from ucl_helpers.models import Outcome

pytest_plugins = ["procedure_fixtures"]


def test_the_ten_lines_of_the_tutorial_renew(secure, between):
    old = secure.current
    renewal = Renewal.begin(secure, key_length=QUICK_BITS)
    config = renewal.configuration()
    request = renewal.request()
    signed = renewal.sign()
    identity = renewal.decode()
    verification = renewal.verify()
    outcome = renewal.activate()
    new = secure.current
    assert (outcome.outcome, outcome.facts["previous_fingerprint"]) == ("renewed", old.fingerprint)
    assert new.fingerprint == identity.fingerprint != old.fingerprint
    assert new.certificate.subject == old.certificate.subject
    assert config.subject == request.subject == new.facts["subject"]
    assert (new.path / "chain.pem").read_bytes() == base64.b64decode(signed.certificate_chain)
    assert new.certificate.public_key().key_size == request.bits == QUICK_BITS
    assert verification.url == secure.url == between.certificate_secured_connector_url
    assert renewal.outcome() == outcome
    assert not pending_of(secure)
    assert events(secure) == ["signing-requested", "renewed"]


def test_renew_is_these_lines(home, ucl, between, tmp_path, secure):
    url = between.certificate_secured_connector_url
    other = install(home, ucl, tmp_path, url=url, name="other")
    by_steps, at_once = go(Renewal.begin(secure)), renew(other)
    assert set(by_steps.facts) == set(at_once.facts)
    assert events(secure) == events(other)
    assert tree(secure.path).keys() == {
        path.replace(other.current.name, secure.current.name).replace(
            other.generations()[0].name, secure.generations()[0].name
        )
        for path in tree(other.path)
    }


def test_the_new_identity_speaks_over_a_full_handshake_of_its_own(secure, between):
    old = secure.current.fingerprint
    renew(secure)
    *asked, verified = between.calls
    assert {(call.fingerprint, call.connection) for call in asked} == {(old, 0)}
    assert (verified.fingerprint, verified.connection, verified.resumed) == (secure.current.fingerprint, 1, False)


def test_the_old_identity_stays_untouched_until_the_switch(secure):
    old, kept = secure.current, tree(secure.current.path)
    renewal = Renewal.begin(secure)
    for name in STEPS[:-1]:
        getattr(renewal, name)()
        assert (secure.current, tree(old.path)) == (old, kept), name
    renewal.activate()
    assert secure.current != old
    assert tree(old.path) == kept


@pytest.mark.parametrize("upto", STEPS)
def test_an_interrupted_renewal_goes_on_with_the_same_key(secure, upto):
    first = Renewal.begin(secure)
    go(first, upto)
    first.close()
    key = pending_of(secure).key_path
    kept = key.read_bytes() if key.exists() else None
    signed = pending_of(secure).answer()
    again = Renewal.begin(secure)
    go(again, "request")
    assert kept is None or key.read_bytes() == kept
    go(again, since="sign")
    assert kept is None or (secure.current.path / "key.pem").read_bytes() == kept
    assert signed is None or again.sign() == signed
    assert len(secure.generations()) == 2 + (upto == "activate")


def test_a_step_that_is_run_twice_shows_the_same(secure):
    renewal = Renewal.begin(secure)
    once = {}
    for name in STEPS:
        once[name] = getattr(renewal, name)()
        twice = getattr(renewal, name)()
        assert (twice, str(twice)) == (once[name], str(once[name]))
    assert {name: getattr(renewal, name)() for name in STEPS} == once
    assert len(secure.generations()) == 2


def test_the_configuration_alone_is_asked_for_again(secure, between):
    renewal = Renewal.begin(secure)
    go(renewal, "request")
    go(renewal, "request")
    assert len(between.seen("configuration")) == 2


def test_when_it_changed_meanwhile_the_steps_after_it_are_run_again(secure, between):
    renewal = Renewal.begin(secure, accept_new_subject=True)
    go(renewal, "request")
    info = {"subject": "O=Org,OU=OrgUnit,L=locality,ST=province,C=PL,CN=somebody", "keyAlgorithm": "rsa2048"}
    between.on("configuration", changes(certificateSigningRequestInfo=info))
    renewal.configuration()
    with pytest.raises(UsageError, match=r"sign\(\) comes after request\(\)"):
        renewal.sign()
    assert renewal.request().subject == info["subject"]
    renewal.close()


def test_steps_have_an_order(secure):
    renewal = Renewal.begin(secure)
    for before, step in pairwise(STEPS):
        with pytest.raises(UsageError, match=rf"{step}\(\) comes after {before}\(\)"):
            getattr(renewal, step)()
    with pytest.raises(UsageError, match="has no outcome yet"):
        renewal.outcome()
    assert isinstance(go(renewal), Outcome)


# -- what goes wrong on the wire ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [lost_on_the_way, lost_on_the_way_back])
def test_a_lost_answer_is_repaired_with_the_same_key_and_csr(secure, between, lost):
    between.on("sign", lost)
    with pytest.raises(Unreachable):
        renew(secure)
    key = pending_of(secure).key_path.read_bytes()
    renew(secure)
    first, second = (call.body["variables"]["csr"] for call in between.seen("sign"))
    assert first == second
    assert (secure.current.path / "key.pem").read_bytes() == key
    assert len(secure.generations()) == 2


def test_a_connection_that_breaks_is_made_again_at_once(secure, between, monkeypatch):
    monkeypatch.setattr("ucl_helpers.wire.client.BACKOFF_SECONDS", (0.0,))
    between.on("sign", lost_on_the_way_back)
    assert renew(secure).outcome == "renewed"
    assert len(between.seen("sign")) == 2


def test_a_client_that_was_deleted_ends_refused_and_nothing_is_lost(secure, ucl, between):
    renewal = Renewal.begin(secure)
    go(renewal, "sign")
    kept = tree(secure.path)
    ucl._memory.delete_system_auth(common_name(secure.current.certificate.subject))
    with pytest.raises(NotYetAccepted):
        go(renewal, since="decode")
    with pytest.raises(PossibleOutage):
        renew(secure, clock=Clock(minutes=11))
    with pytest.raises(AuthenticationFailed) as refusal:
        renew(secure, clock=Clock(days=1, minutes=1))
    assert refusal.value.exit_code == 4
    with pytest.raises(PossibleOutage, match="client was deleted"):
        renew(secure)
    with pytest.raises(AuthenticationFailed, match="client was deleted") as refusal:
        renew(secure, clock=Clock(days=1, minutes=1))
    assert "establish the connection again" in refusal.value.remedy
    assert {path for path in kept if "answer" not in path and path != "pending/chain.pem"} <= set(tree(secure.path))
    assert pending_of(secure).key_path.read_bytes() == kept["pending/key.pem"]


def test_an_expired_certificate_ends_refused_with_the_way_out(home, ucl, clock, between, tmp_path):
    clock.set(days=-91)
    expired = install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    clock.set()
    for attempt in (
        lambda: renew(expired),
        lambda: renew(expired, only_if_due=True, clock=Clock(minutes=1)),
        lambda: go(Renewal.begin(expired)),
    ):
        with pytest.raises(CertificateRejected, match="expired") as refusal:
            attempt()
        assert "ucl establish prod" in refusal.value.remedy
        assert refusal.value.exit_code == 4


def test_a_revoked_one_is_not_even_tried(secure, between):
    judged(secure)
    with pytest.raises(Refused, match=r"was revoked .* cannot be renewed"):
        Renewal.begin(secure)
    assert between.calls == []


def test_what_is_not_established_cannot_be_renewed(home):
    with pytest.raises(UnknownConnection, match="ucl establish new"):
        renew(home.new("new"))


# -- who else is there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upto", ["configuration", "sign", "verify"])
def test_of_two_at_once_the_second_says_what_the_first_has_settled(secure, upto):
    first, second = Renewal.begin(secure), Renewal.begin(secure)
    go(second, upto)
    go(first)
    installed = tree(secure.path)
    for name in STEPS:
        with pytest.raises(SettledElsewhere, match="another generation meanwhile"):
            getattr(second, name)()
    assert tree(secure.path) == installed


def test_two_at_once_share_key_and_csr(secure, between):
    first, second = Renewal.begin(secure), Renewal.begin(secure)
    assert go(first, "request").csr == go(second, "request").csr
    assert go(first, "sign") == go(second, "sign")
    assert len(between.seen("sign")) == 1


def test_an_answer_that_another_process_replaced_is_not_activated(secure, clock):
    """What is verified and what is activated must be one and the same certificate."""
    clock.set(seconds=-5)  # in one second the same request gets the very same certificate
    slow = Renewal.begin(secure)
    go(slow, "verify")
    pending_of(secure).drop_answer()
    clock.set()
    go(Renewal.begin(secure), "sign")
    with pytest.raises(UsageError, match=r"activate\(\) comes after verify\(\)"):
        slow.activate()
    go(slow)
    assert len(secure.generations()) == 2


def test_what_was_set_aside_meanwhile_is_not_gone_on_with(secure):
    slow = Renewal.begin(secure)
    go(slow, "sign")
    go(Renewal.begin(secure, key_length=2056), "request")
    with pytest.raises(SettledElsewhere, match="or set it aside"):
        slow.decode()


def test_a_step_waits_for_nobody_long_and_says_who_is_at_work(secure, monkeypatch):
    monkeypatch.setattr("ucl_helpers.procedures.procedure.STEP_WAIT_SECONDS", 0.05)
    renewal = Renewal.begin(secure)
    with in_other_hands(secure):
        for attempt in (renewal.configuration, lambda: renew(secure)):
            with pytest.raises(Busy, match=r"in use by process \d+") as busy:
                attempt()
            assert busy.value.exit_code == 8
    assert go(renewal).outcome == "renewed"
