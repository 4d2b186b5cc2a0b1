"""The pace of a fleet: evenly spaced, slowed down by 429, back again. The clock is a number; nobody sleeps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ucl_helpers.fleet.pacing import CALLS, LEAST_SHARE, STEP_SECONDS, UNKNOWN_PAUSE, Pace


def starts(pace, until, now=0.0):
    """The moments of all starts until then, each as early as it may be."""
    while (now := now + pace.delay(now)) < until:
        pace.start(now)
        yield now


def test_starts_are_evenly_spaced_at_the_rate():
    assert list(starts(Pace(6, now=0), 2)) == pytest.approx([0, 0.5, 1, 1.5])


def test_at_twice_the_rate_there_are_twice_as_many():
    few, many = (len(list(starts(Pace(rate, now=0), 100))) for rate in (6, 12))
    assert (few, many) == (200, 400)


@settings(max_examples=50, deadline=None)
@given(rate=st.floats(0.5, 100), pauses=st.lists(st.floats(0, 5), max_size=30))
def test_never_more_calls_than_the_rate_however_late_starts_come(rate, pauses):
    pace, now, moments = Pace(rate, now=0), 0.0, []
    for pause in [*pauses, 0.0, 0.0, 0.0]:
        now += pause + pace.delay(now + pause)
        pace.start(now)
        moments.append(now)
    for later, earlier in zip(moments[1:], moments, strict=False):
        assert later - earlier >= CALLS / rate * (1 - 1e-9)


def test_a_pace_that_made_up_for_what_came_late_would_be_found():
    class Hasty(Pace):
        def start(self, now):
            self._next += CALLS / self.rate

    pace = Hasty(3, now=0)
    pace.start(10)
    assert pace.delay(10) == 0
    steady = Pace(3, now=0)
    steady.start(10)
    assert steady.delay(10) == 1


def test_429_pauses_everybody_and_halves_the_rate():
    pace = Pace(12, now=0)
    pace.start(0)
    pace.slow_down(1, started=0, retry_after=30)
    assert pace.delay(1) == 30
    assert (pace.rate, pace.limited) == (6, 1)
    assert list(starts(pace, 32.2, now=1)) == pytest.approx([31, 31.5, 32])


def test_without_a_word_of_how_long_it_pauses_as_well():
    pace = Pace(12, now=0)
    pace.slow_down(1, started=0)
    assert pace.delay(1) == UNKNOWN_PAUSE


def test_what_was_on_its_way_does_not_halve_it_again():
    pace = Pace(12, now=0)
    for _ in range(5):
        pace.slow_down(1, started=0.5, retry_after=1)
    assert (pace.rate, pace.limited) == (6, 5)


def test_what_was_started_since_does():
    pace = Pace(12, now=0)
    pace.slow_down(1, started=0.5, retry_after=1)
    pace.slow_down(3, started=2, retry_after=1)
    assert pace.rate == 3


def test_a_shorter_pause_does_not_cut_a_longer_one():
    pace = Pace(12, now=0)
    pace.slow_down(1, started=0, retry_after=60)
    pace.slow_down(2, started=0, retry_after=1)
    assert pace.delay(2) == 59


def test_it_never_stands_still():
    pace = Pace(64, now=0)
    for second in range(100):
        pace.slow_down(second, started=second, retry_after=0)
    assert pace.rate == 64 * LEAST_SHARE


def test_it_recovers_slowly_and_not_above_what_is_wanted():
    pace = Pace(20, now=0)
    pace.slow_down(0, started=0, retry_after=0)
    seen = []
    for step in range(1, 13):
        pace.start(step * STEP_SECONDS)
        seen.append(pace.rate)
    assert seen == [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 20, 20]


def test_before_a_step_is_over_it_does_not():
    pace = Pace(20, now=0)
    pace.slow_down(0, started=0, retry_after=0)
    pace.start(STEP_SECONDS - 0.1)
    assert pace.rate == 10
