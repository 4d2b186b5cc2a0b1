"""When a renewal is due, as whom, and by whose clock."""

from datetime import UTC, datetime, timedelta

import pytest
from meddler import changes, lost_on_the_way_back, refused
from steps import STEPS, Clock, go, install, pending_of, tree

from ucl_helpers import Renewal, renew
from ucl_helpers.errors import NotYetAccepted, PossibleOutage, SubjectChanged, Unreachable
from ucl_helpers.models import NotNeeded

pytest_plugins = ["procedure_fixtures"]
NEW_SUBJECT = "O=Org,OU=OrgUnit,L=locality,ST=province,C=PL,CN=somebody"


# -- when, and as whom -------------------------------------------------------------------------------------------------


def test_nothing_is_done_before_it_is_due(secure, between):
    renewal = Renewal.begin(secure, only_if_due=True)
    shown = {getattr(renewal, name)() for name in STEPS}
    assert shown == {NotNeeded(renewal.due.at, renewal.due.reason)}
    assert (renewal.outcome().outcome, renewal.outcome().exit_code) == ("not-due", 0)
    assert renew(secure, only_if_due=True) == renewal.outcome()
    assert between.calls == []


def test_when_it_is_due_it_is_done(home, ucl, clock, between, tmp_path):
    clock.set(days=-80)
    old = install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    clock.set()
    assert renew(old, only_if_due=True).outcome == "renewed"
    assert renew(old, only_if_due=True).outcome == "not-due"


def test_a_signing_request_without_an_answer_is_due_after_a_pause(secure, between):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        renew(secure)
    assert not secure.due(datetime.now(UTC)).due
    assert renew(secure, only_if_due=True, clock=Clock(minutes=1)).outcome == "renewed"


def test_another_subject_needs_consent(secure, between):
    before = tree(secure.path)
    between.on("configuration", changes(certificateSigningRequestInfo={"subject": NEW_SUBJECT, "keyAlgorithm": "x"}))
    with pytest.raises(SubjectChanged, match="C=PL") as changed:
        renew(secure)
    assert (changed.value.exit_code, changed.value.data["wanted"]) == (7, NEW_SUBJECT)
    assert [one["error"] for one in secure.journal()] == ["SubjectChanged"]
    (secure.path / "journal.jsonl").unlink()
    assert tree(secure.path) == before


def test_with_consent_the_new_subject_is_asked_for(secure, between):
    between.on("configuration", changes(certificateSigningRequestInfo={"subject": NEW_SUBJECT, "keyAlgorithm": "x"}))
    renewal = Renewal.begin(secure, accept_new_subject=True)
    request = go(renewal, "request")
    renewal.close()
    assert request.subject == NEW_SUBJECT


def test_the_same_fields_in_another_order_are_the_same_subject(secure, between):
    fields = Renewal.begin(secure).configuration().subject.split(",")
    shuffled = {"subject": ",".join(reversed(fields)), "keyAlgorithm": "rsa2048"}
    between.on("configuration", changes(certificateSigningRequestInfo=shuffled))
    assert renew(secure).outcome == "renewed"


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [timedelta(hours=3), timedelta(hours=-3)])
def test_a_local_clock_that_is_wrong_is_told_and_stops_nothing(secure, wrong):
    def off():
        return datetime.now(UTC) + wrong

    renewal = Renewal.begin(secure, clock=off)
    warned = {check.name for check in go(renewal, "decode").checks if check.status == "warning"}
    assert warned == {"our clock"}
    assert go(renewal, since="verify").outcome == "renewed"


@pytest.mark.parametrize("wrong", [-3, 0, 3])
@pytest.mark.parametrize(("later", "error"), [(9, NotYetAccepted), (11, PossibleOutage)])
def test_the_first_minutes_are_counted_by_the_servers_clock(secure, between, wrong, later, error):
    ours = Clock(hours=wrong)
    renewal = Renewal.begin(secure, clock=ours)
    go(renewal, "decode")
    ours.set(hours=wrong, minutes=later)
    between.on("configuration", refused)
    with pytest.raises(error):
        renewal.verify()
    assert pending_of(secure).answer()


@pytest.mark.parametrize("hours", [-2, 2])
def test_valid_now_is_judged_by_the_answer_that_brought_the_certificate(secure, clock, hours):
    renewal = Renewal.begin(secure)
    go(renewal, "request")
    clock.set(hours=hours)
    signed_then = {check.name: check.status for check in go(renewal, "decode", since="sign").checks}
    assert (signed_then["valid now"], signed_then["our clock"]) == ("ok", "warning")
