"""Very many renewals at a server that misbehaves at random: at 20 % each comes to its end, at 90 % nothing is lost.

The faults are drawn from seeds, and the calls come one after another, so that every run meets the same ones.
"""

from contextlib import suppress

import pytest
from faulty import counting, go_on, issued, wrongs
from steps import events, install, pending_of, tree

from ucl_helpers import renew
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import RetryLater
from ucl_helpers.procedures import procedure
from ucl_sandbox.faults.plans import Fault, grumpy

pytest_plugins = ["procedure_fixtures", "fault_fixtures"]
pytestmark = pytest.mark.usefixtures("quick")
RUNS = 3  # of a renewal, as a timetable gives it
FINISHED_EVERY = 5


@pytest.fixture
def connection(ucl, keys, tmp_path, monkeypatch):
    """A new key is never the one in use."""
    made = install(Home(tmp_path / "home"), ucl, tmp_path)

    def another(bits):
        used = made.current.certificate.public_key()
        return next(key for key in keys if key.public_key() != used)

    monkeypatch.setattr(procedure, "make_key", another)
    yield made
    ucl.faults.clear()


def renewed(connection, before):
    """Runs of a renewal until it is done, or until there are no more: how many it took."""
    for run in range(1, RUNS + 1):
        with suppress(RetryLater):
            renew(connection)
        if connection.current != before:
            return run
    return None


def test_at_a_fifth_every_renewal_succeeds_within_its_runs(connection, ucl, whole, proof):
    number, at_once = (200 if whole else 20), 0
    ucl.faults.set(grumpy(0.2), seed=4)
    with counting() as calls:
        for _ in range(number):
            runs = renewed(connection, connection.current)
            assert runs is not None
            at_once += runs == 1
    struck = ucl.faults.struck
    ucl.faults.clear()
    assert events(connection).count("renewed") == number
    assert all(one.is_readable for one in connection.generations())
    assert {one.fingerprint for one in connection.generations()} - issued(ucl) == set()
    assert len(calls) > 3 * number  # some were made again
    proof("soak", "at 20 %: renewals, all done within three runs", number)
    proof("soak", "at 20 %: renewals done by their first run", at_once)
    proof("soak", "at 20 %: calls made", len(calls))
    proof("soak", "at 20 %: calls spoiled", sum(struck.values()))


def test_where_nothing_passes_none_succeeds(connection, ucl):
    ucl.faults.set([Fault("reset-after-reading", "certificate")])
    assert renewed(connection, connection.current) is None


def test_at_nine_tenths_nothing_is_lost(connection, ucl, whole, proof):
    """After each run the identities of before and of now work; after every fifth the faults end, and it is finished."""
    runs, calls, done, finished, spoiled = 0, 0, 0, 0, 0
    first = connection.current
    kept = tree(first.path)
    while calls < (5000 if whole else 250):
        runs += 1
        old, before = connection.current, issued(ucl)
        asked_with = key_that_may_be_signed(connection)
        ucl.faults.set(grumpy(0.9), seed=runs)
        with counting() as made, suppress(RetryLater):
            renew(connection)
        spoiled += sum(ucl.faults.struck.values())
        ucl.faults.clear()
        calls += len(made)
        done += connection.current != old
        assert wrongs(ucl, connection, first, kept, before) == []
        assert asked_with in {None, *keys_in(connection)}
        if runs % FINISHED_EVERY == 0:
            go_on(connection)
            finished += 1
    assert calls > done  # it was not all plain sailing
    assert connection.current != first
    proof("soak", "at 90 %: runs, after each of which the connection worked", runs)
    proof("soak", "at 90 %: runs that renewed all the same", done)
    proof("soak", "at 90 %: renewals finished when the faults were over", finished)
    proof("soak", "at 90 %: calls made", calls)
    proof("soak", "at 90 %: calls spoiled", spoiled)


def key_that_may_be_signed(connection):
    pending = pending_of(connection)
    return pending.key_path.read_bytes() if pending.read_state().sent else None


def keys_in(connection):
    return {path.read_bytes() for path in connection.path.rglob("key.pem")}
