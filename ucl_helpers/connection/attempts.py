"""Remember the runs of a connection: its last check and attempt, its failures, and when to try again.

::

    HOME/connections/NAME/attempts.json     0600, no part of a generation, no secret

The file is written under the connection's lock and read without. A missing or damaged file counts as empty, so a
refusal begins again. An error of reading or writing it never stops a renewal. Failures belong to the generation that
was in use. Once another generation is in use they do not count.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ucl_helpers.clock import Clock, moment_from
from ucl_helpers.connection import files
from ucl_helpers.connection.files import json_object
from ucl_helpers.errors import (
    Busy,
    NewTokenNeeded,
    Refused,
    RetryLater,
    StorageFailed,
    UCLError,
    UsageError,
    Waiting,
)
from ucl_helpers.policy import is_waiting, next_try
from ucl_helpers.tables import moment

if TYPE_CHECKING:
    from ucl_helpers.connection.generation import Generation
    from ucl_helpers.connection.store import Connection

FILE = "attempts.json"
MESSAGE_LENGTH, MOST_FAILURES = 500, 1_000_000
TEMPORARY = {RetryLater.exit_code, Busy.exit_code}
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
    """The record of a connection's runs; every moment is UTC, and None when it is not known.

    Attributes:
        last_looked: the last check whether it is due.
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
        """The moment since which no proven outage has explained the refusal."""
        return self.outage_seen or self.refused_since

    def next_try(self, now: datetime) -> datetime | None:
        """Return the moment before which a due run does nothing, or None when it need not wait."""
        if self.last_error and self.not_before:
            waits = is_waiting(now, failed=self.last_error.at, not_before=self.not_before)
            return self.not_before if waits else None
        return None

    def settled(self, current: "Generation | None") -> "Attempts":
        """Return a copy without the failures, unless the generation in use is the one that failed."""
        created = current.created if current else None
        success = max(filter(None, (self.last_success, created)), default=None)
        if self.failures and self.generation != (current.stem if current else None):
            return Attempts(self.last_looked, self.last_attempt, success)
        return replace(self, last_success=success)


def remembered(connection: "Connection") -> Attempts:
    """Return the record of the runs, without the parts that are missing or damaged. Takes no lock, never fails."""
    facts: dict[str, Any] = {}
    with suppress(OSError, StorageFailed):
        facts = json_object(files.read_regular(connection.path / FILE)) or {}
    return _attempts_from(facts).settled(_in_use(connection))


def record_check(connection: "Connection", now: datetime) -> None:
    """Record a check at ``now`` (UTC) that had nothing to do.

    If that cannot be written, or another process is using the connection, it is left out without an error.
    """
    with suppress(Busy, UsageError, StorageFailed), connection.lock.held():
        _write(connection, replace(remembered(connection), last_looked=now))


def raise_if_backing_off(connection: "Connection", now: datetime) -> None:
    """Raise, and record the check, if a connection that is due may not be tried yet.

    Raises:
        Waiting: it is not to be tried before another moment.
    """
    attempts = remembered(connection)
    if (when := attempts.next_try(now)) is None:
        return
    record_check(connection, now)
    current, code = _in_use(connection), attempts.last_error.exit_code if attempts.last_error else None
    remedy = f"The next try is not before {moment(when)}; to try now: ucl renew {connection.name} --force."
    with suppress(StorageFailed):
        if current and current.validity.not_after <= now:
            code = Refused.exit_code
            remedy = f"The certificate has expired, so waiting does not help. To come back: {connection.come_back(now)}"
    times = "once" if attempts.failures == 1 else f"{attempts.failures} times"
    since = f" since {moment(attempts.failing_since)}" if attempts.failing_since and attempts.failures > 1 else ""
    raise Waiting(
        f"{connection.name} has failed {times}{since}; the last error was {attempts.last_error}",
        remedy=remedy,
        code=None if code in TEMPORARY else code,
        not_before=moment(when),
        failures=attempts.failures,
        last_error=attempts.last_error and attempts.last_error.error,
        retry_after=(when - now).total_seconds(),
    )


@contextmanager
def recording_attempt(
    connection: "Connection", clock: Clock, *, begins: bool = False, rehearsal: bool = False
) -> Iterator[None]:
    """Record that an attempt begins, and that it fails if the block raises an error.

    The caller holds the lock. Errors that say nothing of UCL or the connection are no failures: wrong usage, another
    process at work, a token that is missing before the first request. A rehearsal is not recorded.
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
    """Record that UCL has accepted a certificate, or has signed a new one, which ends a refusal.

    The caller holds the lock.
    """
    if (attempts := remembered(connection)).refused_since:
        _write(connection, replace(attempts, refused_since=None, outage_seen=None))


def _failed(connection: "Connection", tried: "Generation | None", error: UCLError, now: datetime) -> None:
    attempts, not_after = remembered(connection), None
    with suppress(StorageFailed):
        not_after = tried.validity.not_after if tried else None
    failures = min(attempts.failures + 1, MOST_FAILURES)
    wait, outage = error.data.get("retry_after") or 0.0, error.data.get("outage")
    if outage and error.data.get("endpoint") == "certificate":  # a token that is refused says nothing of a certificate
        attempts = replace(attempts, refused_since=min(attempts.refused_since or now, now))
    if outage == "proven" and error.data.get("director_status"):
        attempts = replace(attempts, outage_seen=now)
    _write(
        connection,
        replace(
            attempts,
            failures=failures,
            failing_since=attempts.failing_since or now,
            last_error=Failure(type(error).__name__, error.message[:MESSAGE_LENGTH], error.exit_code, now),
            not_before=next_try(failures, seed=connection.name, now=now, not_after=not_after, retry_after=wait),
            generation=tried.stem if tried else None,
        ),
    )
    with suppress(StorageFailed):
        connection.record("attempt-failed", error=type(error).__name__, exit_code=error.exit_code, failures=failures)


def _in_use(connection: "Connection") -> "Generation | None":
    with suppress(StorageFailed):
        return connection.current
    return None


def _write(connection: "Connection", attempts: Attempts) -> None:
    with suppress(StorageFailed):
        data = json.dumps(asdict(attempts), indent=1, default=datetime.isoformat).encode()
        files.write(connection.path / FILE, data)


def _attempts_from(facts: dict[str, Any]) -> Attempts:
    """Take each fact of the right type; the failures all together or not at all."""

    def when(name: str) -> datetime | None:
        return moment_from(facts.get(name))

    seen = Attempts(when("last_looked"), when("last_attempt"), when("last_success"))
    failures, last, generation = facts.get("failures"), _failure_from(facts.get("last_error")), facts.get("generation")
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


def _failure_from(facts: Any) -> Failure | None:
    if isinstance(facts, dict):
        error, message, code, at = (facts.get(name) for name in ("error", "message", "exit_code", "at"))
        when = moment_from(at)
        if isinstance(error, str) and isinstance(message, str) and isinstance(code, int) and when:
            return Failure(error, message[:MESSAGE_LENGTH], code, when)
    return None
