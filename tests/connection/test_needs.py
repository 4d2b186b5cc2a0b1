"""All who ask whether a connection has work get one answer, in every situation."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from quick_keys import QUICK_BITS
from steps import install, judged

from ucl_helpers.connection.attempts import recording_attempt
from ucl_helpers.connection.status import needs, status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UCLError, Unreachable, Waiting
from ucl_helpers.fleet.plan import plan
from ucl_helpers.operate.due_check import check_due
from ucl_helpers.operate.greeting import next_step
from ucl_helpers.operate.monitoring import verdict
from ucl_helpers.procedures.renewal import Renewal
from ucl_sandbox import Sandbox

NEW, DUE, OVERDUE, EXPIRED = (timedelta(days=days) for days in (0, 65, 88, 91))  # age of the certificate


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def connection(tmp_path, ucl):
    return install(Home(tmp_path / "home"), ucl, tmp_path)


def failed(connection, now):
    with pytest.raises(Unreachable), connection.lock.held(), recording_attempt(connection, lambda: now):
        raise Unreachable("UCL cannot be reached.")


def unfinished(connection, now):
    folder = connection.path / "pending"
    folder.mkdir()
    state = {"id": "x", "kind": "renew", "created": now.isoformat(), "bits": QUICK_BITS, "configuration": {}}
    (folder / "state.json").write_text(json.dumps({**state, "sent": now.isoformat()}))


def nothing(connection, now):
    """Leave it as it is."""


# name: (what happened, the certificate's age, the action, whether a renewal is tried, whether it waits)
SITUATIONS = {
    "not due": (nothing, NEW, None, False, False),
    "due": (nothing, DUE, "renew", True, False),
    "overdue": (nothing, OVERDUE, "renew", True, False),
    "expired": (nothing, EXPIRED, "establish", True, False),
    "backing off": (failed, DUE, "renew", True, True),
    "failed and not due": (failed, NEW, None, False, False),
    "unfinished renewal": (unfinished, NEW, "renew", True, False),
    "revoked": (lambda one, _: judged(one), NEW, "establish", False, False),
    "revoked elsewhere": (lambda one, _: judged(one, "refused"), NEW, "ask", False, False),
    "no identity": (lambda one, _: (one.path / "current").unlink(), NEW, "doctor", False, False),
    "damaged": (lambda one, _: (one.path / "current" / "chain.pem").write_text("x"), NEW, "doctor", False, False),
}


def begun(connection, now):
    """What ``Renewal.begin`` makes of it: what it asks UCL is noted and not sent."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Renewal, "_ask_whether_it_is_accepted", lambda _: asked.append("ask"))
        try:
            renewal = Renewal.begin(connection, only_if_due=True, key_length=QUICK_BITS, clock=lambda: now)
        except Waiting:
            return "waits"
        except UCLError:
            return "cannot be renewed"
    if asked:
        return "asks"
    return "renews" if renewal.not_needed is None else "nothing"


@pytest.mark.parametrize("name", SITUATIONS)
def test_all_askers_agree(connection, name):
    change, age, action, renews, waits = SITUATIONS[name]
    now = datetime.now(UTC) + age
    change(connection, now)
    status = status_of(connection, lambda: now)
    need = needs(status)
    assert (need and need.action, bool(need and need.renews), bool(need and need.wait_until)) == (action, renews, waits)

    # ucl run --if-due
    if waits:
        with pytest.raises(Waiting):
            check_due(connection, now)
    else:
        assert check_due(connection, now).need == need

    # the fleet
    assert (connection.name in plan(connection.home, clock=lambda: now).bases) == (need is not None)

    # the greeting
    step = next_step(status)
    assert (step is None) == (need is None)

    # monitoring
    judged_as = verdict(status)
    assert need is None or judged_as.word != "OK" or need.why.split(" (")[0] in judged_as.text

    # Renewal.begin
    expected = "nothing" if need is None else "waits" if waits else "renews" if renews else "asks"
    expected = "cannot be renewed" if action in {"establish", "doctor"} and not renews else expected
    assert begun(connection, now) == expected
