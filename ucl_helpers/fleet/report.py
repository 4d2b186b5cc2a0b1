"""What a run over a fleet came to: for people in some lines, for programs whole."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from ucl_helpers.errors import Busy, RetryLater
from ucl_helpers.fleet.task import FAILED, LEFT, NOT_DUE, RENEWED, RENEWED_BEFORE, Result
from ucl_helpers.tables import Row, Shown, moment, span

SCHEMA_VERSION = 1
SHOWN_FAILURES = 20
PASSING = {RetryLater.exit_code, Busy.exit_code}
_MEANING = {
    RENEWED: "renewed",
    RENEWED_BEFORE: "renewed since the run began, by an attempt that was cut off or by another program",
    NOT_DUE: "not due",
    FAILED: "failed: the identity in use is as it was; what each needs stands below",
    LEFT: "not done: run it again to go on",
}


@dataclass(frozen=True)
class EndpointFailed:
    """A certificate endpoint that failed for several connections alike, so that it was not asked any more.

    Attributes:
        silent: it does not answer; otherwise it refuses each connection that was tried.
        failed: names of connections that were tried in vain.
        left: names of connections that were not tried, or not again.
    """

    silent: bool
    failed: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        how = "does not answer" if self.silent else "refuses each connection that was tried"
        return f"{how}: {len(self.failed)} failed, {len(self.left)} not tried"


@dataclass(frozen=True)
class FleetOutcome(Shown):
    """What a run came to.

    Attributes:
        started, ended: moments, UTC.
        rate: calls a second that were wanted.
        results: by connection.
        limited: how often UCL answered 429.
        repeated: renewals that were begun again, after a 429, a worker that was lost, or another process' lock.
        lost: how often a worker was lost with a renewal in hand.
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

    title: ClassVar[str] = "Fleet"
    header: ClassVar[Row] = ("connections", "outcome", "")

    @property
    def counts(self) -> dict[str, int]:
        """How many came to what; also those words that none came to."""
        found = Counter(one["outcome"] for one in self.results.values())
        return {word: found[word] for word in _MEANING}

    @property
    def failures(self) -> dict[str, Result]:
        """Those that failed, and those whose hook did, by name."""
        return {name: one for name, one in sorted(self.results.items()) if one["exitCode"]}

    @property
    def exit_code(self) -> int:
        """0 when everything is done or not due; that of the stop, if it was stopped; else that of the failures.

        Of these the commonest that does not pass by itself; if all of them pass (3, 8), the commonest.
        """
        if self.stopped:
            return self.stop_code
        codes = Counter(one["exitCode"] for one in self.failures.values())
        lasting = {code: count for code, count in codes.items() if code not in PASSING}
        return min(lasting or codes, key=lambda code: (-codes[code], code), default=0)

    def caption(self) -> str:
        """How many, how long, and what stopped it."""
        taken = span(self.ended - self.started)
        many = "1 connection" if len(self.results) == 1 else f"{len(self.results)} connections"
        told = f"{many} in {taken}, {self.limited} answers 429, {self.lost} workers lost"
        return f"{told}; stopped: {self.stopped}" if self.stopped else told

    def rows(self) -> list[Row]:
        """Counts by outcome; each endpoint that failed, once; then other failures, of many only the first."""
        rows = [(str(count), word, _MEANING[word]) for word, count in self.counts.items() if count]
        rows += [(endpoint, *self._example(failed)) for endpoint, failed in self.endpoints.items()]
        of_endpoints = {name for one in self.endpoints.values() for name in (*one.failed, *one.left)}
        others = {name: one for name, one in self.failures.items() if name not in of_endpoints}
        told = [
            (name, f"{one['exitCode']} {error['class']}", f"{error['message']}\n{error['remedy']}".strip())
            for name, one in list(others.items())[:SHOWN_FAILURES]
            if (error := one["error"])
        ]
        more = len(others) - len(told)
        return [*rows, *told, *([("…", f"{more} more", "all of them are in the outcome file")] if more else [])]

    def _example(self, endpoint: EndpointFailed) -> tuple[str, str]:
        """Return the error of one connection, and how many are in the same case."""
        name = endpoint.failed[-1]
        result = self.results[name]
        error = result["error"] or {"class": "", "message": "", "remedy": ""}
        text = f"{str(endpoint).capitalize()}. Run it again later. For {name}:\n{error['message']}"
        return f"{result['exitCode']} {error['class']}", text

    def as_json(self) -> dict[str, Any]:
        """For programs, by ``docs/reference/fleet-outcome.schema.json``; times are ISO 8601, UTC."""
        return {
            "schemaVersion": SCHEMA_VERSION,
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
                name: {"answers": not one.silent, "failed": list(one.failed), "left": list(one.left)}
                for name, one in self.endpoints.items()
            },
            "connections": {
                name: {key: one[key] for key in ("outcome", "fingerprint", "exitCode", "error", "seconds")}
                for name, one in sorted(self.results.items())
            },
        }
