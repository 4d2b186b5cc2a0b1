"""Decide when the next renewal may start, and when an endpoint is not called any more. Pure: the clock is an argument.

The rules of the pace:

1.  Starts are evenly spaced. A start that comes late is not made up for, so there is never a burst.
2.  A 429 pauses every start for ``Retry-After`` and halves the rate. Renewals that started before that do not halve it
    again.
3.  After the pause, the rate grows by a twentieth of the wanted one for each :data:`STEP_SECONDS` without a 429.

The rules of the breaker, one for each endpoint:

1.  A renewed connection shows that its endpoint works. Earlier failures do not count any more.
2.  After :data:`ALIKE` connections in a row have found that the endpoint does not answer (no connection, 5xx, or an
    outage that its Director proves), it is not called any more.
3.  A refusal proves nothing, because connections with similar names may have been revoked together. From the third
    refusal on, connections from the other end of the list are tried, and :data:`CONFIRMED` of them decide.
4.  Errors that say nothing about the endpoint (a file, a lock, a pause) change nothing.
5.  The connections that failed least often in earlier runs are tried first, so that connections that are refused for
    good do not keep others from being renewed.

This run does not call the endpoint again; the next run does. A connection that was not tried counts no failure.
Moments are seconds of any clock that never goes back.
"""

import math
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    CertificateRejected,
    EmptyAnswer,
    ServerNotTrusted,
    UCLError,
    Unavailable,
    Unreachable,
)

CALLS = 3
"""The calls of one renewal: configuration, sign, and configuration again as the new identity."""

DEFAULT_RATE = 10.0
"""Calls a second: 200 renewals a minute, so that ten thousand connections are renewed within the hour. It is low on
purpose, because the limit of a gateway in front of UCL is not known. With ``--rate`` an operator sets another one."""

LEAST_SHARE = 1 / 64
STEP_SECONDS = 10.0
UNKNOWN_PAUSE = 5.0

ALIKE, CONFIRMED = 3, 2
Verdict = Literal["silent", "refuses"]
"""A failed endpoint does not answer (``silent``), or it refuses: all connections, or perhaps only this one."""

_REFUSALS = (AuthenticationFailed, CertificateRejected, ServerNotTrusted, BadAnswer, EmptyAnswer)


class Pace:
    """The pace of one run.

    Args:
        rate: calls a second, above 0, over all workers together.
        now: the moment when the run begins.
    """

    def __init__(self, rate: float, *, now: float) -> None:
        self.wanted, self.rate = rate, rate
        self.limited = 0
        self._next, self._changed, self._halved = now, now, -math.inf

    def delay(self, now: float) -> float:
        """Return the seconds until the next renewal may start; 0 for now."""
        return max(0.0, self._next - now)

    def start(self, now: float) -> None:
        """Record that a renewal starts now."""
        steps = int((now - self._changed) / STEP_SECONDS) if self.rate < self.wanted else 0
        if steps > 0:
            self.rate = min(self.wanted, self.rate + steps * self.wanted / 20)
            self._changed += steps * STEP_SECONDS
        self._next = max(self._next, now) + CALLS / self.rate

    def slow_down(self, now: float, *, started: float, retry_after: float | None = None) -> None:
        """Slow down because UCL answered 429 to a renewal.

        Args:
            now: the moment it became known.
            started: when that renewal was started.
            retry_after: what UCL said, in seconds; None for a pause of :data:`UNKNOWN_PAUSE`.
        """
        self.limited += 1
        self._next = max(self._next, now + (UNKNOWN_PAUSE if retry_after is None else retry_after))
        if started >= self._halved:
            self.rate = max(self.rate / 2, self.wanted * LEAST_SHARE)
            self._halved = now
        self._changed = self._next  # a pause proves nothing


def verdict(error: UCLError) -> Verdict | None:
    """Return the verdict of an error on the endpoint that was called, or None if it says nothing about the endpoint."""
    is_proven = error.data.get("outage") == "proven" and error.data.get("director_status")
    if is_proven or isinstance(error, Unreachable | Unavailable):
        return "silent"
    return "refuses" if error.data.get("outage") or isinstance(error, _REFUSALS) else None


def endpoint_of(url: str | None) -> str:
    """Return ``https://host:port`` of a URL; empty if it has none."""
    try:
        parts = urlsplit(url or "")
        port = parts.port or 443
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}:{port}" if parts.hostname else ""


@dataclass
class Breaker:
    """The state of one endpoint in this run, which decides whether it is still called.

    Attributes:
        failed: connections that failed alike, in a row, each with its verdict on the endpoint.
        suspected: since when the endpoint is suspected. Renewals that started before that decide nothing.
        confirmed: connections that failed after that.
    """

    failed: dict[str, Verdict] = field(default_factory=dict)
    suspected: float = math.inf
    confirmed: set[str] = field(default_factory=set)

    @property
    def is_suspected(self) -> bool:
        """Whether the next connection to try comes from the other end of the list."""
        return self.suspected < math.inf

    @property
    def is_silent(self) -> bool:
        """Whether the endpoint does not answer at all."""
        return list(self.failed.values()).count("silent") >= ALIKE

    @property
    def is_open(self) -> bool:
        """Whether the endpoint is not to be called any more."""
        return self.is_silent or len(self.confirmed) >= CONFIRMED

    def record(self, name: str, verdict: Verdict | None, *, renewed: bool, started: float, now: float) -> None:
        """Record the result of a renewal.

        Args:
            name: of the connection.
            verdict: what its error says about the endpoint.
            renewed: whether it was renewed.
            started: when it was started.
            now: when that became known.
        """
        if renewed and not self.is_open:
            self.failed, self.suspected, self.confirmed = {}, math.inf, set()
        if verdict is None:
            return
        self.failed[name] = verdict
        if started > self.suspected:
            self.confirmed.add(name)
        if len(self.failed) >= ALIKE:
            self.suspected = min(self.suspected, now)
