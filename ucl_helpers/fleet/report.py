"""Report the result of each connection and of a whole run, and the state of a fleet, as text and as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ucl_helpers.connection.status import Status
from ucl_helpers.errors import Busy, RateLimited, RetryLater, UCLError, Waiting, printable
from ucl_helpers.fleet.pacing import Verdict, verdict
from ucl_helpers.tables import Row, moment, span, text_table

SHOWN = 20
"""How many connections a table names; the others are counted."""

RENEWED, RENEWED_BEFORE, NOT_DUE, FAILED, LEFT = "renewed", "renewed-before", "not-due", "failed", "left"
_MEANING = {
    RENEWED: "renewed",
    RENEWED_BEFORE: "renewed since the run began, by an attempt that was cut off or by another program",
    NOT_DUE: "not due",
    FAILED: "failed: the identity in use is unchanged; see below for what to do",
    LEFT: "not done: run it again to go on",
}
_TEMPORARY = {RetryLater.exit_code, Busy.exit_code}
_HEALTHY = {"valid", "due"}


@dataclass(frozen=True)
class Result:
    """The result of one connection. A worker on another machine may have made it, so it is plain data.

    Attributes:
        outcome: ``renewed``, ``renewed-before`` (since this run began: by an attempt that was cut off, or by another
            program), ``not-due``, ``failed`` or ``left`` (not done, because the run was stopped). When a hook failed,
            or could not be run, the error is given beside the outcome of the renewal.
        fingerprint: of the certificate in use now, or None if it is not known.
        exit_code: the exit code of the error, see :mod:`ucl_helpers.errors`; 0 otherwise.
        error: ``class``, ``message`` and ``remedy``, or None.
        seconds: how long it took, on the worker.
        retry_after: seconds after which UCL accepts the next call, or None.
        limited: whether UCL answered 429.
        verdict: the error's verdict on the endpoint, see :mod:`ucl_helpers.fleet.pacing`.
        url: the URL that was called when it failed, or None.
    """

    outcome: str
    fingerprint: str | None = None
    exit_code: int = 0
    error: Mapping[str, str] | None = None
    seconds: float = 0.0
    retry_after: float | None = None
    limited: bool = False
    verdict: Verdict | None = None
    url: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what ``docs/reference/fleet-outcome.schema.json`` describes."""
        return {
            "outcome": self.outcome,
            "fingerprint": self.fingerprint,
            "exitCode": self.exit_code,
            "error": self.error and dict(self.error),
            "seconds": self.seconds,
        }


def failure(error: BaseException, outcome: str = FAILED) -> Result:
    """Return an error as data. Of an unexpected one only the class is kept: its text might hold a secret."""
    if not isinstance(error, UCLError):
        error = UCLError(f"Unexpected: {type(error).__name__}.", remedy="Run it alone, with UCL_DEBUG=1: ucl renew.")
    return Result(
        outcome,
        exit_code=error.exit_code,
        error={"class": type(error).__name__, "message": error.message, "remedy": error.remedy},
        # The pause of Waiting is for later runs.
        retry_after=None if isinstance(error, Waiting) else error.data.get("retry_after"),
        limited=isinstance(error, RateLimited),
        verdict=verdict(error),
        url=error.data.get("url"),
    )


@dataclass(frozen=True)
class EndpointFailed:
    """A certificate endpoint that failed for several connections alike, so that the run stopped calling it.

    Attributes:
        silent: it does not answer; otherwise it refuses each connection that was tried.
        failed: names of connections whose renewal failed.
        left: names of connections that were not tried, or not again.
    """

    silent: bool
    failed: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        how = "Does not answer" if self.silent else "Refuses each connection that was tried"
        return f"{how}: {len(self.failed)} failed, {len(self.left)} not tried. Run it again later."


@dataclass(frozen=True)
class FleetOutcome:
    """The outcome of a run.

    Attributes:
        started, ended: moments, UTC.
        rate: calls a second that were wanted.
        results: by connection.
        limited: how often UCL answered 429.
        repeated: renewals that were begun again, after a 429, a lost worker, or another process' lock.
        lost: how often a worker was lost during a renewal.
        endpoints: those that failed for several connections alike, as ``https://host:port``.
        stopped: ``interrupted``, ``terminated``, ``no workers``, ``told to wait``, or None.
        stop_code: the exit code that goes with ``stopped``.
    """

    started: datetime
    ended: datetime
    rate: float
    results: Mapping[str, Result]
    limited: int = 0
    repeated: int = 0
    lost: int = 0
    endpoints: Mapping[str, EndpointFailed] = field(default_factory=dict)
    stopped: str | None = None
    stop_code: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The number of connections for each outcome, 0 included."""
        counts = Counter(result.outcome for result in self.results.values())
        return {outcome: counts[outcome] for outcome in _MEANING}

    @property
    def failures(self) -> dict[str, Result]:
        """The results of connections that failed, or whose hook failed, by name."""
        return {name: result for name, result in sorted(self.results.items()) if result.exit_code}

    @property
    def exit_code(self) -> int:
        """The exit code of the run: 0 if every connection is renewed or not due.

        If the run was stopped, it is the exit code of the stop. Otherwise it is the commonest exit code among failures
        that are not temporary, or among all failures if all are temporary (3, 8).
        """
        if self.stopped:
            return self.stop_code
        codes = Counter(result.exit_code for result in self.failures.values())
        lasting = {code: count for code, count in codes.items() if code not in _TEMPORARY}
        return min(lasting or codes, key=lambda code: (-codes[code], code), default=0)

    def __str__(self) -> str:
        """Show counts by outcome, each endpoint that failed once, then the first of the other failures."""
        taken = span(self.ended - self.started)
        head = f"{_number(self.results)} in {taken}, {self.limited} answers 429, {self.lost} workers lost"
        counts: list[Row] = [(str(count), _MEANING[outcome]) for outcome, count in self.counts.items() if count]
        endpoints: list[Row] = []
        named = set[str]()
        for endpoint, failed in self.endpoints.items():
            example = failed.failed[-1]
            error, message = _error_cells(self.results[example])
            endpoints.append((endpoint, error, f"{failed}\nFor {example}: {message}"))
            named.update(failed.failed, failed.left)
        others = {name: result for name, result in self.failures.items() if name not in named}
        failures: list[Row] = [(name, *_error_cells(result)) for name, result in list(others.items())[:SHOWN]]
        if more := len(others) - len(failures):
            failures.append(("…", f"{more} more", "all of them are in the outcome file"))
        return _text(
            f"{head}; stopped: {self.stopped}" if self.stopped else head,
            [("connections", "outcome"), *counts],
            [("endpoint", "error", "what to do"), *endpoints],
            [("connection", "error", "what to do"), *failures],
        )

    def as_json(self) -> dict[str, Any]:
        """Return the outcome for programs, by ``docs/reference/fleet-outcome.schema.json``; times are in UTC."""
        return {
            "schemaVersion": 1,
            "kind": "fleet",
            "started": moment(self.started),
            "ended": moment(self.ended),
            "exitCode": self.exit_code,
            "stopped": self.stopped,
            "rate": self.rate,
            "counts": self.counts,
            "answers429": self.limited,
            "repeated": self.repeated,
            "workersLost": self.lost,
            "endpoints": {
                endpoint: {"answers": not failed.silent, "failed": list(failed.failed), "left": list(failed.left)}
                for endpoint, failed in self.endpoints.items()
            },
            "connections": {name: result.as_json() for name, result in sorted(self.results.items())},
        }


@dataclass(frozen=True)
class FleetStatus:
    """The state of each connection at ``now`` (UTC), by name; ``omitted`` counts practice connections left out."""

    now: datetime
    statuses: Sequence[Status]
    omitted: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The number of connections in each state; only states that occur."""
        return dict(sorted(Counter(status.state for status in self.statuses).items()))

    def __str__(self) -> str:
        """Show counts by state, then the first of the connections that need your attention."""
        unhealthy = [status for status in self.statuses if status.state not in _HEALTHY]
        problems: list[Row] = [(status.name, status.state, status.problem or "") for status in unhealthy[:SHOWN]]
        if more := len(unhealthy) - len(problems):
            problems.append(("…", f"{more} more", "all of them: --json"))
        omitted = f"; {self.omitted} for practice left out (--practice shows them)" if self.omitted else ""
        return _text(
            f"{_number(self.statuses)}, {self.counts.get('due', 0)} due{omitted}",
            [
                ("connections", "state", "next due", "first to expire"),
                *((str(count), state, *self._earliest(state)) for state, count in self.counts.items()),
            ],
            [("connection", "state", "problem"), *problems],
        )

    def _earliest(self, state: str) -> tuple[str, str]:
        alike = [status for status in self.statuses if status.state == state]
        due = min((status.due.at for status in alike if status.due), default=None)
        ends = min((status.validity.not_after for status in alike if status.validity), default=None)
        return moment(due) if due else "-", moment(ends) if ends else "-"

    def as_json(self) -> dict[str, Any]:
        """Return for programs the counts, and each connection as in ``ucl status --json``."""
        return {
            "schemaVersion": 1,
            "kind": "fleet-status",
            "now": moment(self.now),
            "counts": self.counts,
            "connections": [status.as_json() for status in self.statuses],
        }


def _number(connections: Sequence[Any] | Mapping[str, Any]) -> str:
    return "1 connection" if len(connections) == 1 else f"{len(connections)} connections"


def _error_cells(result: Result) -> tuple[str, str]:
    error = result.error or {"class": "", "message": "", "remedy": ""}
    return f"{result.exit_code} {error['class']}", f"{error['message']}\n{error['remedy']}".strip()


def _text(head: str, *tables: Sequence[Row]) -> str:
    """Return a line and below it each table that has rows under its header."""
    return "\n".join([printable(head), *(text_table(table) for table in tables if len(table) > 1)])
