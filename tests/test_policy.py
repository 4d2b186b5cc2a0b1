"""When a renewal is due: from lifetimes of five minutes to ten years, the clock an argument."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucl_helpers.errors import UsageError
from ucl_helpers.models import Validity
from ucl_helpers.policy import INTERVAL_SHARE, JITTER, MIN_INTERVAL, SHARE, due, parse_duration, state

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def lasting(lifetime):
    return Validity(START, START + lifetime)


# -- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lifetime", "share", "name"),
    [
        (5 * MINUTE, 1 / 2, "half of 5 min"),
        (HOUR, 1 / 2, "half of 1 h"),
        (DAY, 1 / 2, "half of 1 d"),
        (10 * DAY - SECOND, 1 / 2, "half of 9 d 23 h"),
        (10 * DAY, 2 / 3, "two thirds of 10 d"),
        (90 * DAY, 2 / 3, "two thirds of 90 d"),
        (3652 * DAY, 2 / 3, "two thirds of 3652 d"),
    ],
)
def test_the_share_of_the_lifetime(lifetime, share, name):
    latest, jitter = START + lifetime * share, lifetime * JITTER
    found = due(lasting(lifetime), seed="prod", now=START)
    assert latest - jitter <= found.at <= latest
    assert found.reason.startswith(f"{name}, less ")
    assert not found.due


@pytest.mark.parametrize("lifetime", [5 * MINUTE, DAY, 90 * DAY, 3652 * DAY])
@pytest.mark.parametrize("renew_before", [None, MINUTE])
def test_it_is_due_from_that_moment_on_and_not_before(lifetime, renew_before):
    validity = lasting(lifetime)
    at = due(validity, seed="prod", now=START, renew_before=renew_before).at
    for now, expected in [(at - SECOND, False), (at, True), (validity.not_after, True), (START - DAY, False)]:
        found = due(validity, seed="prod", now=now, renew_before=renew_before)
        assert (found.due, found.at) == (expected, at)


# -- jitter ------------------------------------------------------------------------------------------------------------


def test_a_connection_has_the_same_jitter_every_time():
    found = {due(lasting(90 * DAY), seed="prod", now=START + number * HOUR).at for number in range(100)}
    assert len(found) == 1


def test_a_fleet_is_spread_over_all_of_it():
    lifetime = 90 * DAY
    latest = START + lifetime * SHARE[0]
    early = [latest - due(lasting(lifetime), seed=f"tenant-{number}", now=START).at for number in range(1000)]
    tenths = [int(one / (lifetime * JITTER) * 10) for one in early]
    assert set(tenths) == set(range(10))
    assert all(50 < tenths.count(number) < 150 for number in range(10))


@pytest.mark.parametrize(("lifetime", "percent"), [(90 * DAY, 1), (DAY, 4)])
def test_of_a_thousand_that_were_established_in_one_moment_few_are_due_in_the_same_minute(lifetime, percent):
    """By the rule alone: nobody sleeps."""
    minutes = Counter(
        int((due(lasting(lifetime), seed=f"tenant-{number}/{number}", now=START).at - START) / MINUTE)
        for number in range(1000)
    )
    assert max(minutes.values()) <= 10 * percent
    assert minutes.total() == 1000


def test_without_jitter_all_would_be_due_in_the_same_minute():
    """The twin: that is what renew_before does."""
    ends = {due(lasting(DAY), seed=f"tenant-{number}", now=START, renew_before=HOUR).at for number in range(1000)}
    assert len(ends) == 1


# -- minimum interval --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lifetime", "wanted", "wait", "cut"),
    [
        (90 * DAY, HOUR, HOUR, ""),
        (90 * DAY, 2 * DAY, 2 * DAY, ""),
        (DAY, 30 * DAY, 576 * MINUTE, ", four tenths of what was left instead of 30 d"),
        (5 * MINUTE, HOUR, 2 * MINUTE, ", four tenths of what was left instead of 1 h"),
    ],
)
def test_what_is_due_from_birth_is_not_due_again_at_once(lifetime, wanted, wait, cut):
    """Its NotBefore lies far behind, as when the server's clock is wrong: by the shares it is due for long."""
    validity = Validity(START - 1000 * lifetime, START + lifetime)
    how = {"seed": "prod", "activated": START, "min_interval": wanted}
    for now, expected in [(START, False), (START + wait - SECOND, False), (START + wait, True)]:
        found = due(validity, now=now, **how)
        assert (found.due, found.at) == (expected, START + wait)
    assert found.reason.startswith("min_interval = ")
    assert f" since it came into use{cut}; else due before (" in found.reason


@pytest.mark.parametrize("activated", [None, START + SECOND, START + 80 * DAY, START - 80 * DAY])
def test_without_it_that_would_be_due_at_once(activated):
    """The twin: nothing is known of when it came into use, that lies ahead by a wrong clock, or long behind."""
    assert due(Validity(START - 1000 * DAY, START + DAY), seed="prod", now=START, activated=activated).due


def test_a_certificate_that_is_not_due_yet_does_not_wait_for_it():
    plain = due(lasting(90 * DAY), seed="prod", now=START)
    assert due(lasting(90 * DAY), seed="prod", now=START, activated=START) == plain


def test_of_five_minutes_the_jitter_stays():
    spread = {due(lasting(5 * MINUTE), seed=f"{one}", now=START, activated=START).at for one in range(100)}
    assert len(spread) == 100
    assert {due(lasting(5 * MINUTE), seed="1", now=START, activated=START).reason} == {
        due(lasting(5 * MINUTE), seed="1", now=START).reason
    }


RULES = st.fixed_dictionaries(
    {
        "seed": st.text(max_size=8),
        "renew_before": st.none() | st.timedeltas(SECOND, 4000 * DAY),
        "min_interval": st.timedeltas(SECOND, 4000 * DAY),
        "now": st.timedeltas(timedelta(0), 4000 * DAY).map(lambda passed: START + passed),
    }
)


@given(
    lifetime=st.timedeltas(5 * MINUTE, 3652 * DAY),
    activated=st.none() | st.timedeltas(-10 * DAY, 4000 * DAY).map(lambda passed: START + passed),
    rule=RULES,
)
def test_of_any_lifetime_it_is_due_neither_too_early_nor_too_late(lifetime, activated, rule):
    validity, now = lasting(lifetime), rule["now"]
    found = due(validity, activated=activated, **rule)
    assert found.due == (now >= found.at)
    assert START + INTERVAL_SHARE * lifetime <= found.at < validity.not_after
    assert found.at >= due(validity, **rule).at
    if activated is not None and activated <= now and activated < validity.not_after:
        left = validity.not_after - activated
        assert found.at >= activated + min(rule["min_interval"], INTERVAL_SHARE * min(lifetime, left))


def test_the_default_is_an_hour():
    validity = Validity(START - 1000 * DAY, START + DAY)
    assert due(validity, seed="", now=START, activated=START).at - START == MIN_INTERVAL == HOUR


# -- renew_before ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lifetime", "wanted", "before", "reason"),
    [
        (90 * DAY, 30 * DAY, 30 * DAY, "renew_before = 30 d"),
        (90 * DAY, 45 * DAY, 45 * DAY, "renew_before = 45 d"),
        (90 * DAY, 46 * DAY, 45 * DAY, "renew_before = 45 d, half of the lifetime instead of 46 d"),
        (DAY, 30 * DAY, 12 * HOUR, "renew_before = 12 h, half of the lifetime instead of 30 d"),
        (5 * MINUTE, HOUR, 150 * SECOND, "renew_before = 2 min 30 s, half of the lifetime instead of 1 h"),
    ],
)
def test_it_is_half_the_lifetime_at_most(lifetime, wanted, before, reason):
    found = due(lasting(lifetime), seed="prod", now=START, renew_before=wanted)
    assert (found.at, found.reason, found.due) == (START + lifetime - before, reason, False)


def test_it_has_no_jitter():
    assert len({due(lasting(DAY), seed=seed, now=START, renew_before=HOUR).at for seed in "abcdef"}) == 1
    assert len({due(lasting(DAY), seed=seed, now=START).at for seed in "abcdef"}) == 6


# -- durations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("30d", 30 * DAY),
        ("36h", 36 * HOUR),
        ("90m", 90 * MINUTE),
        ("45s", 45 * SECOND),
        ("2w", 14 * DAY),
        ("1d12h", 36 * HOUR),
        (" 1d 12 h\n", 36 * HOUR),
    ],
)
def test_a_duration_is_read(text, length):
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "d",
        "-1d",
        "1.5d",
        "30D",
        "1y",
        "3 0d",
        "1d,2h",
        "x1d",
        "1dx",
        "٣d",
        "9" * 5000 + "d",
        "999999999w",
    ],
)
def test_what_is_no_duration_is_named(text):
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0s", "0d", "0d 00h"])
def test_no_time_at_all_is_no_duration_either(text):
    with pytest.raises(UsageError, match="is not more than nothing"):
        parse_duration(text)


# -- one word ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "revoked", "is_due", "word"),
    [
        (START, False, False, "valid"),
        (START, False, True, "due"),
        (START, True, True, "revoked"),
        (START - 5 * MINUTE, False, False, "valid"),
        (START - 5 * MINUTE - SECOND, False, False, "not yet valid"),
        (START + DAY - SECOND, False, True, "due"),
        (START + DAY, False, True, "expired"),
        (START + DAY, True, True, "revoked"),
    ],
)
def test_the_state_of_a_connection(now, revoked, is_due, word):
    assert state(lasting(DAY), now=now, revoked=revoked, is_due=is_due) == word
