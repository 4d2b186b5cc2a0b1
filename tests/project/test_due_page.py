"""docs/reference/due.md says what the rules say: each of its tables is computed by them and compared.

``UCL_WRITE_TABLE=1 pytest tests/project/test_due_page.py`` writes them again.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from written_tables import keep, table_in

from ucl_helpers import policy
from ucl_helpers.models import Validity
from ucl_helpers.operate.monitoring import limits
from ucl_helpers.policy import JITTER, due, next_try, refusal_ends
from ucl_helpers.tables import moment, span

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "due.md"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LIFETIMES = (5 * MINUTE, HOUR, DAY, 7 * DAY, 90 * DAY, 365 * DAY, 3652 * DAY)


def lasting(lifetime):
    return Validity(START, START + lifetime)


def at_least_and_most(compute):
    """The same with all of the jitter, and without any."""
    found = []
    for fraction in (1.0, 0.0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(policy, "fraction", lambda _, fraction=fraction: fraction)
            found.append(compute())
    return found


def shares():
    for lifetime in LIFETIMES:
        life = lasting(lifetime)
        first, last = at_least_and_most(lambda life=life: due(life, seed="", now=START).at)
        wrong = Validity(START - 3 * lifetime, START + lifetime)  # due from birth
        again = due(wrong, seed="", now=START, activated=START).at - START
        within = f"{span(first - START)} to {span(last - START)}"
        yield span(lifetime), within, span(lifetime * JITTER), span(life.not_after - last), span(again)


def examples():
    for lifetime in (DAY, 90 * DAY):
        found = due(lasting(lifetime), seed="prod/0d7f3a4c", now=START)
        yield span(lifetime), moment(found.at), found.reason


def settings():
    for lifetime, before in [(90 * DAY, 30 * DAY), (90 * DAY, 60 * DAY), (DAY, 6 * HOUR), (DAY, 30 * DAY)]:
        found = due(lasting(lifetime), seed="", now=START, renew_before=before)
        yield span(lifetime), f'`"{span(before).replace(" ", "")}"`', span(found.at - START), found.reason


def pauses():
    for failures in range(1, 9):

        def compute(failures=failures):
            return next_try(failures, seed="prod", now=START) - START

        shortest, longest = at_least_and_most(compute)
        yield str(failures), f"{span(shortest)} to {span(longest)}", span(compute())


def last_pauses():
    for left in (DAY, 10 * HOUR, HOUR, 10 * MINUTE, MINUTE):

        def compute(left=left):
            return next_try(99, seed="", now=START, not_after=START + left) - START

        yield span(left), span(max(at_least_and_most(compute)))


def refusals():
    for left in (30 * DAY, 4 * DAY, DAY, 12 * HOUR, HOUR):
        yield span(left), span(refusal_ends(START, not_after=START + left) - START)


def late():
    for lifetime in LIFETIMES:
        life = lasting(lifetime)
        _, when = at_least_and_most(lambda life=life: due(life, seed="", now=START))
        lates = limits(life, when)
        after = (span(one - START) for one in (when.at, *lates))
        yield span(lifetime), *after, span(life.not_after - lates[1])


TABLES = {
    "| lifetime | due after | jitter up to |": shares,
    "| lifetime | due | rule": examples,
    "| lifetime | `renew_before` |": settings,
    "| failures in a row |": pauses,
    "| left of the certificate |": last_pauses,
    "| lifetime | due after | late after |": late,
    "| left when it began |": refusals,
}


@pytest.mark.parametrize("head", TABLES)
def test_each_line_is_what_the_rules_say(head):
    keep(PAGE, head, TABLES[head]())


def test_another_rule_would_be_found(monkeypatch):
    monkeypatch.setattr(policy, "LONGEST_PAUSE", 2 * HOUR)
    lines = ["| " + " | ".join(row) + " |" for row in pauses()]
    told = table_in(PAGE.read_text("utf-8"), "| failures in a row |")[1].splitlines()
    assert [number for number, pair in enumerate(zip(lines, told, strict=True), 1) if pair[0] != pair[1]] == [7, 8]
