"""Trying a law with many inputs, counted; damaged inputs; and how much dearer a longer input is."""

import gc
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WHOLE = 100  # times as many examples when the proof is run whole
TIMES = 64  # as long is the longer input
TOO_DEAR = 8 * TIMES  # linear is 64 times as dear, or somewhat more where caches end; quadratic is 4,096 times as dear
MEASURABLE, STEADY, MOST = 0.0005, 1, 100_000  # seconds, seconds, repetitions


def tried(strategy, check, examples):
    """Try a check with this many examples, the same ones every time; how many were tried."""
    number = 0

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=examples,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
    )
    @given(strategy)
    def one(value):
        nonlocal number
        number += 1
        check(value)

    one()
    return number


@st.composite
def damaged(draw, wholes):
    """Bytes that were right before some were changed, lost or repeated."""
    data = draw(st.sampled_from(wholes))
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        other = draw(st.sampled_from(wholes))
        data = (
            data[:at]
            + draw(st.sampled_from([b"", other[at : at + 64], draw(st.binary(max_size=8))]))
            + data[at + length :]
        )
    return data


def dearer(work, make, length=500):
    """Return how many times as much processor time an input of 64 times the length takes.

    The same work may seem three times as dear for a moment on a machine that others use too. So a linear and a
    quadratic parser must be further from the limit than that.
    """
    while (short := _cost(work, make(length))) < MEASURABLE and length < MOST:
        length *= 2
    return _cost(work, make(length * TIMES)) / max(short, MEASURABLE / 10)


def _cost(work, data):
    """The least processor time of three, without collections of garbage, which grow with all that pytest holds."""
    costs = []
    gc.disable()
    try:
        while len(costs) < 3 and sum(costs) < STEADY:  # what takes long needs no second measurement
            before = time.process_time()
            work(data)
            costs.append(time.process_time() - before)
    finally:
        gc.enable()
    return min(costs)
