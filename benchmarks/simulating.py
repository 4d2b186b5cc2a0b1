"""A simulated year of a million connections, beside plain numpy over the same array.

Plain numpy is what one writes who wants to know how many are renewed in each hour, and nothing else: an array of when
each connection is due; once a day those that are due are found, counted, and due again. Nothing expires there, there
are no outages, no limit and no margins. The array is the same: its jitter is that of the policy, a SHA-256 of each
name; and so is the sum. That hash takes most of the time on both sides, so the JSON also has the ratio to numpy that
draws its jitter (``jitter_drawn``). All are whole processes, the start of Python and the import of numpy included.
"""

import sys
from collections.abc import Iterator

from benchmarks.measuring import Result, in_turn, process

MILLION, LIMIT, MIB, MOST_PAIRS = 1_000_000, 3, 2**20, 15
OURS = """
from ucl_helpers.fleet.simulation import Fleet, simulate
print(simulate(Fleet(MILLION)).renewals.sum())
"""
HASHED = 'np.array([int.from_bytes(sha256(b"1/%d" % one).digest()[:8]) for one in range(MILLION)], np.uint64) / 2.0**64'
DRAWN = "np.random.default_rng(1).random(MILLION)"
THEIRS = """
from hashlib import sha256
import numpy as np
DAY, HOUR = 86_400_000_000, 3_600_000_000
rest = np.rint(DAY * (60 - 90 * 0.05 * JITTER)).astype(np.int64)
due = np.arange(1, MILLION + 1) * (DAY // MILLION) + rest
renewals = np.zeros(365 * 24, np.int64)
for day in range(365):
    those = np.flatnonzero(due <= day * DAY)
    renewals[day * DAY // HOUR] += those.size
    due[those] = day * DAY + rest[those]
print(renewals.sum())
"""


def results(pairs: int) -> Iterator[Result]:
    """First the time that it takes, then the memory."""
    count = min(pairs, MOST_PAIRS)
    same, drawn = (_program(THEIRS.replace("JITTER", one)) for one in (HASHED, DRAWN))
    ours = _program(OURS)
    what = f"a simulated year of {MILLION:,} connections"
    both = in_turn(lambda: process(ours).seconds, lambda: process(same).seconds, count)
    other = in_turn(lambda: process(ours).seconds, lambda: process(drawn).seconds, count)
    details = {**both.described(), "jitter_drawn": {**other.described(), "ratio": round(other.ratio, 3)}}
    yield Result("simulation", what, "numpy over the same array", both.ratio, "×", LIMIT, details=details)

    peaks = in_turn(lambda: process(ours).peak_bytes / MIB, lambda: process(same).peak_bytes / MIB, 2)
    what, details = f"peak memory of {what}", peaks.described()
    yield Result("simulation-memory", what, "one GiB", max(peaks.ours), "MiB", 1024, details=details)


def _program(text: str) -> list[str]:
    return [sys.executable, "-c", text.replace("MILLION", str(MILLION))]
