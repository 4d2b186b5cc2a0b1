"""Certificates that UCL refuses already: revoked by other means, or their client or application deleted at UCL."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from command_line import Shell
from quick_keys import QUICK_BITS
from steps import Clock, judged, tree

from ucl_helpers import Establishment, forget, renew, revoke, rollback, status_of, valid_identities
from ucl_helpers.connection.state import BY_REFUSAL, IN_TWO_RUNS, WHILE_ACCEPTING, Verdict
from ucl_helpers.connection.status import STATES
from ucl_helpers.connection.store import Home
from ucl_helpers.crypto import common_name
from ucl_helpers.errors import (
    AuthenticationFailed,
    Outage,
    PossibleOutage,
    RetryLater,
    Unreachable,
    UsageError,
    Waiting,
)
from ucl_helpers.fleet.plan import plan
from ucl_helpers.models import OneTimeToken
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.operate.due_check import check_due
from ucl_helpers.procedures.acceptance import require_not_accepted
from ucl_helpers.procedures.importing import import_identity, read_identity
from ucl_helpers.procedures.revocation import doubtful_identities
from ucl_helpers.views.charts import history
from ucl_sandbox import Fault, Sandbox

GONE = "UCL does not accept it any more"
DOUBT = f"{GONE}, or UCL has an outage"


@pytest.fixture
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def prod(home, ucl):
    """Two generations of one client, the second in use."""
    connection = home.new("prod")
    connection.write_settings({"key_length": QUICK_BITS})
    Establishment.begin(connection, OneTimeToken(ucl.one_time_token(), ucl.connector_url), ca_file=ucl.ca_file).run()
    renew(connection)
    return connection


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def shell(home):
    return Shell(home.path)


def revoked_elsewhere(ucl, generation):
    certificate = generation.certificate
    ucl._memory.revoke(generation.fingerprint, common_name(certificate.subject), generation.validity.not_after)


def all_revoked(ucl, connection):
    for one in connection.generations():
        revoked_elsewhere(ucl, one)


def client_deleted(ucl, connection):
    ucl._memory.delete_system_auth(common_name(connection.current.certificate.subject))


def application_unregistered(ucl, connection):
    ucl._memory.unregister(ucl.application_id)


MEANS = [all_revoked, client_deleted, application_unregistered]


@pytest.mark.kind("revoked elsewhere: by other means, for every certificate")
@pytest.mark.parametrize("gone", MEANS)
def test_every_certificate_is_told_of_and_a_repeat_ends_well(prod, ucl, shell, gone):
    gone(ucl, prod)
    first, second = prod.generations()
    said = shell.ucl("revoke", "prod", "--all", "--yes")
    assert said.code == 3
    for where in (f"{first.fingerprint} (generation {first.name})", f"{second.fingerprint} (in use)"):
        assert f"{where}: {DOUBT}" in said.err
    assert [list(valid_identities(prod)), len(doubtful_identities(prod))] == [[], 2]
    with pytest.raises(UsageError, match=r"UCL refuses 2 identities of prod\. UCL may be down"):
        forget(prod)
    again = shell.ucl("revoke", "prod", "--all", "--yes")
    assert again.code == 0
    for where in (f"{first.fingerprint} (generation {first.name})", f"{second.fingerprint} (in use)"):
        assert f"{where}: {GONE} (or has an outage)\n" in again.out
    assert "still valid   none\n" in again.out
    calls = len(ucl.requests)
    third = shell.ucl("revoke", "prod", "--all", "--yes", "--json")
    assert (third.code, third.json["stillValid"], third.json["outcome"]) == (0, "none", "nothing-to-revoke")
    assert third.json["certificates"].count(GONE) == 2
    assert len(ucl.requests) > calls  # an outage may have lasted for both runs
    kept = shell.ucl("forget", "prod", "--yes")
    assert (kept.code, "UCL may be down" in kept.err, prod.path.exists()) == (2, True, True)
    assert "ucl forget prod --even-if-valid" in kept.err
    assert shell.ucl("forget", "prod", "--yes", "--even-if-valid").code == 0
    assert not prod.path.exists()


def test_without_any_of_them_all_are_revoked_at_once(prod, ucl, shell):
    """The twin."""
    said = shell.ucl("revoke", "prod", "--all", "--yes")
    assert (said.code, said.out.count("): revoked\n")) == (0, 2)
    assert all(ucl._memory.is_revoked(one.fingerprint) for one in prod.generations())


@pytest.mark.kind("revoked elsewhere: one of two, so that no outage explains it")
@pytest.mark.parametrize("which", [0, 1], ids=["the earlier one", "the one in use"])
def test_another_that_is_accepted_proves_that_there_is_no_outage(prod, ucl, which):
    refused, other = prod.generations()[which], prod.generations()[1 - which]
    revoked_elsewhere(ucl, refused)
    outcome = revoke(prod, everything=True)
    assert (outcome.facts["revoked"], outcome.facts["not_accepted"]) == (other.fingerprint, refused.fingerprint)
    assert outcome.facts["still_valid"] == "none"
    assert (prod.revoked().keys(), prod.verdicts().having("refused").keys()) == (
        {other.fingerprint},
        {refused.fingerprint},
    )
    assert revoke(prod, everything=True).exit_code == 0
    forget(prod)


# -- an outage looks the same ------------------------------------------------------------------------------------------


@pytest.mark.kind("revoked elsewhere: outages that are not taken for it")
@pytest.mark.parametrize("before", [None, "asked", "doubtful"])
def test_a_proven_outage_settles_nothing(prod, ucl, before):
    marks = [one.fingerprint for one in prod.generations()]
    for mark in marks:
        if before:
            judged(prod, before, mark)
    ucl.faults.set([Fault("outage", value="process")])
    for _ in range(3):
        with pytest.raises(Outage):
            revoke(prod, everything=True)
    assert {prod.verdicts().get(mark) and prod.verdicts()[mark].status for mark in marks} == {before}
    ucl.faults.clear()
    assert revoke(prod, everything=True).facts["revoked"] == ", ".join(marks)
    assert all(map(ucl._memory.is_revoked, marks))


def test_an_outage_that_is_not_proven_is_asked_about_again(prod, ucl):
    """The Director's database is down: its answer is that for a certificate that was revoked."""
    ucl.faults.set([Fault("outage", value="database")])
    with pytest.raises(PossibleOutage, match="or UCL has an outage") as raised:
        revoke(prod, everything=True)
    assert (raised.value.exit_code, len(doubtful_identities(prod))) == (3, 2)
    assert prod.revoked() == {}
    ucl.faults.clear()
    assert revoke(prod, everything=True).facts["not_accepted"] is None
    assert all(ucl._memory.is_revoked(one.fingerprint) for one in prod.generations())


@pytest.mark.parametrize("status", ["doubtful", "refused"])
def test_what_ucl_accepts_after_all_is_valid_again(prod, status):
    judged(prod, status)
    assert list(valid_identities(prod))[-1].where != "in use"
    renew(prod)
    assert len(valid_identities(prod)) == 3


@pytest.mark.parametrize("code", [401, 403])
def test_a_gateways_word_settles_nothing(prod, ucl, code):
    ucl.faults.set([Fault(f"http-{code}", operation="revoke", times=4)])
    for _ in range(2):
        with pytest.raises(Exception, match=f"{code}"):
            revoke(prod, everything=True)
    assert (prod.verdicts(), len(valid_identities(prod))) == ({}, 2)


def test_what_an_outage_had_refused_in_two_runs_is_revoked_by_the_third(prod, ucl):
    ucl.faults.set([Fault("outage", value="database")])
    with pytest.raises(PossibleOutage):
        revoke(prod, everything=True)
    assert revoke(prod, everything=True).facts["still_valid"] == "none"
    ucl.faults.clear()
    assert revoke(prod, everything=True).outcome == "revoked"
    assert all(ucl._memory.is_revoked(one.fingerprint) for one in prod.generations())
    assert prod.verdicts().having("refused") == {}


@pytest.mark.kind("revoked elsewhere: keys that may still be good are kept")
@pytest.mark.parametrize("down", ["database", "process"])
@pytest.mark.parametrize("runs", [1, 2, 3])
def test_no_outage_however_long_makes_forget_remove_a_key(prod, ucl, down, runs):
    ucl.faults.set([Fault("outage", value=down)])
    for _ in range(runs):
        with suppress(RetryLater):
            revoke(prod, everything=True)
    before = tree(prod.path)
    with pytest.raises(UsageError, match="may be down" if down == "database" else "UCL may still accept"):
        forget(prod)
    assert tree(prod.path) == before
    ucl.faults.clear()
    assert renew(prod).outcome == "renewed"


@pytest.mark.parametrize("how", [IN_TWO_RUNS, WHILE_ACCEPTING, BY_REFUSAL])
def test_what_no_outage_explains_is_forgotten(prod, how):
    """The twin."""
    status = "revoked" if how == BY_REFUSAL else "refused"
    with prod.lock.held():
        for one in prod.generations():
            prod.judge(one.fingerprint, Verdict(status, datetime.now(UTC), how))
    if how == IN_TWO_RUNS:
        with pytest.raises(UsageError, match="UCL may be down"):
            forget(prod)
    else:
        forget(prod)
    assert prod.path.exists() is (how == IN_TWO_RUNS)


def test_an_outage_that_ends_within_the_run_settles_nothing(prod, ucl):
    ucl.faults.set([Fault("outage", value="database", operation="revoke", times=1)])
    assert revoke(prod, everything=True).facts["not_accepted"] is None
    assert all(ucl._memory.is_revoked(one.fingerprint) for one in prod.generations())


def nobody_listens(prod, ucl):
    path = prod.current.path / "connection.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "connectorUrl": "https://127.0.0.1:9/x"}))
    with pytest.raises(Unreachable):
        revoke(prod)
    path.write_text(before)


def a_gateway_says_502(prod, ucl):
    ucl.faults.set([Fault("http-502", operation="revoke")])
    with pytest.raises(RetryLater):
        revoke(prod)


@pytest.mark.parametrize(("fails", "sent"), [(nobody_listens, False), (a_gateway_says_502, True)])
def test_only_what_was_sent_is_settled_by_a_refusal(prod, ucl, fails, sent):
    fails(prod, ucl)
    mark, later = prod.current.fingerprint, Clock(minutes=15)
    assert (mark in prod.verdicts()) is sent
    ucl.faults.set([Fault("outage", value="database")])
    if sent:
        assert revoke(prod, clock=later).facts["revoked"] == mark
    else:
        with pytest.raises(PossibleOutage):
            revoke(prod, clock=later)
    ucl.faults.clear()
    assert revoke(prod, clock=later).facts["revoked"] == mark
    assert ucl._memory.is_revoked(mark)


OUTAGES_OF_IMPORTS = [
    ("process", "prod", Outage),  # its Director is known and answers 502
    ("database", "prod", AuthenticationFailed),
    ("process", "new", AuthenticationFailed),  # its Director is not known yet
    ("database", "new", AuthenticationFailed),
]


def by_refusal(connection):
    with connection.lock.held():
        connection.judge(connection.current.fingerprint, Verdict("revoked", datetime.now(UTC), BY_REFUSAL))


def refused(connection):
    judged(connection, "refused")


@pytest.mark.parametrize("ask", ["renew", "force", "establish"])
@pytest.mark.parametrize("known", [by_refusal, refused])
def test_what_refusals_alone_have_settled_is_asked_about_again(prod, known, ask):
    known(prod)
    if ask == "establish":
        with pytest.raises(UsageError, match="UCL accepts its certificate"):
            require_not_accepted(prod, Clock())
    else:
        assert renew(prod, only_if_due=ask == "renew").outcome == ("not-due" if ask == "renew" else "renewed")
    assert prod.verdicts() == {}


@pytest.mark.parametrize("known", [by_refusal, refused])
def test_and_is_not_taken_for_valid_when_it_is_refused_again(prod, ucl, known):
    """The twin."""
    known(prod)
    verdicts = prod.verdicts()
    all_revoked(ucl, prod)
    with pytest.raises((AuthenticationFailed, PossibleOutage)):
        renew(prod, only_if_due=True)
    with pytest.raises(Waiting):
        renew(prod, only_if_due=True)
    require_not_accepted(prod, Clock())
    assert prod.verdicts() == verdicts


def test_a_refusal_is_a_reason_to_ask_though_nothing_is_due(prod, ucl):
    ucl.faults.set([Fault("outage", value="database")])
    with pytest.raises(PossibleOutage):
        renew(prod)
    ucl.faults.clear()
    later = Clock(days=2)
    assert check_due(prod, later()).need.why.startswith("UCL refuses its certificate since")
    assert "prod" in plan(prod.home, clock=later).bases
    calls = len(ucl.requests)
    assert renew(prod, only_if_due=True, clock=later).outcome == "not-due"
    assert len(ucl.requests) == calls + 1
    assert check_due(prod, later()).need is None
    assert "prod" in plan(prod.home, clock=later).settled
    renew(prod, only_if_due=True, clock=later)
    assert len(ucl.requests) == calls + 1


@pytest.mark.kind("revoked elsewhere: a rollback")
def test_a_rollback_that_an_outage_refuses_is_to_be_tried_again(prod, ucl):
    ucl.faults.set([Fault("outage", value="database")])
    before = prod.current.name
    with pytest.raises(PossibleOutage) as raised:
        rollback(prod)
    assert "UCL accepts neither, so it may have an outage" in raised.value.remedy
    ucl.faults.clear()
    outcome = rollback(prod, prod.generations()[0].name)
    assert (outcome.outcome, outcome.facts["generation"] == before) == ("rolled-back", False)


@pytest.mark.kind("revoked elsewhere: a rollback")
def test_a_rollback_to_a_certificate_that_alone_is_refused_is_no_outage(prod, ucl):
    """The twin."""
    revoked_elsewhere(ucl, prod.generations()[0])
    with pytest.raises(AuthenticationFailed) as raised:
        rollback(prod)
    assert "UCL accepts that one, and this generation no more" in raised.value.remedy


@pytest.mark.parametrize("status", ["doubtful", "refused"])
def test_the_doctor_says_that_it_is_accepted_again(prod, status):
    judged(prod, status)
    finding = diagnose(prod)["revocation"]
    assert (finding.status, finding.remedy) == ("warning", f"ucl renew prod --home {prod.home.path}")
    assert prod.verdicts()


def test_an_import_of_what_was_refused_is_valid(prod, ucl):
    judged(prod, "refused")
    folder = prod.current.path
    identity = read_identity(folder / "key.pem", folder / "chain.pem")
    import_identity(prod.home, "prod", identity, prod.url, ca_file=ucl.ca_file)
    assert (prod.verdicts(), status_of(prod).state) == ({}, "valid")


@pytest.mark.kind("revoked elsewhere: an import that an outage may explain")
@pytest.mark.parametrize(("down", "name", "error"), OUTAGES_OF_IMPORTS)
def test_an_import_that_is_refused_says_that_nothing_was_imported(prod, ucl, down, name, error):
    folder, before = prod.current.path, tree(prod.path)
    identity = read_identity(folder / "key.pem", folder / "chain.pem")
    ucl.faults.set([Fault("outage", value=down)])
    with pytest.raises(error) as raised:
        import_identity(prod.home, name, identity, prod.url, ca_file=ucl.ca_file)
    assert type(raised.value) is error
    assert raised.value.remedy.startswith("Nothing was imported. Is the URL the certificate-secured")
    assert (tree(prod.path), [one.name for one in prod.home.connections()]) == (before, ["prod"])
    if name == "prod" and error is AuthenticationFailed:
        assert raised.value.message.index("an outage of UCL") < raised.value.message.index("was revoked")
    ucl.faults.clear()
    import_identity(prod.home, name, identity, prod.url, ca_file=ucl.ca_file)  # at once: nothing has to be waited for


# -- a revocation of ours ----------------------------------------------------------------------------------------------


def test_a_revocation_whose_answer_got_lost_is_not_taken_for_an_outage(prod, ucl):
    ucl.faults.set([Fault("reset-after-acting", operation="revoke", times=1)])
    with pytest.raises(Unreachable):
        revoke(prod)
    with pytest.raises(AuthenticationFailed, match="sent its revocation") as raised:
        renew(prod)
    assert (raised.value.exit_code, "outage" in raised.value.data) == (4, False)
    assert raised.value.remedy == "Finish the revocation: ucl revoke prod --all"
    assert status_of(prod).attempts.refused_since is None
    assert revoke(prod, everything=True, clock=Clock(minutes=15)).outcome == "revoked"


def test_without_one_it_may_be_an_outage(prod, ucl):
    """The twin."""
    all_revoked(ucl, prod)
    with pytest.raises(PossibleOutage):
        renew(prod)


# -- the way back ------------------------------------------------------------------------------------------------------


def test_after_a_revocation_the_way_back_by_rollback_is_named(prod, shell):
    first, second = prod.generations()
    said = shell.ucl("revoke", "prod", "--yes")
    assert f"to come back  ucl rollback prod (generation {first.name})\n" in said.out
    for command in (["renew", "prod"], ["run", "02_maintain_connection", "-p", "connection", "prod", "--if-due"]):
        assert f"ucl rollback prod (generation {first.name})" in shell.ucl(*command).err
    status = shell.ucl("status", "prod").out
    assert f"ucl rollback prod (generation {first.name})\n" in status
    assert f"{second.name}: revoked, " in status
    assert diagnose(prod, offline=True)["revocation"].remedy.startswith("ucl rollback prod")
    assert shell.ucl(*["rollback", "prod"]).code == 0
    assert status_of(prod).state == "valid"
    assert f"{second.name}: revoked, " in shell.ucl("status", "prod").out


def test_while_a_refusal_may_be_an_outage_status_names_rollback_where_it_would_work(prod, ucl, shell):
    _, second = prod.generations()
    assert "rollback" not in shell.ucl("status", "prod").out
    revoked_elsewhere(ucl, second)
    assert shell.ucl("renew", "prod", "--force").code == PossibleOutage.exit_code
    assert "If only this certificate was revoked, go back: ucl rollback prod" in shell.ucl("status", "prod").out
    assert shell.ucl("rollback", "prod").code == 0
    assert "rollback" not in shell.ucl("status", "prod").out


def test_where_it_would_not_work_establishing_is_named(prod, ucl, shell):
    """The twin."""
    judged(prod, "revoked", prod.generations()[0].fingerprint)
    assert "rollback" not in shell.ucl("revoke", "prod", "--yes").out
    assert "ucl establish prod" in shell.ucl("status", "prod").out


@pytest.mark.parametrize(
    ("status", "told"),
    [("revoked", "revoked"), ("refused", GONE), ("doubtful", DOUBT), ("asked", "ucl sent its revocation")],
)
def test_rollback_and_status_say_which_generations_are_not_usable(prod, shell, status, told):
    first, second = prod.generations()
    for one in (first, second):
        judged(prod, status, one.fingerprint)
    seen, said = shell.ucl("status", "prod"), shell.ucl("rollback", "prod")
    assert f"{second.name}: {told}" in seen.out
    assert seen.out.count(told) >= 2
    if status == "asked":  # it may still be accepted: that is tried
        assert said.code == 0
    else:
        assert (said.code, f"{first.name} ({told}" in said.err) == (2, True)


def test_a_generation_that_was_revoked_is_not_even_tried(prod, ucl):
    judged(prod, "revoked", prod.generations()[0].fingerprint)
    calls = len(ucl.requests)
    with pytest.raises(UsageError, match=r"Generation 000001-\w+ of prod was revoked 20"):
        rollback(prod, "1")
    assert len(ucl.requests) == calls


def test_one_that_was_refused_is_tried_when_it_is_named(prod):
    judged(prod, "refused", prod.generations()[0].fingerprint)
    assert rollback(prod, "1").outcome == "rolled-back"
    assert prod.verdicts() == {}


@pytest.mark.parametrize(("status", "word"), [("revoked", "revoked"), ("refused", "refused"), ("doubtful", "valid")])
def test_the_state_of_one_that_is_refused_is_its_own(prod, status, word):
    judged(prod, status)
    assert (status_of(prod).state, word in STATES) == (word, True)
    assert (f"000002      {word}" in str(history(prod))) is (word != "valid")


def test_what_has_expired_is_not_asked_about(prod, ucl):
    client_deleted(ucl, prod)
    calls = len(ucl.requests)
    assert revoke(prod, everything=True, clock=Clock(days=100)).outcome == "nothing-to-revoke"
    assert len(ucl.requests) == calls


def test_a_rollback_remembers_what_ucl_refused_and_says_that_nothing_changed(prod, ucl):
    renew(prod)
    oldest, middle, current = prod.generations()
    revoked_elsewhere(ucl, middle)
    with pytest.raises(AuthenticationFailed) as caught:
        rollback(prod)
    assert caught.value.remedy.startswith("The identity in use has not changed.")
    assert (prod.current, prod.verdicts()[middle.fingerprint].status) == (current, "doubtful")
    assert rollback(prod).facts["generation"] == oldest.name


def test_a_rollback_in_a_proven_outage_remembers_nothing(prod, ucl):
    """The twin."""
    ucl.faults.set([Fault("outage", value="process")])
    with pytest.raises(Outage):
        rollback(prod)
    assert prod.verdicts() == {}
