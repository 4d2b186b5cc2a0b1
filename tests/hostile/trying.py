"""Trying a law with many inputs, counted; damaged inputs; and how much dearer a longer input is."""

import gc
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WHOLE = 100  # times as many examples when the proof is run whole
TIMES = 16  # as long is the longer input
TOO_DEAR = 6 * TIMES  # linear is 16 times as dear, or more where caches end; quadratic is 256 times as dear
MEASURABLE, MOST = 0.002, 1_000_000  # seconds, repetitions


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


def dearer(work, make):
    """How many times as dear an input of sixteen times the length is, in processor time.

    It is measured anew where it is too dear: a machine that others keep busy too may make a linear parser look dear
    once; a quadratic one is dear three times.
    """
    length = 500
    while (least := _cost(work, make(length))) < MEASURABLE and length < MOST:
        length *= 2
    short, long = make(length), make(length * TIMES)
    for _ in range(3):
        if (found := _cost(work, long) / max(least, MEASURABLE / 10)) < TOO_DEAR:
            break
        least = max(least, _cost(work, short))
    return found


def _cost(work, data):
    """The least processor time of three, without collections of garbage, which grow with all that pytest holds."""
    costs = []
    gc.disable()
    try:
        for _ in range(3):
            before = time.process_time()
            work(data)
            costs.append(time.process_time() - before)
    finally:
        gc.enable()
    return min(costs)
