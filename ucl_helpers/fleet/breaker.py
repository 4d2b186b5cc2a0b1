"""When to stop asking an endpoint that fails for one connection like for the other. Pure.

The law of this file:

1.  A connection that was renewed shows that its endpoint works: failures before it do not count.
2.  After :data:`ALIKE` connections in a row have found that the endpoint does not answer (no connection, 5xx, or an
    outage that its Director proves), it is not asked any more.
3.  A refusal proves nothing: connections that are neighbours by name may be revoked together. So from the third
    refusal on, the connections at the other end of the list are asked, and :data:`CONFIRMED` of them decide.
4.  What says nothing of the endpoint (a file, a lock, a pause that is not over) changes nothing.
5.  The connections that failed least often in earlier runs are asked first, in each law above. So those that are
    refused for good keep none from being renewed in the next run.

The run does not ask again: the next one does. So nothing waits in a timer's job, and no connection that was not asked
counts a failure.
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

ALIKE, CONFIRMED = 3, 2
Verdict = Literal["silent", "refuses"]
"""Of an endpoint that failed: it does not answer, or it answers with what may be meant for all or for this one."""

_REFUSALS = (AuthenticationFailed, CertificateRejected, ServerNotTrusted, BadAnswer, EmptyAnswer)


def verdict(error: UCLError) -> Verdict | None:
    """What an error says of the endpoint that was called; None for nothing."""
    proven = error.data.get("outage") == "proven" and error.data.get("director_status")
    if proven or isinstance(error, Unreachable | Unavailable):
        return "silent"
    return "refuses" if error.data.get("outage") or isinstance(error, _REFUSALS) else None


def endpoint_of(url: str | None) -> str:
    """``https://host:port`` of a URL; empty for one that is none."""
    try:
        parts = urlsplit(url or "")
        port = parts.port or 443
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}:{port}" if parts.hostname else ""


@dataclass
class Breaker:
    """Of one endpoint; moments are seconds of any clock that never goes back.

    Attributes:
        failed: connections that failed alike, in a row, with what each said of the endpoint.
        suspected: since when the endpoint is suspected; what was begun before decides nothing.
    """

    failed: dict[str, Verdict] = field(default_factory=dict)
    suspected: float = math.inf
    confirmed: set[str] = field(default_factory=set)

    @property
    def is_suspected(self) -> bool:
        """Whether the next to be asked is to be taken from the other end."""
        return self.suspected < math.inf

    @property
    def is_silent(self) -> bool:
        """Whether it does not answer at all."""
        return list(self.failed.values()).count("silent") >= ALIKE

    @property
    def is_open(self) -> bool:
        """Whether the endpoint is not to be asked any more."""
        return self.is_silent or len(self.confirmed) >= CONFIRMED

    def came(self, name: str, verdict: Verdict | None, *, renewed: bool, started: float, now: float) -> None:
        """One came back.

        Args:
            name: of the connection.
            verdict: what its error says of the endpoint.
            renewed: whether it was renewed.
            started: when it was begun.
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
