"""A simulated fleet is due when the policy says so, and its year is that of a plain loop over the policy."""

import runpy
import sys
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ucl_helpers.errors import UsageError
from ucl_helpers.fleet import simulation
from ucl_helpers.fleet.simulation import BEGINNING, DAY, HOUR, Fleet, Years, beginnings, rests, simulate
from ucl_helpers.models import Validity
from ucl_helpers.policy import due

MICROSECOND, MINUTE = timedelta(microseconds=1), timedelta(minutes=1)
FLEETS = settings(derandomize=True, deadline=None, max_examples=60)
LIFETIMES = st.timedeltas(5 * MINUTE, 3650 * DAY)


def lengths(least, most):
    """Whole minutes, so that moments may meet."""
    return st.integers(least // MINUTE, most // MINUTE).map(lambda number: number * MINUTE)


# -- a connection is due when the policy says so -----------------------------------------------------------------------


@FLEETS
@given(LIFETIMES, st.none() | st.timedeltas(MINUTE, 400 * DAY), st.integers(0, 1000))
def test_it_is_due_when_the_policy_says_so(lifetime, renew_before, seed):
    fleet = Fleet(50, lifetime, renew_before, seed=seed)
    for number, rest in enumerate(rests(fleet).tolist()):
        said = due(
            Validity(BEGINNING, BEGINNING + lifetime),
            seed=fleet.name(number),
            now=BEGINNING,
            renew_before=renew_before,
        )
        assert abs(BEGINNING + rest * MICROSECOND - said.at) <= MICROSECOND


def test_another_seed_is_another_fleet_with_jitter_and_the_same_without():
    one, other = Fleet(100), Fleet(100, seed=2)
    assert len(set(rests(one).tolist()) & set(rests(other).tolist())) == 0
    plain = [Fleet(100, renew_before=30 * DAY, seed=seed) for seed in (1, 2)]
    assert {rest * MICROSECOND for fleet in plain for rest in rests(fleet).tolist()} == {60 * DAY}


# -- its year is that of a plain loop ----------------------------------------------------------------------------------


def plainly(fleet):
    """The year of a small fleet, by asking the policy about each connection in each run; a judge of its own."""
    begun = [BEGINNING + moment * MICROSECOND for moment in beginnings(fleet).tolist()]
    valid = [Validity(moment, moment + fleet.lifetime) for moment in begun]
    outages = [(BEGINNING + at, BEGINNING + at + long) for at, long in fleet.outages]
    gap = -(-HOUR // MICROSECOND // fleet.per_hour) * MICROSECOND if fleet.per_hour else timedelta(0)
    renewals, margins, lost = Counter(), [], set()
    run, end, at = BEGINNING, BEGINNING + fleet.length, BEGINNING
    while run < end:
        asked = [
            (due(one, seed=fleet.name(number), now=run, renew_before=fleet.renew_before), number)
            for number, one in enumerate(valid)
            if number not in lost
        ]
        at = max(at, run)
        for _, number in sorted((one.at, number) for one, number in asked if one.due):
            if at >= min(run + fleet.every, end):
                break
            left = valid[number].not_after - at
            if left <= timedelta(0):
                lost.add(number)
            elif not any(begin <= at < over for begin, over in outages):
                margins.append(left)
                renewals[(at - BEGINNING) // HOUR] += 1
                valid[number] = Validity(at, at + fleet.lifetime)
            at += gap
        run += fleet.every
    lost |= {number for number, one in enumerate(valid) if one.not_after <= end}
    hours = [renewals[hour] for hour in range(-(-fleet.length // HOUR))]
    return hours, len(lost), min(margins, default=None)


def told(year):
    return year.renewals.tolist(), year.expired, year.margin


OUTAGES = st.lists(st.tuples(lengths(timedelta(0), 12 * DAY), lengths(MINUTE, 3 * DAY)), max_size=3).map(tuple)
SMALL = st.builds(
    Fleet,
    connections=st.integers(1, 12),
    lifetime=lengths(30 * MINUTE, 14 * DAY),
    renew_before=st.none() | lengths(MINUTE, 14 * DAY),
    established=lengths(timedelta(0), 6 * DAY),
    every=lengths(20 * MINUTE, 2 * DAY),
    outages=OUTAGES,
    per_hour=st.none() | st.integers(1, 20),
    length=lengths(HOUR, 14 * DAY),
)


@FLEETS
@given(SMALL)
def test_its_year_is_that_of_a_plain_loop(fleet):
    assume(fleet.length / fleet.every < 150)
    assert told(simulate(fleet)) == plainly(fleet)


LIVELY = {
    "all at once": Fleet(30, renew_before=30 * DAY),
    "with jitter": Fleet(30, every=6 * HOUR, length=130 * DAY),
    "a limit that is too low": Fleet(30, DAY, every=6 * HOUR, per_hour=1, length=10 * DAY),
    "an outage that is too long": Fleet(30, 6 * DAY, every=HOUR, outages=((2 * DAY, 4.5 * DAY),), length=20 * DAY),
    "one within a run": Fleet(30, 6 * DAY, outages=((3 * DAY + HOUR, HOUR),), per_hour=4, length=20 * DAY),
}


@pytest.mark.parametrize("name", LIVELY)
def test_so_is_that_of_a_fleet_in_trouble(name):
    fleet = LIVELY[name]
    year = simulate(fleet)
    assert told(year) == plainly(fleet)
    assert year.renewals.sum() > 0
    assert (year.expired > 0) is (" is too " in name)


# -- what an operator looks at -----------------------------------------------------------------------------------------


def test_one_connection_is_renewed_every_sixty_days():
    year = simulate(Fleet(1, renew_before=30 * DAY, established=timedelta(0)))
    assert [hour / 24 for hour, number in enumerate(year.renewals.tolist()) if number] == [60, 120, 180, 240, 300, 360]
    assert (year.days.sum(), len(year.days), year.peak, year.expired, year.margin) == (6, 365, 1, 0, 30 * DAY)


def test_jitter_spreads_and_looking_more_often_spreads_finer():
    lumped, spread, finer = (simulate(Fleet(2000, **one)) for one in ({"renew_before": 30 * DAY}, {}, {"every": HOUR}))
    assert lumped.peak == 2000
    assert 2000 / 5 < spread.peak < 2000 / 3
    assert 2000 / 108 < finer.peak < 2000 / 50
    assert lumped.renewals.sum() == spread.renewals.sum() == finer.renewals.sum() == 12_000


def test_the_limit_is_never_passed_and_without_it_would_be():
    fleet = {"connections": 500, "lifetime": DAY, "every": 10 * MINUTE, "length": 5 * DAY, "established": HOUR}
    assert simulate(Fleet(**fleet, per_hour=70)).peak == 70
    assert simulate(Fleet(**fleet)).peak > 70


def test_what_falls_short_is_a_warning_and_what_cannot_be_a_failure():
    good = simulate(Fleet(10))
    assert [one.status for one in good.checks] == ["ok", "ok", "ok", "ok"]
    out = simulate(Fleet(10, outages=((50 * DAY, 50 * DAY),)))
    assert (out.expired, out.checks[1].status) == (10, "warning")
    late = simulate(Fleet(10, renew_before=DAY, every=DAY))
    assert (late.expired, late.checks[2].status) == (0, "warning")
    broken = type(good)(Fleet(10, per_hour=2), good.renewals, 0, good.margin)
    assert (good.peak > 2, broken.checks[3].status) == (True, "failed")


def test_a_rule_that_is_not_the_policy_s_is_a_failure(monkeypatch):
    year = simulate(Fleet(1000))
    assert (year.checks[0].status, year.checks[0].found) == ("ok", "100 of them")
    monkeypatch.setattr(simulation, "fraction_bytes", lambda _: b"\x80" + bytes(7))
    assert (year.checks[0].status, year.checks[0].found) == ("failed", "1 of them")


def test_a_fleet_that_is_never_due_has_no_margin():
    year = simulate(Fleet(3, length=DAY))
    assert told(year) == ([0] * 24, 0, None)
    assert "smallest margin left          none" in str(year)
    assert year.checks[2].status == "ok"


def test_years_stand_side_by_side():
    years = Years({"early": simulate(Fleet(1200, renew_before=30 * DAY)), "never": simulate(Fleet(3, length=DAY))})
    assert str(years).splitlines()[2:] == [
        "early   7,200    1,200                0        29 d 1 min",
        "never   0        0                    0        none",
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"connections": 0}, "connections from 1 to 5000000"),
        ({"connections": 5_000_001}, "connections from 1 to 5000000"),
        ({"lifetime": MINUTE}, "a lifetime of five minutes or more"),
        ({"renew_before": timedelta(0)}, "renew_before more than none"),
        ({"established": -DAY}, "established within no less than no time"),
        ({"every": timedelta(0)}, "a time between two runs"),
        ({"outages": ((DAY, timedelta(0)),)}, "outages that last"),
        ({"outages": ((-DAY, DAY),)}, "outages that last"),
        ({"per_hour": 0}, "a limit of one an hour"),
        ({"length": MINUTE}, "a length of an hour"),
        ({"every": timedelta(seconds=1)}, "more than 1000000 runs"),
    ],
)
def test_what_makes_no_sense_is_named(wrong, said):
    with pytest.raises(UsageError, match=said):
        Fleet(**wrong)


def test_without_numpy_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(UsageError, match=r"needs numpy. Install it with: .*\[lab\]"):
        runpy.run_path(simulation.__file__)


def test_a_million_take_some_seconds(whole, proof):
    """How many is told at the end: a million with --whole."""
    fleet = Fleet(1_000_000 if whole else 50_000, every=HOUR, per_hour=5000, outages=((58 * DAY, 2 * DAY),))
    year = simulate(fleet)
    assert (year.expired, year.renewals.sum() > 5 * fleet.connections) == (0, True)
    proof("fleet", "connections simulated for a year", fleet.connections)
