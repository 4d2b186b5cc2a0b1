"""Where several things go wrong in a row, there is a way out, and nothing is told that is not so."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from meddler import Reply, answers, changes, lost_on_the_way, lost_on_the_way_back, passes, refused, signs
from quick_keys import QUICK_BITS
from steps import Clock, aside, go, pending_of

from ucl_helpers import (
    Establishment,
    Renewal,
    establish,
    forget,
    import_identity,
    read_identity,
    renew,
    revoke,
    rollback,
    status_of,
    valid_identities,
)
from ucl_helpers.errors import (
    BadAnswer,
    CertificateRejected,
    NotYetAccepted,
    Refused,
    ServerNotTrusted,
    Unreachable,
    UsageError,
)

pytest_plugins = ["procedure_fixtures"]
NOWHERE = "https://localhost:9/connector/graphql"


def reimport(connection, between, ucl):
    folder = connection.current.path
    identity = read_identity(folder / "key.pem", folder / "chain.pem")
    url = between.certificate_secured_connector_url
    return import_identity(connection.home, connection.name, identity, url, ca_file=ucl.ca_file)


# -- an establishment that was cut off ---------------------------------------------------------------------------------


def test_and_its_name_then_imported_is_renewed(new, ucl, secure, between, token):
    go(Establishment.begin(new, token, ca_file=ucl.ca_file), "sign")
    identity = read_identity(secure.current.path / "key.pem", secure.current.path / "chain.pem")
    import_identity(new.home, "new", identity, between.certificate_secured_connector_url, ca_file=ucl.ca_file)
    assert renew(new, only_if_due=True).outcome == "not-due"
    assert renew(new).outcome == "renewed"
    assert len(aside(new)) == 1


def test_and_then_rolled_back_is_renewed(secure, ucl, token):
    renew(secure)
    revoke(secure)
    go(Establishment.begin(secure, token, ca_file=ucl.ca_file), "sign")
    with pytest.raises(UsageError, match="waits to be finished"):
        renew(secure)
    rollback(secure)
    assert renew(secure).outcome == "renewed"


def test_a_wrong_ca_file_is_replaced_by_the_next_one(new, ucl, token, another):
    go(Establishment.begin(new, token, ca_file=ucl.ca_file), "decode")
    pending_of(new).keep_server_ca((ucl.state / "client-root.pem").read_bytes())
    with pytest.raises(ServerNotTrusted):
        establish(new, another())
    assert establish(new, another(), ca_file=ucl.ca_file).outcome == "established"


def test_without_a_certificate_endpoint_nothing_is_signed(new, ucl, between, token, another):
    between.on("configuration", changes(managementPlaneInfo=None))
    with pytest.raises(BadAnswer, match="names no certificate endpoint"):
        establish(new, token, ca_file=ucl.ca_file)
    assert between.seen("sign") == []
    assert establish(new, another(), ca_file=ucl.ca_file).outcome == "established"


def test_with_one_that_is_not_https_nothing_is_signed_either(new, ucl, between, token, another):
    wrong = {"directorURL": None, "certificateSecuredConnectorURL": "http://ucl.example/graphql"}
    between.on("configuration", changes(managementPlaneInfo=wrong))
    with pytest.raises(BadAnswer, match=r"The certificate endpoint that UCL names must be an https URL"):
        establish(new, token, ca_file=ucl.ca_file)
    assert between.seen("sign") == []
    assert establish(new, another(), ca_file=ucl.ca_file).outcome == "established"


def test_after_one_that_nobody_answers_at_it_begins_anew(new, ucl, between, token, another):
    wrong = {"directorURL": None, "certificateSecuredConnectorURL": NOWHERE}
    between.on("configuration", changes(managementPlaneInfo=wrong))
    with pytest.raises(Unreachable, match=rf"ucl forget {new.name} --even-if-valid, and establish anew") as told:
        establish(new, token, ca_file=ucl.ca_file)
    assert told.value.exit_code == 3
    with pytest.raises(UsageError, match="add --even-if-valid"):
        forget(new)
    forget(new, even_if_valid=True)
    again = new.home.new(new.name)
    assert establish(again, another(), ca_file=ucl.ca_file, key_length=QUICK_BITS).outcome == "established"


def test_a_sandbox_that_has_moved_is_found(new, ucl, token, tmp_path, between):
    go(Establishment.begin(new, token, ca_file=ucl.ca_file), "decode")
    told = pending_of(new).read_state().configuration
    pending_of(new).update(configuration=replace(told, certificate_secured_connector_url=NOWHERE))
    with pytest.raises(Unreachable):
        establish(new, None)
    ready = tmp_path / "ready.json"
    ready.write_text(json.dumps({"certificateSecuredConnectorUrl": between.certificate_secured_connector_url}))
    (new.path / "settings.toml").write_text(f'key_length = {QUICK_BITS}\nsandbox = "{ready}"\n')
    assert establish(new, None).outcome == "established"


@pytest.mark.parametrize("operation", ["configuration", "sign"])
def test_the_director_gives_a_token_for_one_that_got_lost(new, ucl, between, director, operation):
    between.on(operation, lambda forward, _: (forward(), Reply(200, b"<html>"))[1] if operation == "sign" else None)
    assert establish(new, director, ca_file=ucl.ca_file).outcome == "established"
    assert len(between.seen("token")) == 2


def test_a_token_that_was_not_sent_is_kept(new, ucl, token, between):
    establishment = Establishment.begin(new, token, ca_file=ucl.ca_file)
    go(establishment, "request")
    establishment._server_ca = ucl.state / "client-root.pem"
    with pytest.raises(ServerNotTrusted):
        establishment.sign()
    assert establish(new, None, ca_file=ucl.ca_file).outcome == "established"
    assert len(between.seen("sign")) == 1


# -- a renewal that goes on failing ------------------------------------------------------------------------------------


def test_an_alert_that_stays_leads_to_another_signature(secure, between, monkeypatch):
    go(Renewal.begin(secure), "decode")
    rejected = CertificateRejected("no", remedy="")
    with monkeypatch.context() as patched:
        patched.setattr("ucl_helpers.procedures.procedure.verify", lambda *_: (_ for _ in ()).throw(rejected))
        with pytest.raises(CertificateRejected):
            renew(secure)
    assert renew(secure).outcome == "renewed"
    assert len(between.seen("sign")) == 2


def test_what_expired_since_it_was_verified_is_not_put_to_use(secure, between, clock):
    between.on("sign", signs((-1, 1)))
    renewal, before = Renewal.begin(secure, clock=clock), secure.current
    go(renewal, "verify")
    clock.set(days=3)
    with pytest.raises(UsageError, match="has expired since"):
        renewal.activate()
    assert secure.current == before


def test_what_the_checks_warn_of_is_in_the_outcome_and_in_the_journal(secure):
    assert renew(secure).facts["warnings"] is None
    outcome = renew(secure, clock=Clock(hours=2))
    assert "our clock: expected within 5 min of the server's, found 2 h" in outcome.facts["warnings"]
    assert secure.journal()[-1]["warnings"] == outcome.facts["warnings"]


def test_a_connection_that_has_moved_is_imported_anew(secure, ucl, between):
    path = secure.current.path / "connection.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "connectorUrl": NOWHERE}))
    with pytest.raises(Unreachable):
        renew(secure)
    before = secure.current.fingerprint
    assert reimport(secure, between, ucl).facts["fingerprint"] == before
    assert [one.where for one in valid_identities(secure)] == ["in use"]
    assert renew(secure).outcome == "renewed"


def test_set_aside_stays_as_long_as_its_longest_certificate(secure, between):
    between.on("sign", *[signs((0, 3000)), signs((0, 3001)), signs((0, 3002))])
    for _ in range(3):
        renewal = Renewal.begin(secure)
        go(renewal, "sign")
        renewal.pending.drop_answer()
    renewal.pending.set_aside("another subject is wanted")
    (kept,) = aside(secure)
    until = datetime.fromisoformat(json.loads((kept / "state.json").read_text())["keep_until"])
    assert until > datetime.now(UTC) + timedelta(days=3000)


# -- what is said of a revocation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_gateways_refusal_settles_nothing(secure, between, status):
    between.on("revoke", lost_on_the_way, answers(status), passes)
    with pytest.raises(Unreachable):
        revoke(secure)
    with pytest.raises(Refused):
        revoke(secure)
    assert status_of(secure).state == "valid"
    revoke(secure)
    assert status_of(secure).state == "revoked"


def test_a_refusal_of_a_new_certificate_settles_nothing(secure, between):
    renew(secure)
    between.on("revoke", lost_on_the_way, refused, passes)
    with pytest.raises(Unreachable):
        revoke(secure)
    with pytest.raises(NotYetAccepted, match="UCL does not accept it yet"):
        revoke(secure)
    assert status_of(secure).state == "valid"
    assert revoke(secure).outcome == "revoked"


def test_a_refusal_of_an_older_one_does(secure, between):
    between.on("revoke", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        revoke(secure)
    assert revoke(secure).outcome == "revoked"


def test_nothing_to_revoke_is_not_called_revoked(secure, between):
    assert revoke(secure, everything=True, clock=Clock(days=100)).outcome == "nothing-to-revoke"
    assert between.seen("revoke") == []


def test_a_signature_whose_answer_got_lost_is_named(secure, between):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        renew(secure)
    assert "did not answer" in revoke(secure, everything=True).facts["unsettled"]
    with pytest.raises(UsageError, match="keeps the key of a certificate that may be valid"):
        forget(secure)
    forget(secure, even_if_valid=True)
    assert not secure.path.exists()
