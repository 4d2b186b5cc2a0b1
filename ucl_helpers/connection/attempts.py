"""What is remembered of a connection's runs: when it was looked at and tried, how often that failed, when to try again.

::

    HOME/connections/NAME/attempts.json     0600, no part of a generation, no secret

It is written under the connection's lock and read without. It says when to try again, since when UCL refuses, and what
to show. Missing or damaged it says nothing, so a refusal begins again; neither to read nor to write it ever stops a
renewal. Failures
belong to the generation that was in use: once there is another one they do not count, whoever made it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ucl_helpers.clock import Clock, moment_from
from ucl_helpers.connection import files
from ucl_helpers.connection.files import json_object
from ucl_helpers.errors import Busy, NewTokenNeeded, StorageFailed, UCLError, UsageError, Waiting
from ucl_helpers.policy import is_waiting, next_try
from ucl_helpers.tables import moment

if TYPE_CHECKING:
    from ucl_helpers.connection.generation import Generation
    from ucl_helpers.connection.store import Connection

FILE = "attempts.json"
MESSAGE_LENGTH, MOST_FAILURES = 500, 1_000_000
NO_FAILURES = (UsageError, Busy, Waiting)  # they say nothing of UCL, nor of the connection


@dataclass(frozen=True)
class Failure:
    """The last of some failures: class, text and exit code of the error, and when it was (UTC)."""

    error: str
    message: str
    exit_code: int
    at: datetime

    def __str__(self) -> str:
        first, _, _ = self.message.partition("\n")
        return f"{self.error}: {first}"


@dataclass(frozen=True)
class Attempts:
    """What is remembered of a connection's runs; every moment is UTC, and None when it is not known.

    Attributes:
        last_looked: somebody asked whether it is due.
        last_attempt: a renewal or an establishment began.
        last_success: the newest generation came into use.
        failures: in a row, since then.
        failing_since: the first of them.
        last_error: the last of them.
        not_before: the earliest next try.
        generation: the one in use when it failed; which revision of it does not matter.
        refused_since: UCL refuses the certificate since then, which may be an outage; None once it has answered.
        outage_seen: when an outage was last proven by the Director's gateway, since then.
    """

    last_looked: datetime | None = None
    last_attempt: datetime | None = None
    last_success: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    last_error: Failure | None = None
    not_before: datetime | None = None
    generation: str | None = None
    refused_since: datetime | None = None
    outage_seen: datetime | None = None

    @property
    def unproven_since(self) -> datetime | None:
        """Since when a refusal has not been explained by a proven outage."""
        return self.outage_seen or self.refused_since

    def next_try(self, now: datetime) -> datetime | None:
        """The moment before which a due run does nothing; None when it need not wait."""
        if self.last_error and self.not_before:
            waits = is_waiting(now, failed=self.last_error.at, not_before=self.not_before)
            return self.not_before if waits else None
        return None

    def settled(self, current: "Generation | None") -> "Attempts":
        """The same, seen from the generation in use: another one than failed has put an end to the failures."""
        created = current.created if current else None
        success = max(filter(None, (self.last_success, created)), default=None)
        if self.failures and self.generation != (current.stem if current else None):
            return Attempts(self.last_looked, self.last_attempt, success)
        return replace(self, last_success=success)


def remembered(connection: "Connection") -> Attempts:
    """What is remembered; nothing of what is missing, damaged or cannot be read. Takes no lock, never fails."""
    told: dict[str, Any] = {}
    with suppress(OSError, StorageFailed):
        told = json_object(_path(connection).read_bytes()) or {}
    return _attempts_from(told).settled(_in_use(connection))


def record_check(connection: "Connection", now: datetime) -> None:
    """Record a check whether it is due at ``now`` (UTC), and found nothing to do.

    If that cannot be written, or another process is using the connection, it is left out without an error.
    """
    with suppress(Busy, UsageError, StorageFailed), connection.lock.held():
        _write(connection, replace(remembered(connection), last_looked=now))


def raise_if_backing_off(connection: "Connection", now: datetime) -> None:
    """Raise unless a connection that is due may be tried now; then the check is recorded.

    Raises:
        Waiting: it is not to be tried before another moment.
    """
    known = remembered(connection)
    if (when := known.next_try(now)) is None:
        return
    record_check(connection, now)
    times = "once" if known.failures == 1 else f"{known.failures} times"
    since = f" since {moment(known.failing_since)}" if known.failing_since and known.failures > 1 else ""
    raise Waiting(
        f"{connection.name} was tried {times}{since} in vain; the last error was {known.last_error}",
        remedy=f"The next try is not before {moment(when)}; to try now: ucl renew {connection.name} --force.",
        not_before=when.isoformat(),
        failures=known.failures,
        last_error=known.last_error and known.last_error.error,
        retry_after=(when - now).total_seconds(),
    )


@contextmanager
def recording_attempt(
    connection: "Connection", clock: Clock, *, begins: bool = False, rehearsal: bool = False
) -> Iterator[None]:
    """Record that an attempt begins, and that it fails if the block raises an error.

    The caller holds the lock. What says nothing of UCL or the connection is no failure: wrong usage, another process at
    work, a token that is not there before anything was asked. Of a rehearsal nothing is remembered.
    """
    if rehearsal:
        yield
        return
    tried = _in_use(connection)
    if begins:
        now = clock()
        _write(connection, replace(remembered(connection), last_looked=now, last_attempt=now))
    try:
        yield
    except NO_FAILURES:
        raise
    except UCLError as error:
        if not (begins and isinstance(error, NewTokenNeeded)):
            _failed(connection, tried, error, clock())
        raise


def answered(connection: "Connection") -> None:
    """Remember that UCL has accepted a certificate, or has signed a new one: a refusal before that is over.

    The caller holds the lock.
    """
    if (known := remembered(connection)).refused_since:
        _write(connection, replace(known, refused_since=None, outage_seen=None))


def _failed(connection: "Connection", tried: "Generation | None", error: UCLError, now: datetime) -> None:
    known, not_after = remembered(connection), None
    with suppress(StorageFailed):
        not_after = tried.validity.not_after if tried else None
    failures = min(known.failures + 1, MOST_FAILURES)
    asked, outage = error.data.get("retry_after") or 0.0, error.data.get("outage")
    if outage and error.data.get("endpoint") == "certificate":  # a token that is refused says nothing of a certificate
        known = replace(known, refused_since=min(known.refused_since or now, now))
    if outage == "proven" and error.data.get("director_status"):
        known = replace(known, outage_seen=now)
    _write(
        connection,
        replace(
            known,
            failures=failures,
            failing_since=known.failing_since or now,
            last_error=Failure(type(error).__name__, error.message[:MESSAGE_LENGTH], error.exit_code, now),
            not_before=next_try(failures, seed=connection.name, now=now, not_after=not_after, retry_after=asked),
            generation=tried.stem if tried else None,
        ),
    )
    with suppress(StorageFailed):
        connection.record("attempt-failed", error=type(error).__name__, exit_code=error.exit_code, failures=failures)


def _in_use(connection: "Connection") -> "Generation | None":
    with suppress(StorageFailed):
        return connection.current
    return None


def _path(connection: "Connection") -> Path:
    return connection.path / FILE


def _write(connection: "Connection", attempts: Attempts) -> None:
    with suppress(StorageFailed):
        files.write(_path(connection), json.dumps(asdict(attempts), indent=1, default=datetime.isoformat).encode())


def _attempts_from(told: dict[str, Any]) -> Attempts:
    """Each thing that is what it should be; failures only whole."""

    def when(name: str) -> datetime | None:
        return moment_from(told.get(name))

    seen = Attempts(when("last_looked"), when("last_attempt"), when("last_success"))
    failures, last, generation = told.get("failures"), _failure_from(told.get("last_error")), told.get("generation")
    if last is None or not isinstance(failures, int) or not 0 < failures <= MOST_FAILURES:
        return seen
    return replace(
        seen,
        failures=failures,
        failing_since=when("failing_since"),
        last_error=last,
        not_before=when("not_before"),
        generation=generation if isinstance(generation, str) else None,
        refused_since=when("refused_since"),
        outage_seen=when("outage_seen"),
    )


def _failure_from(told: Any) -> Failure | None:
    if isinstance(told, dict):
        error, message, code, at = (told.get(name) for name in ("error", "message", "exit_code", "at"))
        when = moment_from(at)
        if isinstance(error, str) and isinstance(message, str) and isinstance(code, int) and when:
            return Failure(error, message[:MESSAGE_LENGTH], code, when)
    return None
