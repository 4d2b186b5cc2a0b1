"""What a monitoring system is told of a connection: OK, WARNING, CRITICAL or UNKNOWN, by its status.

=====================================  =========
valid                                  OK
due, tried in time                     OK
due, late or with too many failures    WARNING; late is when a quarter of the time from due date to NotAfter has passed
due, too late                          CRITICAL; when three quarters have
refused, which may be an outage        WARNING; CRITICAL when it lasts, see :func:`ucl_helpers.policy.refusal_ends`
not yet valid                          WARNING; a clock is wrong
expired, revoked, refused, damaged     CRITICAL
not established                        CRITICAL
settings not usable                    UNKNOWN; no renewal is made until they are mended, and none can be said to be due
=====================================  =========

Hooks that still have to run make a WARNING of what would be OK. The text follows the guidelines for monitoring plugins
(Nagios, Icinga and others): one line, what can be measured behind a bar, the word as exit code 0 to 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.status import LOST, Status, status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Outage, UCLError
from ucl_helpers.models import Due, Validity
from ucl_helpers.tables import moment, printable, span

Word = Literal["OK", "UNKNOWN", "WARNING", "CRITICAL"]
EXIT_CODES: dict[Word, int] = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}
SEVERITY: tuple[Word, ...] = ("OK", "UNKNOWN", "WARNING", "CRITICAL")
WARNING_SHARE, CRITICAL_SHARE = 1 / 4, 3 / 4
"""Of the time between due date and NotAfter: when so much has passed, somebody has to know."""
MANY_FAILURES = 3
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Verdict:
    """What is said of one connection: a word, why, and the days left with their limits, where they are known."""

    word: Word
    text: str
    measured: str = ""


def limits(validity: Validity, due: Due) -> tuple[datetime, datetime]:
    """From when on (UTC) an identity that was not renewed is a warning, and from when on critical."""
    grace = validity.not_after - due.at
    return due.at + grace * WARNING_SHARE, due.at + grace * CRITICAL_SHARE


def hooks_pending(status: Status) -> int:
    """How many hooks still have to run for the identity in use."""
    return len(status.pending_hooks)


def verdict(status: Status) -> Verdict:
    """Judge one connection, as its status was read from disk; see the table above."""
    word, why = _judged(status)
    if waiting := hooks_pending(status):
        word, why = "WARNING" if word == "OK" else word, f"{why}, hooks that still have to run: {waiting}"
    return Verdict(word, _line(f"{status.name}: {why}"), _measured(status))


def _judged(status: Status) -> tuple[Word, str]:
    if status.validity is None or status.due is None:
        told = f"{status.state}: {status.problem}" if status.problem else status.state
        return ("UNKNOWN" if status.state == "settings not usable" else "CRITICAL"), told
    left = f"{span(status.validity.not_after - status.now)} left"
    if status.state in LOST:
        return "CRITICAL", f"{status.state}, valid to {moment(status.validity.not_after)}"
    if status.state == "not yet valid":
        return "WARNING", f"not yet valid, from {moment(status.validity.not_before)}"
    if (since := status.attempts.refused_since) is not None:
        return _of_refusal(status, since, limits(status.validity, status.due)[1], left)
    if status.state == "valid":
        return "OK", f"valid, {left}, renewal due {moment(status.due.at)}"
    return _of_due(status, status.due, status.validity, left)


def _of_due(status: Status, due: Due, validity: Validity, left: str) -> tuple[Word, str]:
    known, (late, too_late) = status.attempts, limits(validity, due)
    failed = f", failed {known.failures} in a row, the last: {known.last_error}" if known.failures else ""
    told = f"due since {moment(due.at)}, {left}{failed}"
    if status.now >= too_late:
        return "CRITICAL", told
    if status.now >= late or known.failures >= MANY_FAILURES:
        return "WARNING", told
    return "OK", told


def _of_refusal(status: Status, since: datetime, too_late: datetime, left: str) -> tuple[Word, str]:
    known, ends = status.attempts, status.critical_refusal
    down = known.last_error is not None and known.last_error.error == Outage.__name__
    what = "UCL is down" if down else "UCL refuses it, which may be an outage or a loss,"
    told = f"{what} since {moment(since)}, {left}, failed {known.failures} in a row"
    return ("CRITICAL" if status.now >= min(ends or too_late, too_late) else "WARNING"), told


def _measured(status: Status) -> str:
    """Days left, and below how many it is a warning or critical."""
    if status.validity is None or status.due is None:
        return ""
    end = status.validity.not_after
    left, warn, critical = ((end - at) / _DAY for at in (status.now, *limits(status.validity, status.due)))
    return f"{status.name}_days_left={left:.3f};{warn:.3f}:;{critical:.3f}:"


@dataclass(frozen=True)
class Report:
    """What is said of one connection or of several, by name; as text it is a monitoring plugin's output."""

    verdicts: Mapping[str, Verdict]

    @property
    def whole(self) -> Verdict:
        """All in one: the worst word and why, and what was measured of each."""
        ranked = self._ranked()
        if len(ranked) == 1:
            return ranked[0]
        if not ranked:
            return Verdict("UNKNOWN", "there are no connections to watch")
        bad = sum(one.word != "OK" for one in ranked)
        text = f"{bad} of {len(ranked)} need somebody: {ranked[0].text}" if bad else f"all {len(ranked)} are well"
        return Verdict(ranked[0].word, text, " ".join(one.measured for one in self.verdicts.values() if one.measured))

    @property
    def exit_code(self) -> int:
        """That of the worst word."""
        return EXIT_CODES[self.whole.word]

    def __str__(self) -> str:
        whole, ranked = self.whole, self._ranked()
        first = f"UCL {whole.word} - {whole.text}" + (f" | {whole.measured}" if whole.measured else "")
        return "\n".join([first, *(f"{one.word} - {one.text}" for one in ranked if len(ranked) > 1)])

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        told = {name: {"verdict": one.word, "text": one.text} for name, one in self.verdicts.items()}
        return {"verdict": self.whole.word, "exitCode": self.exit_code, "connections": told}

    def _ranked(self) -> list[Verdict]:
        return sorted(self.verdicts.values(), key=lambda one: -SEVERITY.index(one.word))


def check_home(home: Home, name: str | None = None, clock: Clock = utc_now) -> Report:
    """Judge a connection, or all but those for practice. What cannot be looked at is UNKNOWN, never an error."""
    try:
        chosen = [home.connection(name)] if name else home.connections()
        statuses = [status_of(one, clock) for one in chosen]
    except UCLError as error:
        return Report({name or str(home.path): Verdict("UNKNOWN", _line(str(error)))})
    return Report({one.name: verdict(one) for one in statuses if name or not one.sandbox})


def _line(text: str) -> str:
    """On one line, without the bar, which has a meaning."""
    return printable(" ".join(text.replace("|", "/").split()))
