"""How many modules a reader has to open to follow one renewal, and one error: no more than before."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
# What the design wants is behind each figure; each may only fall until it is there. A wait adds `progress`.
TOURS = {"renewal()": 35, "error(OUTAGE)": 11}  # 15, 8


def tour(call):
    """The modules of a tour, which a process of its own makes: the command changes the process that it runs in."""
    script = f"from tools.tour import OUTAGE, error, renewal; print(*{call})"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("call", TOURS)
def test_a_tour_is_no_longer_than_before(call):
    modules = tour(call)
    assert {"ucl_helpers.wire.client", "ucl_helpers.procedures.renewal"} <= {*modules}
    assert len(modules) <= TOURS[call], "\n".join(["to see both tours: python -m tools.tour", *modules])


def test_no_error_passes_through_a_renewal_that_succeeds():
    assert tour("error()") == []
