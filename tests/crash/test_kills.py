"""Killed with SIGKILL before any system call that changes a file or speaks to the network, a procedure loses nothing.

A kill before one call is a kill after the one before it. Shortened, a renewal is killed at every kind of call.
"""

import signal

import pytest
from scenes import PROCEDURES
from tracing import UNFIT
from walking import one_of_each_kind

pytest_plugins = ["cut_off_fixtures"]
pytestmark = pytest.mark.skipif(bool(UNFIT), reason=UNFIT)


def killed(run):
    return [] if run.code == -signal.SIGKILL else [f"it went on and ended with {run.code}: {run.said}"]


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_killed_before_any_call_nothing_is_lost(cut, procedure):
    assert cut(procedure, "SIGKILL", killed, some=one_of_each_kind if procedure == "renew" else 1) == []


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_all_calls_are_made_by_the_main_thread(scenes, procedure):
    """So all are reached, though strace counts by thread: the thread that makes the key makes none."""
    calls = scenes(procedure).calls or scenes(procedure).recorded()
    assert {one.thread for one in calls} == {"main"}
