"""A wrong clock stops no renewal and loses nothing: ours by any amount, the server's, one that jumps, a suspend.

Valid-now is judged by the server's clock, with five minutes of tolerance; when only ours disagrees that is a warning,
which names the difference. The server's TLS always goes by the system's clock here.
"""

import os
import signal
import subprocess
from contextlib import suppress
from datetime import timedelta

import pytest
from command_line import UCL, environment
from faulty import accepted, issued, wrongs
from meddler import lost_on_the_way_back
from processes import wait_until
from steps import Clock, aside, events, go, install, pending_of, tree

from ucl_helpers import Renewal, renew
from ucl_helpers.connection.pending import set_aside
from ucl_helpers.errors import Busy, CertificateRejected, ChecksFailed, RetryLater, Unreachable, UsageError
from ucl_helpers.tables import span
from ucl_sandbox.faults.plans import Fault

pytest_plugins = ["procedure_fixtures", "fault_fixtures"]
AMOUNTS = (
    *(timedelta(seconds=30), timedelta(minutes=4), timedelta(minutes=6), timedelta(hours=3)),
    *(timedelta(days=60), timedelta(days=1100)),
)
TOLERATED = timedelta(minutes=5)
YEARS = timedelta(days=1100)
RUNS = 20


@pytest.fixture
def direct(home, ucl, clock, quick, tmp_path):
    """A connection that is reached without anybody in between, its identity an hour old."""
    clock.set(hours=-1)
    connection = install(home, ucl, tmp_path)
    clock.set()
    return connection


def run_again(connection, **how):
    """As a timetable would. An alert may get lost: then it looks like a break."""
    for _ in range(RUNS):
        with suppress(Unreachable):
            return renew(connection, **how)
    raise AssertionError("it is never said why")


@pytest.mark.parametrize("amount", AMOUNTS, ids=span)
@pytest.mark.parametrize("way", ["ahead", "behind"])
def test_our_clock_may_be_wrong_by_anything(secure, amount, way, proof):
    old = secure.current
    kept = tree(old.path)
    off = amount if way == "ahead" else -amount
    warnings = renew(secure, clock=Clock(seconds=off.total_seconds())).facts["warnings"]
    assert secure.current != old
    assert tree(old.path) == kept
    if amount <= TOLERATED:
        assert warnings is None
    else:  # the server tells whole seconds, and time goes on
        near = {span(amount + timedelta(seconds=more)) for more in range(-30, 31)}
        assert warnings in {f"our clock: expected within 5 min of the server's, found {one} {way}" for one in near}
    assert renew(secure).facts["warnings"] is None
    proof("time", "renewals with a clock of ours that was wrong", 1)


@pytest.mark.parametrize("way", [1, -1])
def test_a_key_that_may_have_been_signed_outlives_a_wrong_clock(secure, between, way):
    between.on("sign", lost_on_the_way_back)
    with pytest.raises(Unreachable):
        renew(secure)
    key = pending_of(secure).key_path.read_bytes()
    renew(secure, key_length=2056, clock=Clock(days=way * YEARS.days))
    assert [one.key_path.read_bytes() for one in set_aside(secure.path)] == [key]


@pytest.mark.parametrize("amount", [timedelta(minutes=-4), timedelta(hours=-3), timedelta(days=-30)], ids=span)
def test_a_server_whose_clock_is_behind_is_believed(secure, clock, amount, proof):
    clock.set(seconds=amount.total_seconds())
    warnings = renew(secure).facts["warnings"]
    assert (warnings is not None) == (-amount > TOLERATED)
    proof("time", "renewals at a server whose clock was wrong", 1)


@pytest.mark.parametrize("amount", [timedelta(minutes=2), timedelta(hours=3), timedelta(days=-91)], ids=span)
def test_what_a_server_signs_for_another_time_is_kept_and_then_asked_for_again(direct, ucl, clock, amount, proof):
    """What it signs is not valid yet for its TLS, or not any more: so ten minutes long it may be a gateway's clock."""
    old, before = direct.current, issued(ucl)
    kept = tree(old.path)
    clock.set(seconds=amount.total_seconds())
    for _ in range(2):
        with pytest.raises(RetryLater):
            renew(direct)
    assert len(issued(ucl) - before) == 1
    key = pending_of(direct).key_path.read_bytes()
    clock.set()
    with pytest.raises(CertificateRejected):
        run_again(direct, clock=Clock(minutes=11))
    assert wrongs(ucl, direct, old, kept, before) == []
    assert renew(direct).facts["warnings"] is None
    assert (direct.current.path / "key.pem").read_bytes() == key
    proof("time", "renewals at a server whose clock was wrong", 1)


# -- a clock that jumps, a suspend -------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", ["request", "sign", "decode", "verify", "activate"])
@pytest.mark.parametrize("jump", [timedelta(hours=3), timedelta(days=60)], ids=span)
def test_time_may_pass_between_any_two_steps(secure, since, jump, proof):
    ours = Clock()
    renewal = Renewal.begin(secure, clock=ours)
    upto = {"request": "configuration", "sign": "request", "decode": "sign", "verify": "decode", "activate": "verify"}
    go(renewal, upto[since])
    ours.set(seconds=jump.total_seconds())
    assert go(renewal, since=since).outcome == "renewed"
    proof("time", "renewals suspended between two steps, or over a jump of the clock", 1)


@pytest.mark.parametrize("jump", [timedelta(days=91), timedelta(hours=-3)], ids=["slept through its lifetime", "-3 h"])
def test_an_answer_that_is_not_valid_by_then_is_asked_for_again_with_the_same_key(secure, jump, proof):
    old, ours = secure.current, Clock()
    renewal = Renewal.begin(secure, clock=ours)
    go(renewal, "sign")
    key = pending_of(secure).key_path.read_bytes()
    ours.set(seconds=jump.total_seconds())
    with pytest.raises(ChecksFailed) as caught:
        go(renewal, since="decode")
    assert caught.value.data["failed"] == ["valid now"]
    assert secure.current == old
    assert renew(secure, clock=ours).outcome == "renewed"
    assert (secure.current.path / "key.pem").read_bytes() == key
    assert events(secure).count("signing-requested") == 2
    proof("time", "renewals suspended between two steps, or over a jump of the clock", 1)


def test_it_is_not_activated_when_it_has_expired_since_it_was_verified(secure):
    old, ours = secure.current, Clock()
    renewal = Renewal.begin(secure, clock=ours)
    go(renewal, "verify")
    ours.set(days=91)
    with pytest.raises(UsageError, match="has expired since"):
        renewal.activate()
    assert secure.current == old
    assert renew(secure, clock=ours).outcome == "renewed"


@pytest.mark.parametrize("operation", ["configuration", "sign"])
def test_a_process_that_is_stopped_in_mid_call_goes_on(direct, ucl, operation, proof):
    old, before = direct.current, issued(ucl)
    kept = tree(old.path)
    ucl.faults.set([Fault("black-hole", "certificate", operation)])
    command = [UCL, "renew", "prod", "--force", "--json"]
    with subprocess.Popen(
        command, env=environment(direct.home.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        try:
            wait_until(lambda: ucl.faults.struck)
            child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
            ucl.faults.clear()
            with pytest.raises(Busy) as caught:
                renew(direct)
            assert f"process {child.pid} " in caught.value.data["holder"]
            assert accepted(direct, direct.current)
            assert direct.current == old
        finally:
            ucl.faults.clear()
            child.send_signal(signal.SIGCONT)
        out, err = child.communicate()
    assert (child.returncode, err) == (0, b""), out
    assert direct.current != old
    assert wrongs(ucl, direct, old, kept, before) == []
    assert not pending_of(direct)
    assert aside(direct) == []
    proof("time", "processes stopped in mid-call that went on", 1)
