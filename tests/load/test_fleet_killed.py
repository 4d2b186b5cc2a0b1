"""The processes of a fleet are killed at random moments: every connection has a result, and none is lost on disk."""

import os
import random
import signal
import threading
from datetime import timedelta

import pytest
from steps import pending_of

from tools.make_fleet import make_fleet
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import RetryLater
from ucl_helpers.fleet.executors import Workers, processes
from ucl_helpers.fleet.plan import alone, plan
from ucl_helpers.fleet.run import renew_fleet
from ucl_sandbox import Sandbox

SEED, JOBS = 19, 4


@pytest.fixture
def home(tmp_path, whole):
    names = [f"c{number:03d}" for number in range(200 if whole else 24)]
    make_fleet(tmp_path / "home", names, validity=timedelta(hours=24), age=timedelta(hours=13), processes=1, keys=2)
    with Sandbox(tmp_path / "home" / "sandbox"):
        yield Home(tmp_path / "home")


def kill_now_and_then(home, workers, over, killed):
    """Kill all processes once a renewal is under way, so that one is lost; then one at a time, at drawn moments.

    Such a moment may come while a process starts, renews, or has nothing to do.
    """
    drawn = random.Random(SEED)  # noqa: S311
    while not any(pending_of(connection) for connection in home.connections()):
        if over.wait(0.01):
            return
    kill(living(workers), killed)
    while not over.wait(drawn.uniform(0.1, 4)):
        if there := living(workers):
            kill([drawn.choice(there)], killed)


def living(workers):
    return [one.process for one in list(workers.executor._workers.values()) if one.process.poll() is None]


def kill(processes, killed):
    for process in processes:
        killed.append(process)
        os.kill(process.pid, signal.SIGKILL)


def test_every_connection_has_a_result_and_none_is_lost(home, proof):
    workers, over, killed = processes(JOBS), threading.Event(), []
    killer = threading.Thread(target=kill_now_and_then, args=(home, workers, over, killed))
    before = {one.name: one.current.fingerprint for one in home.connections()}
    with alone(home), workers.executor:
        killer.start()
        outcome = renew_fleet(plan(home), workers, rate=1000)
        over.set()
        killer.join()
    assert outcome.results.keys() == before.keys()
    assert (outcome.stopped, outcome.counts["left"], outcome.endpoints) == (None, 0, {})
    assert {result.exit_code for result in outcome.failures.values()} <= {
        RetryLater.exit_code
    }  # of one that was lost often
    assert 0 < outcome.lost <= len(killed)
    for connection in home.connections():
        connection.require_current().check_whole()
        assert next(one.fingerprint for one in connection.generations()) == before[connection.name]
    with alone(home), processes(JOBS).executor as executor:
        again = renew_fleet(plan(home), Workers(executor, lambda: JOBS), rate=1000)
    assert again.exit_code == 0
    for connection in home.connections():
        assert connection.current.fingerprint != before[connection.name]
        assert not pending_of(connection)
    proof("fleet", "connections renewed while processes were killed", len(before))
    proof("fleet", "processes killed at random moments of a run", len(killed))
