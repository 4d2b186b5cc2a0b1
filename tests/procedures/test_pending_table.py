"""What becomes of a renewal that was cut off, row by row, and what does when a row's condition does not hold."""

import shutil
from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from contract_replay import rsa_key
from cryptography import x509
from cryptography.x509.oid import NameOID
from meddler import answers, changes, lost_on_the_way_back, refused, signs
from steps import Clock, aside, events, go, install, judged, pending_of

from ucl_helpers import Establishment, Renewal, renew, revoke, rollback, valid_identities
from ucl_helpers.connection.pending import set_aside
from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    ChecksFailed,
    NotYetAccepted,
    PossibleOutage,
    RetryLater,
    SettledElsewhere,
    Unreachable,
    UsageError,
)
from ucl_helpers.formats.key_files import ca_certificates
from ucl_helpers.models import fingerprint
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.wire.client import Client

pytest_plugins = ["procedure_fixtures"]
STRANGER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])


def left_by(connection, upto, **how):
    """What a renewal leaves that is cut off after a step."""
    cut_off = Renewal.begin(connection, **how)
    go(cut_off, upto)
    cut_off.close()
    return pending_of(connection)


def sent_without_an_answer(connection, between):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        renew(connection)


def another_subject(between):
    """Subjects UCL asks for from now on, in both of the answers that the next run gets."""
    info = {"subject": "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=other", "keyAlgorithm": "rsa2048"}
    between.on("configuration", changes(certificateSigningRequestInfo=info))


# -- nothing signed yet, same subject (as a multiset) and key length: go on with the same key and CSR ------------------


def test_nothing_signed_yet_goes_on_with_the_same_key_and_csr(secure, between):
    csr = left_by(secure, "request").csr()
    fields = ",".join(reversed(pending_of(secure).read_state().configuration.subject.split(",")))
    between.on("configuration", changes(certificateSigningRequestInfo={"subject": fields, "keyAlgorithm": "rsa2048"}))
    again = Renewal.begin(secure)
    request = go(again, "request")
    assert (request.reused, request.csr.encode()) == (True, csr)
    assert go(again, since="sign").outcome == "renewed"


# -- subject or wanted key length changed: set aside, begin anew -------------------------------------------------------


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("change", ["key length", "subject"])
def test_what_was_asked_for_otherwise_is_set_aside_if_it_was_sent(secure, between, change, sent):
    if sent:
        sent_without_an_answer(secure, between)
    else:
        left_by(secure, "request")
    key = pending_of(secure).key_path.read_bytes()
    if change == "subject":
        another_subject(between)
    again = Renewal.begin(secure, key_length=2056 if change == "key length" else None, accept_new_subject=True)
    request = go(again, "request")
    again.close()
    assert not request.reused
    assert [(one / "key.pem").read_bytes() for one in aside(secure)] == ([key] if sent else [])


@pytest.mark.parametrize(("days", "left"), [(365, 1), (367, 0)])
def test_what_was_set_aside_goes_when_its_certificate_must_have_expired(secure, between, days, left):
    sent_without_an_answer(secure, between)
    renew(secure, key_length=2056)
    (lost,) = set_aside(secure.path)
    until = datetime.fromisoformat(lost.read_state().keep_until) - timedelta(days=days)
    lost.update(keep_until=until.isoformat())
    renew(secure)
    assert len(aside(secure)) == left


@pytest.mark.parametrize("damaged", [True, False])
def test_what_cannot_be_read_any_more_is_set_aside_too(secure, damaged):
    key = left_by(secure, "request").key_path.read_bytes()
    if damaged:
        (pending_of(secure).path / "state.json").write_text("{")
    assert renew(secure).outcome == "renewed"
    assert [(one / "key.pem").read_bytes() for one in aside(secure)] == ([key] if damaged else [])


def test_what_verifies_the_server_follows_the_connection(secure):
    """A renewal has it from the generation in use; to go on with an establishment it need not be given again."""
    pending = left_by(secure, "request")
    another = (secure.current.path / "client-ca.pem").read_bytes()
    pending.replace_server_ca("establish", None)
    assert pending.server_ca.read_bytes() == secure.current.server_ca.read_bytes()
    pending.replace_server_ca("renew", another)
    assert ca_certificates(pending.server_ca.read_bytes(), where="") == ca_certificates(another, where="")
    pending.replace_server_ca("renew", None)
    assert pending.server_ca is None


# -- checks of the answer fail: set it aside, sign the same CSR again, a bounded number of times; then set all aside ---


DEFECTS = {
    "another key": (signs(key=rsa_key().public_key()), ChecksFailed, "key: expected"),
    "another subject": (signs(subject=STRANGER), ChecksFailed, "subject: expected"),
    "expired": (signs(days=(-10, -1)), ChecksFailed, "valid now: expected"),
    "not base64": (changes(certificateChain="?"), BadAnswer, "certificateChain is not base64"),
    "no certificate": (changes(caCertificate="YQ=="), BadAnswer, "caCertificate holds no certificate"),
}


@pytest.mark.parametrize(("defect", "error", "says"), DEFECTS.values(), ids=DEFECTS)
def test_an_answer_that_fails_its_checks_is_asked_for_again(secure, between, defect, error, says):
    before = secure.current
    between.on("sign", defect, defect)
    for _ in range(2):
        with pytest.raises(error, match=says):
            renew(secure)
    assert secure.current == before
    key = pending_of(secure).key_path.read_bytes()
    assert renew(secure).outcome == "renewed"
    assert (secure.current.path / "key.pem").read_bytes() == key
    assert len({call.body["variables"]["csr"] for call in between.seen("sign")}) == 1
    assert aside(secure) == []


def test_the_third_time_all_is_set_aside(secure, between):
    defect, error, _ = DEFECTS["another subject"]
    between.on("sign", *[defect] * 3)
    for _ in range(3):
        assert aside(secure) == []
        with pytest.raises(error):
            renew(secure)
    assert (len(aside(secure)), bool(pending_of(secure))) == (1, False)
    assert renew(secure).outcome == "renewed"
    first, *others, last = [call.body["variables"]["csr"] for call in between.seen("sign")]
    assert set(others) == {first} != {last}


def test_after_a_failed_check_the_steps_go_on_at_signing(secure, between):
    between.on("sign", DEFECTS["expired"][0])
    renewal = Renewal.begin(secure)
    go(renewal, "sign")
    with pytest.raises(ChecksFailed):
        renewal.decode()
    for name in ("decode", "verify", "activate"):
        with pytest.raises(UsageError, match="comes after"):
            getattr(renewal, name)()
    assert go(renewal, since="sign").outcome == "renewed"


# -- verification fails for a moment: keep the answer, exit "retry later"; the next run only verifies ------------------


@pytest.mark.parametrize("moment", [lost_on_the_way_back, answers(503), answers(429), answers(500), refused])
def test_when_verifying_fails_for_a_moment_the_next_run_only_verifies(secure, between, moment):
    renewal, before = Renewal.begin(secure), secure.current
    new = go(renewal, "decode").fingerprint
    between.on("configuration", moment)
    with pytest.raises(RetryLater) as told:
        renewal.verify()
    assert (told.value.exit_code, secure.current) == (3, before)
    between.calls.clear()
    assert renew(secure).facts["fingerprint"] == new
    assert [(call.operation, call.fingerprint) for call in between.calls] == [("configuration", new)]


def test_so_it_is_with_an_alert_while_a_gateways_clock_is_behind(secure, clock):
    """The sandbox signs ahead of the clock that TLS goes by. The alert may get lost: then it looks like a break."""
    clock.set(minutes=2)
    with pytest.raises((NotYetAccepted, Unreachable)) as told:
        renew(secure)
    assert (told.value.exit_code, bool(pending_of(secure).answer())) == (3, True)


def test_when_it_is_refused_later_on_the_same_csr_is_signed_again(secure, between, clock):
    clock.set(seconds=-5)
    ours = Clock()
    renewal = Renewal.begin(secure, clock=ours)
    refused_one = go(renewal, "decode").fingerprint
    clock.set()
    for later, error in [({"minutes": 11}, PossibleOutage), ({"days": 1, "minutes": 12}, AuthenticationFailed)]:
        ours.set(**later)
        assert pending_of(secure).answer()
        between.on("configuration", refused)
        with pytest.raises(error):
            renewal.verify()
    assert renew(secure).facts["fingerprint"] != refused_one
    first, second = (call.body["variables"]["csr"] for call in between.seen("sign"))
    assert first == second


def test_where_the_url_that_ucl_names_fails_the_known_one_is_tried(secure, between):
    elsewhere = {"directorURL": None, "certificateSecuredConnectorURL": "https://localhost:9/connector/graphql"}
    between.on("configuration", changes(managementPlaneInfo=elsewhere))
    known = secure.url
    renewal = Renewal.begin(secure)
    verification = go(renewal, "verify")
    assert verification.url == known
    assert "https://localhost:9/connector/graphql, which failed (Unreachable)" in verification.note
    renewal.activate()
    assert secure.url == known


# -- the answer has expired or is due itself: sign again ---------------------------------------------------------------


@pytest.mark.parametrize(("age", "calls"), [(1, 1), (80, 2), (91, 2)], ids=["fresh", "due", "expired"])
def test_an_answer_that_is_due_itself_is_asked_for_again(secure, between, clock, age, calls):
    clock.set(days=-age)
    left_by(secure, "sign", clock=clock)
    clock.set()
    assert renew(secure).outcome == "renewed"
    csrs = [call.body["variables"]["csr"] for call in between.seen("sign")]
    assert (len(csrs), len(set(csrs))) == (calls, 1)


# -- the base generation is no longer current: check again against the new one, or set aside ---------------------------


def test_after_a_rollback_it_is_checked_against_what_is_current_now(secure, between):
    first = secure.current
    renew(secure)
    cut_off = Renewal.begin(secure)
    new = go(cut_off, "verify")
    rollback(secure)
    assert secure.current == first
    with pytest.raises(SettledElsewhere):
        cut_off.activate()
    again = Renewal.begin(secure)
    identity = go(again, "decode")
    compared = next(check for check in identity.checks if check.name == "not the old certificate")
    assert first.fingerprint[:16] in compared.expected
    assert go(again, since="verify").facts["previous_fingerprint"] == first.fingerprint
    assert (new.url, len(between.seen("sign"))) == (secure.url, 2)


def test_after_another_establishment_it_is_set_aside(secure, home, ucl, between, tmp_path):
    pending = left_by(secure, "sign")
    key = pending.key_path.read_bytes()
    install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    assert renew(secure).outcome == "renewed"
    assert [(one / "key.pem").read_bytes() for one in aside(secure)] == [key]


@pytest.mark.parametrize(("upto", "waits"), [("request", False), ("sign", True)])
def test_an_establishment_that_was_signed_is_not_renewed_away(secure, ucl, token, upto, waits):
    judged(secure)
    cut_off = Establishment.begin(secure, token, ca_file=ucl.ca_file)
    go(cut_off, upto)
    with secure.lock.held():
        secure.judge(secure.current.fingerprint, None)
    if waits:
        with pytest.raises(UsageError, match="waits to be finished"):
            renew(secure)
        assert pending_of(secure).answer()
    else:
        assert renew(secure).outcome == "renewed"


def test_what_was_cut_off_just_after_the_switch_is_tidied_up(secure, tmp_path):
    renewal = Renewal.begin(secure)
    go(renewal, "verify")
    shutil.copytree(secure.path / "pending", tmp_path / "kept")
    renewal.activate()
    shutil.copytree(tmp_path / "kept", secure.path / "pending")
    assert Renewal.begin(secure, only_if_due=True).not_needed
    assert not pending_of(secure)
    assert events(secure)[-1] == "settled"


def test_what_was_cut_off_just_before_it_is_not(secure):
    left_by(secure, "verify")
    Renewal.begin(secure)
    assert pending_of(secure).answer()
    assert "settled" not in events(secure)


# -- revoke is asked for: name it as still valid, or settle and revoke it as well --------------------------------------


def accepts(connection, credentials):
    with Client(connection.url, "certificate", ca_file=connection.current.server_ca, credentials=credentials) as client:
        with suppress(AuthenticationFailed):
            return bool(client.call(CONFIGURATION))
        return False


@pytest.mark.parametrize("everything", [False, True])
def test_revoking_names_it_or_revokes_it_as_well(secure, everything):
    pending = left_by(secure, "sign")
    mark = fingerprint(pending.certificate())
    assert [one.where for one in valid_identities(secure)] == ["signed, never used (pending)", "in use"]
    outcome = revoke(secure, everything=everything)
    assert (mark[:16] in outcome.facts["still_valid"]) is not everything
    assert (mark in outcome.facts["revoked"]) is everything
    assert accepts(secure, pending.credentials()) is not everything
    assert not accepts(secure, secure.current.credentials)
