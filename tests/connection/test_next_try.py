"""When something that failed is tried again: a pause that doubles, is cut near the end, and heeds the server."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucl_helpers.policy import LONGEST_ASKED, LONGEST_PAUSE, is_waiting, next_try, refusal_ends

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FAR = NOW + 90 * DAY


def pause(failures, *, seed="prod", not_after=FAR, retry_after=0.0):
    return next_try(failures, seed=seed, now=NOW, not_after=not_after, retry_after=retry_after) - NOW


@pytest.mark.parametrize(
    ("failures", "most"),
    [(1, MINUTE), (2, 2 * MINUTE), (3, 4 * MINUTE), (6, 32 * MINUTE), (7, HOUR), (8, HOUR), (1_000_000, HOUR)],
)
def test_it_doubles_from_a_minute_to_an_hour(failures, most):
    found = {pause(failures, seed=f"{number}") for number in range(200)}
    assert most / 2 < min(found) < most * 0.55
    assert most * 0.95 < max(found) <= most
    assert len(found) == 200


def test_it_is_the_same_whenever_it_is_asked_and_another_after_the_next_failure():
    assert pause(3) == pause(3)
    shares = [pause(failures) / (MINUTE * 2 ** (failures - 1)) for failures in (1, 2, 3)]
    assert len(set(shares)) == 3


# -- the end of the certificate ----------------------------------------------------------------------------------------


def tries(end, *, retry_after=0.0):
    """When it is tried, if each fails, until the certificate has expired."""
    now, failures = NOW, 0
    while now < end:
        yield now
        failures += 1
        now = next_try(failures, seed="prod", now=now, not_after=end, retry_after=retry_after)


@pytest.mark.parametrize("left", [150 * SECOND, HOUR, DAY, 30 * DAY])
@pytest.mark.parametrize("retry_after", [0.0, 30.0, 86_400.0])
def test_the_last_tries_come_before_the_end(left, retry_after):
    end = NOW + left
    found = list(takewhile(lambda when: end - when > SECOND, tries(end, retry_after=retry_after)))
    assert end - found[-1] < 3 * SECOND
    assert len(found) > 5


def test_while_much_is_left_it_is_tried_at_most_once_in_half_an_hour():
    """The twin: it is the end alone that makes them come often."""
    found = list(takewhile(lambda when: FAR - when > DAY, tries(FAR)))
    gaps = [after - before for before, after in pairwise(found[8:])]
    assert min(gaps) >= HOUR / 2
    assert max(gaps) <= HOUR


@pytest.mark.parametrize("not_after", [None, NOW, NOW - DAY])
def test_what_has_expired_or_never_was_is_tried_in_the_same_rhythm(not_after):
    assert pause(7, not_after=not_after) == pause(7)


# -- what the server asked for -----------------------------------------------------------------------------------------


def test_what_the_server_asks_for_comes_before_the_pause():
    assert pause(2, retry_after=90.0) == 90 * SECOND + pause(2)


def test_those_that_were_told_the_same_do_not_come_back_together():
    assert len({pause(1, seed=f"{number}", retry_after=600.0) for number in range(100)}) == 100


@pytest.mark.parametrize(("asked", "left", "heeded"), [(1e9, FAR - NOW, DAY), (86_400.0, DAY, DAY / 2)])
def test_it_may_not_ask_for_more_than_a_day_or_half_of_what_is_left(asked, left, heeded):
    found = pause(1, not_after=NOW + left, retry_after=asked)
    assert heeded < found <= heeded + MINUTE


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "waits"),
    [
        (NOW, True),
        (NOW + 9 * MINUTE, True),
        (NOW + 10 * MINUTE, False),
        (NOW + DAY, False),
        (NOW - SECOND, False),  # the clock was set back since
        (NOW - 300 * DAY, False),
    ],
)
def test_it_waits_from_the_failure_to_the_next_try(now, waits):
    assert is_waiting(now, failed=NOW, not_before=NOW + 10 * MINUTE) == waits


def test_a_pause_that_none_can_be_keeps_nobody_waiting():
    longest = LONGEST_ASKED + LONGEST_PAUSE
    assert is_waiting(NOW, failed=NOW, not_before=NOW + longest)
    assert not is_waiting(NOW, failed=NOW, not_before=NOW + longest + SECOND)
    assert not is_waiting(NOW, failed=NOW, not_before=datetime.max.replace(tzinfo=UTC))


@given(
    failures=st.integers(1, 10**6),
    left=st.none() | st.timedeltas(-10 * DAY, 3652 * DAY),
    retry_after=st.floats(0, 86_400),
    seed=st.text(max_size=8),
)
def test_whatever_is_told_there_is_a_next_try_and_it_is_waited_for(failures, left, retry_after, seed):
    end = None if left is None else NOW + left
    found = next_try(failures, seed=seed, now=NOW, not_after=end, retry_after=retry_after)
    assert NOW <= found <= NOW + LONGEST_ASKED + LONGEST_PAUSE
    assert end is None or end <= NOW or found < end or end - NOW < timedelta(milliseconds=1)
    assert found == NOW or is_waiting(NOW, failed=NOW, not_before=found)


# -- for how long a refusal may be an outage ---------------------------------------------------------------------------


@pytest.mark.kind("outages: for how long")
@pytest.mark.parametrize(
    ("left", "lasts"),
    [
        (90 * DAY, DAY),
        (4 * DAY, DAY),
        (2 * DAY, 12 * HOUR),
        (DAY, 6 * HOUR),
        (HOUR, 15 * MINUTE),
        (MINUTE, 15 * SECOND),
        (0 * DAY, 0 * DAY),
        (-DAY, 0 * DAY),
    ],
)
def test_a_refusal_is_temporary_for_a_quarter_of_what_is_left_and_a_day_at_most(left, lasts):
    assert refusal_ends(NOW, not_after=NOW + left) == NOW + lasts


def test_without_a_certificate_it_is_a_day():
    assert refusal_ends(NOW, not_after=None) == NOW + DAY


@given(st.timedeltas(min_value=SECOND, max_value=4000 * DAY))
def test_most_of_what_is_left_is_there_when_it_ends(left):
    assert NOW <= refusal_ends(NOW, not_after=NOW + left) <= NOW + left / 4 + timedelta(microseconds=1)
