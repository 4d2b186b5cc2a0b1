"""What is to be done next for a connection: a rule of its status alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ucl_helpers.connection.attempts import Attempts, Failure
from ucl_helpers.connection.status import BEGUN, SENT, SIGNED, STAGES, STATES, Status, UnderWay
from ucl_helpers.errors import Busy, ChecksFailed, Refused, RetryLater
from ucl_helpers.models import Due, Validity
from ucl_helpers.operate.next_steps import next_step, urgency

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DAY = timedelta(days=1)
VALID = Status(
    "prod", "valid", NOW, validity=Validity(NOW - DAY, NOW + 89 * DAY), due=Due(False, NOW + 59 * DAY, "a rule")
)
DUE = replace(
    VALID, state="due", validity=Validity(NOW - 61 * DAY, NOW + 29 * DAY), due=Due(True, NOW - DAY, "two thirds")
)
EXPIRED = replace(DUE, state="expired", validity=Validity(NOW - 91 * DAY, NOW - DAY))
OTHERS = {state: Status("prod", state, NOW, problem="told") for state in STATES[3:]}
EVERY = {"valid": VALID, "due": DUE, "expired": EXPIRED, **OTHERS}
WANTED = {
    "valid": None,
    "due": "renew",
    "expired": "establish",
    "not yet valid": "doctor",
    "revoked": "establish",
    "refused": "doctor",
    "not established": "establish",
    "settings not usable": "settings",
    "damaged": "doctor",
}


def action(status):
    step = next_step(status)
    return step and step.action


def left(procedure, stage):
    return UnderWay(procedure, "2026-11-23T00:00:00Z", stage)


def failed(kind, *, waits):
    again = NOW + timedelta(minutes=5) if waits else NOW - timedelta(minutes=5)
    last = Failure(kind.__name__, "why", kind.exit_code, NOW - timedelta(minutes=10))
    return Attempts(failures=3, failing_since=NOW - DAY, last_error=last, not_before=again, generation="000001-x")


def test_every_state_has_its_step():
    assert {state: action(status) for state, status in EVERY.items()} == WANTED
    assert set(WANTED) == set(STATES)


@pytest.mark.parametrize(
    ("state", "told"),
    [("due", "due since 2026-11-23T00:00:00Z"), ("expired", "expired 2026-11-23T00:00:00Z"), ("damaged", "told")],
)
def test_it_says_why(state, told):
    assert next_step(EVERY[state]).why == told


@pytest.mark.parametrize("stage", STAGES)
def test_a_renewal_that_was_sent_goes_on_and_one_that_was_begun_waits(stage):
    seen = next_step(replace(VALID, under_way=left("renew", stage)))
    assert (seen is None) == (stage == BEGUN)
    assert seen is None or (seen.action == "renew" and seen.why.endswith(stage))
    assert action(replace(DUE, under_way=left("renew", stage))) == "renew"


@pytest.mark.parametrize("state", ["valid", "due", "expired", "revoked", "not established"])
def test_an_establishment_that_is_signed_is_finished_and_no_other(state):
    status = EVERY[state]
    assert action(replace(status, under_way=left("establish", SIGNED))) == "finish"
    for stage in (BEGUN, SENT):
        assert action(replace(status, under_way=left("establish", stage))) == WANTED[state]


def test_a_renewal_that_is_under_way_brings_nothing_back():
    assert action(replace(EXPIRED, under_way=left("renew", SIGNED))) == "establish"


def test_what_is_under_way_and_cannot_be_read_is_for_the_doctor():
    assert action(replace(VALID, under_way=left("damaged", SENT))) == "doctor"


@pytest.mark.parametrize(
    ("kind", "wanted"), [(RetryLater, "renew"), (Busy, "renew"), (Refused, "doctor"), (ChecksFailed, "doctor")]
)
@pytest.mark.parametrize("waits", [True, False])
def test_what_failed_is_tried_again_if_that_can_help(kind, wanted, waits):
    seen = next_step(replace(DUE, attempts=failed(kind, waits=waits)))
    assert seen.action == wanted
    assert f"failed 3 in a row, the last: {kind.__name__}: why" in seen.why
    assert ("next try not before 2026-11-24T00:05:00Z" in seen.why) == waits


def test_what_failed_and_is_not_due_needs_nobody():
    assert next_step(replace(VALID, attempts=failed(Refused, waits=True))) is None


def test_hooks_are_run_when_there_is_nothing_else_to_do():
    waiting = ("reload", "tell")
    assert next_step(replace(VALID, pending_hooks=waiting)).action == "hooks"
    assert next_step(replace(VALID, pending_hooks=waiting)).why == "hooks still have to run: reload, tell"
    assert action(replace(DUE, pending_hooks=waiting)) == "renew"
    assert action(replace(EXPIRED, pending_hooks=waiting)) == "establish"


def test_what_works_the_least_comes_first():
    ranked = sorted(EVERY.values(), key=urgency)
    assert [one.state for one in ranked] == list(reversed(STATES))
    assert min([replace(DUE, name="b"), replace(DUE, name="a")], key=urgency).name == "a"
