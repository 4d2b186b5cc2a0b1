"""Revocation: for good, one certificate after another, the one in use last, and settled when an answer got lost."""

import shutil
import threading

import pytest
from meddler import answers, lost_on_the_way, lost_on_the_way_back, refused
from steps import aside, events, go, install, pending_of

from ucl_helpers import Renewal, forget, renew, require_consent, revoke, status_of, valid_identities
from ucl_helpers.crypto import common_name
from ucl_helpers.errors import (
    BadAnswer,
    Busy,
    PossibleOutage,
    Refused,
    RequestRejected,
    RetryLater,
    StorageFailed,
    UnknownConnection,
    Unreachable,
    UsageError,
)
from ucl_helpers.models import fingerprint

pytest_plugins = ["procedure_fixtures"]


def revoked_at_ucl(ucl, *fingerprints):
    return [ucl._memory.is_revoked(one) for one in fingerprints]


def signed(connection):
    """A renewal that came to its signing: what it left."""
    renewal = Renewal.begin(connection)
    go(renewal, "sign")
    return renewal.pending


def test_the_one_in_use_is_revoked_and_the_one_before_stays(secure, ucl):
    before = secure.current.fingerprint
    renew(secure)
    outcome = revoke(secure)
    assert (outcome.outcome, outcome.facts["revoked"]) == ("revoked", secure.current.fingerprint)
    assert before[:16] in outcome.facts["still_valid"]
    assert revoked_at_ucl(ucl, before, secure.current.fingerprint) == [False, True]
    assert status_of(secure).state == "revoked"
    with pytest.raises(Refused, match="was revoked"):
        renew(secure)


def test_a_half_written_file_of_a_killed_run_is_removed(secure):
    leftover, other = secure.path / ".revoked.json.963a65fa.tmp", secure.path / ".notes.txt"
    leftover.touch()
    other.touch()
    revoke(secure)
    assert not leftover.exists()
    assert other.exists()


def test_with_everything_the_one_in_use_comes_last(secure, between):
    """Generations, what was signed and never used, and what was set aside with a certificate."""
    go(Renewal.begin(secure), "sign")
    go(Renewal.begin(secure, key_length=2056), "configuration")
    assert len(aside(secure)) == 1
    renew(secure)
    go(Renewal.begin(secure), "sign")
    valid = valid_identities(secure)
    assert [one.where.partition(" (")[0] for one in valid if one.where != "in use"].count("signed, never used") == 2
    assert (len(valid), valid[-1].where) == (4, "in use")
    outcome = revoke(secure, everything=True)
    sent = [call.fingerprint for call in between.seen("revoke")]
    assert sent == [one.fingerprint for one in valid] == outcome.facts["revoked"].split(", ")
    assert sent[-1] == secure.current.fingerprint
    assert (outcome.facts["still_valid"], len(valid_identities(secure))) == ("none", 0)


def test_what_was_signed_and_rejected_is_revoked_as_well(secure, between):
    pending = signed(secure)
    rejected = fingerprint(pending.certificate())
    pending.drop_answer()
    revoke(secure, everything=True)
    assert [call.fingerprint for call in between.seen("revoke")] == [rejected, secure.current.fingerprint]


def test_what_was_signed_for_another_key_cannot_be(secure, keys):
    pending = signed(secure)
    pending.keep_request(next(keys), pending.csr())
    assert [one.where for one in valid_identities(secure)] == ["in use"]


def test_what_is_revoked_is_not_revoked_again(secure, between):
    revoke(secure)
    assert revoke(secure).facts["revoked"] == "nothing was left to revoke"
    assert len(between.seen("revoke")) == 1


def test_what_has_expired_need_not_be_revoked(home, ucl, clock, between, tmp_path):
    clock.set(days=-91)
    expired = install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    clock.set()
    assert list(valid_identities(expired)) == []
    assert revoke(expired, everything=True).facts["revoked"] == "nothing was left to revoke"
    assert between.calls == []


# -- answers that are lost, and answers that say no --------------------------------------------------------------------


@pytest.mark.parametrize("lost", [lost_on_the_way, lost_on_the_way_back, answers(503), answers(200)])
def test_a_lost_answer_is_settled_by_asking_again(secure, ucl, between, lost):
    between.on("revoke", lost)
    with pytest.raises(RetryLater):
        revoke(secure)
    assert events(secure) == ["revoke-intended"]
    assert valid_identities(secure)[-1].where == "in use (ucl sent its revocation and received no answer)"
    with pytest.raises(UsageError, match="UCL may still accept"):
        forget(secure)
    assert revoke(secure).facts["revoked"] == secure.current.fingerprint
    assert revoked_at_ucl(ucl, secure.current.fingerprint) == [True]
    how = "settled by the refusal of a repeated request" if lost is lost_on_the_way_back else "answered"
    assert secure.journal()[-1]["how"] == how


def test_a_refusal_of_the_first_request_settles_nothing_and_of_the_next_does(secure, between):
    between.on("revoke", refused, refused)
    with pytest.raises(PossibleOutage):
        revoke(secure)
    assert (events(secure)[-1], status_of(secure).state) == ("revoke-refused", "valid")
    assert revoke(secure).facts["not_accepted"] == secure.current.fingerprint
    assert (events(secure)[-1], status_of(secure).state) == ("not-accepted", "refused")
    assert secure.revoked() == {}


def test_a_graphql_error_may_hide_that_it_was_done(secure, between):
    def fails_afterwards(forward, call):
        forward()
        return answers(200, errors=[{"message": "the object has been modified"}])(forward, call)

    between.on("revoke", fails_afterwards)
    with pytest.raises(RequestRejected):
        revoke(secure)
    assert revoke(secure).facts["revoked"] == secure.current.fingerprint


def test_an_answer_that_is_not_true_confirms_nothing(secure, between):
    between.on("revoke", answers(200, result="yes"))
    with pytest.raises(BadAnswer):
        revoke(secure)
    assert status_of(secure).state == "valid"


def test_one_that_is_refused_does_not_keep_the_others_from_being_revoked(secure, ucl, between):
    before = secure.current.fingerprint
    renew(secure)
    between.on("revoke", refused, lambda forward, _: forward(), refused)
    outcome = revoke(secure, everything=True)
    assert (outcome.facts["revoked"], outcome.facts["not_accepted"]) == (secure.current.fingerprint, before)
    assert revoked_at_ucl(ucl, before, secure.current.fingerprint) == [False, True]


def test_when_nobody_answers_the_rest_waits(secure, ucl, between):
    before = secure.current.fingerprint
    renew(secure)
    between.on("revoke", lost_on_the_way)
    with pytest.raises(Unreachable):
        revoke(secure, everything=True)
    assert revoked_at_ucl(ucl, before, secure.current.fingerprint) == [False, False]
    revoke(secure, everything=True)
    assert revoked_at_ucl(ucl, before, secure.current.fingerprint) == [True, True]


# -- never two at a time -----------------------------------------------------------------------------------------------


def test_two_revocations_of_a_connection_never_run_at_once(secure, between):
    told = []

    def second(forward, call):
        def other_process():
            try:
                revoke(secure.home.connection("prod"))
            except Busy as error:
                told.append(error)

        thread = threading.Thread(target=other_process)
        thread.start()
        thread.join()
        return forward()

    between.on("revoke", second)
    assert revoke(secure).outcome == "revoked"
    assert (len(told), len(between.seen("revoke"))) == (1, 1)


# -- damage ------------------------------------------------------------------------------------------------------------


def lose(connection, what):
    if what == "current":
        (connection.path / what).unlink()
    else:
        (connection.current.path / what).write_text("gone")


@pytest.mark.parametrize("what", ["key.pem", "chain.pem", "current"])
def test_what_can_be_read_is_revoked_though_the_one_in_use_is_lost(secure, ucl, what):
    before = secure.current.fingerprint
    renew(secure)
    go(Renewal.begin(secure), "sign")
    pending = fingerprint(pending_of(secure).certificate())
    lose(secure, what)
    with pytest.raises((StorageFailed, UnknownConnection)):
        revoke(secure)
    revoke(secure, everything=True)
    assert revoked_at_ucl(ucl, before, pending) == [True, True]


def without_generations(connection):
    go(Renewal.begin(connection), "sign")
    (connection.path / "current").unlink()
    shutil.rmtree(connection.path / "generations")


def test_what_nobody_knows_an_endpoint_for_is_a_clear_error(secure):
    without_generations(secure)
    pending_of(secure).update(configuration={})
    with pytest.raises(UnknownConnection):
        revoke(secure, everything=True)
    assert [one.where for one in valid_identities(secure)] == ["signed, never used (pending)"]


def test_what_was_signed_first_and_never_used_is_revoked_where_ucl_said(secure, ucl):
    """The twin."""
    without_generations(secure)
    signed = fingerprint(pending_of(secure).certificate())
    assert revoke(secure, everything=True).facts["revoked"] == signed
    assert revoked_at_ucl(ucl, signed) == [True]
    forget(secure)


# -- consent -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confirm", ["", "Prod", "prod "])
def test_a_real_connection_has_to_be_named_twice(secure, confirm):
    with pytest.raises(UsageError, match="confirm = 'prod'"):
        require_consent(secure, confirm)
    require_consent(secure, "prod")


def test_one_for_practice_need_not_be(home, tmp_path):
    practice = home.new("practice")
    practice.write_settings({"sandbox": str(tmp_path / "ready.json")})
    require_consent(practice, "")


def test_a_deleted_client_cannot_revoke(secure, ucl):
    ucl._memory.delete_system_auth(common_name(secure.current.certificate.subject))
    with pytest.raises(PossibleOutage, match="client was deleted"):
        revoke(secure)
