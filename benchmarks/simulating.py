"""A simulated year of a million connections, beside plain numpy over as many.

Plain numpy is what one writes who wants to know how many are renewed in each hour, and nothing else: an array of when
each connection is due, with a random jitter; once a day those that are due are found, counted, and due again. Nothing
expires there, there are no outages and no limit, nobody is first, and the jitter is not the policy's (which takes a
SHA-256 of each name). Both are whole processes, the start of Python and the import of numpy included.
"""

import sys
from collections.abc import Iterator

from benchmarks.measuring import Result, in_turn, process

MILLION, LIMIT, MIB, MOST_PAIRS = 1_000_000, 3, 2**20, 15
OURS = """
from ucl_helpers.automation.simulation import Fleet, simulate
assert simulate(Fleet(MILLION)).renewals.sum() > MILLION
"""
THEIRS = """
import numpy as np
DAY, HOUR = 86_400_000_000, 3_600_000_000
rest = np.rint(DAY * (60 - 90 * 0.05 * np.random.default_rng(1).random(MILLION))).astype(np.int64)
due = np.arange(MILLION) * (DAY // MILLION) + rest
renewals = np.zeros(365 * 24, np.int64)
for day in range(365):
    those = np.flatnonzero(due <= day * DAY)
    renewals[day * DAY // HOUR] += those.size
    due[those] = day * DAY + rest[those]
assert renewals.sum() > MILLION
"""


def results(pairs: int) -> Iterator[Result]:
    """First the time that it takes, then the memory."""
    ours, theirs = ([sys.executable, "-c", one.replace("MILLION", str(MILLION))] for one in (OURS, THEIRS))
    what = f"a simulated year of {MILLION:,} connections"
    both = in_turn(lambda: process(ours).seconds, lambda: process(theirs).seconds, min(pairs, MOST_PAIRS))
    yield Result("simulation", what, "numpy over the same array", both.ratio, "×", LIMIT, details=both.described())

    peaks = in_turn(lambda: process(ours).peak_bytes / MIB, lambda: process(theirs).peak_bytes / MIB, 2)
    what, details = f"peak memory of {what}", peaks.described()
    yield Result("simulation-memory", what, "one GiB", max(peaks.ours), "MiB", 1024, details=details)
