"""Connections as monitoring systems see them: a plugin's word (OK, WARNING …) and metrics for Prometheus, by status.

=====================================  =========
valid                                  OK
due, tried in time                     OK
due, late or with too many failures    WARNING; late is when a quarter of the time from due date to NotAfter has passed
due, too late                          CRITICAL; when three quarters have
refused, which may be an outage        WARNING; CRITICAL when it lasts, see :func:`ucl_helpers.policy.refusal_ends`
not yet valid                          WARNING; a clock is wrong
expired, revoked, refused, damaged     CRITICAL
not established                        CRITICAL
settings not usable                    UNKNOWN; until the user corrects them there is no renewal and no due date
=====================================  =========

Hooks that still have to run make a WARNING of what would be OK. The text follows the guidelines for monitoring plugins
(Nagios, Icinga and others): one line, what can be measured behind a bar, the word as exit code 0 to 3.

Metrics are gauges with the label ``connection``, written by prometheus_client (extra ``metrics``). Their names are an
interface: alert rules and dashboards use them. A value that is not known has no sample, except for
``ucl_last_looked_timestamp_seconds``, a dead man's switch, which is 0 then. No value is a secret.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.files import require_own_links, write
from ucl_helpers.connection.status import LOST, STATES, Status, needs, status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import Outage, UCLError, UsageError, printable
from ucl_helpers.extras import require
from ucl_helpers.models import Due, Validity
from ucl_helpers.tables import moment, span

Word = Literal["OK", "UNKNOWN", "WARNING", "CRITICAL"]
EXIT_CODES: dict[Word, int] = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}
SEVERITY: tuple[Word, ...] = ("OK", "UNKNOWN", "WARNING", "CRITICAL")
WARNING_SHARE, CRITICAL_SHARE = 1 / 4, 3 / 4
"""Shares of the time between due date and NotAfter: when so much has passed, operators have to know."""
MANY_FAILURES = 3
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Verdict:
    """The judgement of one connection: a word, a reason, and the days that remain with their limits, if known."""

    word: Word
    text: str
    measured: str = ""


def limits(validity: Validity, due: Due) -> tuple[datetime, datetime]:
    """Return the moments (UTC) at which an identity that was not renewed becomes a warning, and critical."""
    grace = validity.not_after - due.at
    return due.at + grace * WARNING_SHARE, due.at + grace * CRITICAL_SHARE


def verdict(status: Status) -> Verdict:
    """Judge one connection, as its status was read from disk; see the table above."""
    word, why = _judged(status)
    if hooks := len(status.pending_hooks):
        word, why = "WARNING" if word == "OK" else word, f"{why}, hooks that still have to run: {hooks}"
    return Verdict(word, _line(f"{status.name}: {why}"), _measured(status))


def _judged(status: Status) -> tuple[Word, str]:
    if status.validity is None or status.due is None:
        why = f"{status.state}: {status.problem}" if status.problem else status.state
        return ("UNKNOWN" if status.state == "settings not usable" else "CRITICAL"), why
    remaining = f"{span(status.validity.not_after - status.now)} left"
    if status.state in LOST:
        return "CRITICAL", f"{status.state}, valid to {moment(status.validity.not_after)}"
    if status.state == "not yet valid":
        return "WARNING", f"not yet valid, from {moment(status.validity.not_before)}"
    if (since := status.attempts.refused_since) is not None:
        return _of_refusal(status, since, limits(status.validity, status.due)[1], remaining)
    if (need := needs(status)) is None or status.state == "valid":
        other = f", {need.why}" if need and need.action != "hooks" else ""  # hooks are counted elsewhere
        return "OK", f"valid, {remaining}, renewal due {moment(status.due.at)}{other}"
    return _of_due(status, status.due, status.validity, remaining)


def _of_due(status: Status, due: Due, validity: Validity, remaining: str) -> tuple[Word, str]:
    attempts, (late, too_late) = status.attempts, limits(validity, due)
    failed = f", failed {attempts.failures} in a row, the last: {attempts.last_error}" if attempts.failures else ""
    why = f"due since {moment(due.at)}, {remaining}{failed}"
    if status.now >= too_late:
        return "CRITICAL", why
    return ("WARNING" if status.now >= late or attempts.failures >= MANY_FAILURES else "OK"), why


def _of_refusal(status: Status, since: datetime, too_late: datetime, remaining: str) -> tuple[Word, str]:
    attempts, ends = status.attempts, status.critical_refusal
    down = attempts.last_error is not None and attempts.last_error.error == Outage.__name__
    what = "UCL is down" if down else "UCL refuses it, which may be an outage or a loss,"
    why = f"{what} since {moment(since)}, {remaining}, failed {attempts.failures} in a row"
    return ("CRITICAL" if status.now >= min(ends or too_late, too_late) else "WARNING"), why


def _measured(status: Status) -> str:
    """Return the days that remain, and the limits of a warning and of a critical state."""
    if status.validity is None or status.due is None:
        return ""
    end = status.validity.not_after
    days, warn, critical = ((end - at) / _DAY for at in (status.now, *limits(status.validity, status.due)))
    return f"{status.name}_days_left={days:z.3f};{warn:.3f}:;{critical:.3f}:"


@dataclass(frozen=True)
class Report:
    """Verdicts of one or several connections, by name. As text they are a monitoring plugin's output."""

    verdicts: Mapping[str, Verdict]

    @property
    def whole(self) -> Verdict:
        """Return one verdict for all: the worst word, its reason, and the measured values of each connection."""
        ranked = self._ranked()
        if len(ranked) == 1:
            return ranked[0]
        if not ranked:
            return Verdict("UNKNOWN", "there are no connections to watch")
        bad = sum(verdict.word != "OK" for verdict in ranked)
        text = f"{bad} of {len(ranked)} need attention: {ranked[0].text}" if bad else f"all {len(ranked)} are well"
        measured = " ".join(filter(None, (verdict.measured for verdict in self.verdicts.values())))
        return Verdict(ranked[0].word, text, measured)

    @property
    def exit_code(self) -> int:
        """Return the exit code of the worst word."""
        return EXIT_CODES[self.whole.word]

    def __str__(self) -> str:
        whole, ranked = self.whole, self._ranked()
        first = f"UCL {whole.word} - {whole.text}" + (f" | {whole.measured}" if whole.measured else "")
        return "\n".join([first, *(f"{verdict.word} - {verdict.text}" for verdict in ranked if len(ranked) > 1)])

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        connections = {name: {"verdict": verdict.word, "text": verdict.text} for name, verdict in self.verdicts.items()}
        return {"verdict": self.whole.word, "exitCode": self.exit_code, "connections": connections}

    def _ranked(self) -> list[Verdict]:
        return sorted(self.verdicts.values(), key=lambda verdict: -SEVERITY.index(verdict.word))


def check_home(home: Home, name: str | None = None, clock: Clock = utc_now) -> Report:
    """Judge a connection, or all but those for practice. If one cannot be read, that is UNKNOWN and no error."""
    try:
        chosen = [home.connection(name)] if name else home.connections()
        statuses = [status_of(connection, clock) for connection in chosen]
    except UCLError as error:
        return Report({name or str(home.path): Verdict("UNKNOWN", _line(str(error)))})
    return Report({status.name: verdict(status) for status in statuses if name or not status.sandbox})


def _line(text: str) -> str:
    """Return the text on one line, without the bar, which separates measured values."""
    return printable(" ".join(text.replace("|", "/").split()))


# -- metrics -----------------------------------------------------------------------------------------------------------

Value = datetime | float | None
TEXTFILE_MODE = 0o644
"""Readable by others on purpose: another user's node_exporter reads it."""
TEXTFILE_SUFFIX = ".prom"


_HELP = {
    "ucl_certificate_not_before_timestamp_seconds": "NotBefore of the certificate in use.",
    "ucl_certificate_not_after_timestamp_seconds": "NotAfter of the certificate in use.",
    "ucl_renewal_due_timestamp_seconds": "When a renewal is due.",
    "ucl_last_looked_timestamp_seconds": "When a run last looked whether it is due; 0: never.",
    "ucl_last_attempt_timestamp_seconds": "When a renewal or an establishment last began.",
    "ucl_last_success_timestamp_seconds": "When the newest certificate came into use.",
    "ucl_renewal_failures": "Failed attempts in a row.",
    "ucl_refused_since_timestamp_seconds": "Since when UCL refuses the certificate, which may be an outage.",
    "ucl_refusal_ends_timestamp_seconds": "From when on that refusal is critical.",
    "ucl_generation_number": "Number of the generation in use.",
    "ucl_hooks_pending": "Hooks that still have to run for the certificate in use.",
}


def _values(status: Status) -> dict[str, Value]:
    """Return the value of each gauge, None if it is not known, in the order of their names above."""
    validity, attempts = status.validity, status.attempts
    number = (status.generation or "").partition("-")[0]
    values = (
        validity.not_before if validity else None,
        validity.not_after if validity else None,
        status.due.at if status.due else None,
        attempts.last_looked or 0,
        attempts.last_attempt,
        attempts.last_success,
        attempts.failures,
        attempts.refused_since,
        status.critical_refusal,
        int(number) if number.isdecimal() else None,
        len(status.pending_hooks),
    )
    return dict(zip(_HELP, values, strict=True))


def render(statuses: Iterable[Status], now: datetime) -> bytes:
    """Write all gauges of these connections in Prometheus' text format.

    Args:
        statuses: one for each connection.
        now: when they were read (UTC).
    """
    require("metrics")
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    gauges = {name: Gauge(name, text, ["connection"], registry=registry) for name, text in _HELP.items()}
    state = Gauge("ucl_state", "1 for the state that the connection is in.", ["connection", "state"], registry=registry)
    for status in statuses:
        for name, value in _values(status).items():
            if value is not None:
                seconds = value.timestamp() if isinstance(value, datetime) else value
                gauges[name].labels(status.name).set(seconds)
        for word in STATES:
            state.labels(status.name, word).set(word == status.state)
    written = Gauge("ucl_metrics_written_timestamp_seconds", "When these metrics were written.", registry=registry)
    written.set(now.timestamp())
    return generate_latest(registry)


def write_textfile(path: Path, metrics: bytes) -> None:
    """Put metrics where node_exporter's textfile collector reads them: whole, by one rename, mode 0644.

    Raises:
        UsageError: node_exporter would not read a file of this name.
        StorageFailed: it cannot be written, or a symlink of another user is on the way. The previous file is kept.
    """
    if path.suffix != TEXTFILE_SUFFIX:
        raise UsageError(
            f"{path.name} does not end in {TEXTFILE_SUFFIX}: node_exporter passes it over.",
            remedy=f"Name it like ucl{TEXTFILE_SUFFIX}.",
        )
    require_own_links(path.absolute().parent)
    write(path.absolute(), metrics, TEXTFILE_MODE)
