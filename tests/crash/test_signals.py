"""Ended by SIGTERM, or interrupted by SIGINT, just after any system call, a procedure loses nothing and says so.

SIGTERM has its default action: the program ends there and then, after the call, where SIGKILL comes before it.
"""

import signal

import pytest
from scenes import PROCEDURES
from tracing import UNFIT

pytest_plugins = ["cut_off_fixtures"]
pytestmark = pytest.mark.skipif(bool(UNFIT), reason=UNFIT)


def ended(run):
    return [] if run.code == -signal.SIGTERM else [f"it went on and ended with {run.code}: {run.said}"]


def interrupted(run):
    orderly = run.code == 130 and run.said.endswith("Nothing is lost. Run it again to continue.\n")
    return [] if orderly and "Traceback" not in run.said else [f"it ended with {run.code}: {run.said}"]


@pytest.mark.parametrize(("how", "judge"), [("SIGTERM", ended), ("SIGINT", interrupted)], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("procedure", PROCEDURES)
def test_ended_after_any_call_nothing_is_lost(cut, procedure, how, judge):
    assert cut(procedure, how, judge) == []
