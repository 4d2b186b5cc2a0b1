"""Where a connection stands, read from disk without a lock and without a call."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.attempts import Attempts, remembered
from ucl_helpers.connection.generation import MARK_LENGTH
from ucl_helpers.connection.hook_state import pending_hooks
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.state import Verdicts
from ucl_helpers.connection.store import Connection
from ucl_helpers.crypto import subject_text
from ucl_helpers.errors import InvalidSettings, Outage, UCLError
from ucl_helpers.models import Due, Validity
from ucl_helpers.policy import refusal_ends, state
from ucl_helpers.tables import Row, Shown, moment, span

STATES = (
    *("valid", "due", "expired", "not yet valid", "revoked", "refused"),
    *("not established", "settings not usable", "damaged"),
)

LOST = ("expired", "revoked", "refused")
"""States of an identity that cannot be renewed."""

STAGES = BEGUN, SENT, SIGNED = "begun", "sent for signing", "signed, to be verified"


@dataclass(frozen=True)
class UnderWay:
    """What an interrupted run left: of which procedure (renew, establish; damaged), since when, at which of STAGES."""

    procedure: str
    since: str
    stage: str

    def __str__(self) -> str:
        return f"{self.procedure} since {self.since}: {self.stage}"


@dataclass(frozen=True)
class Status(Shown):
    """What is known of a connection at ``now`` (UTC).

    ``state`` is one of :data:`ucl_helpers.connection.status.STATES`.
    ``under_way`` is what an interrupted run left, or None; ``attempts`` what is remembered of all runs;
    ``pending_hooks`` names what the next run will run; ``unusable`` says which generations UCL does not accept, each
    with what is known of it; ``rollback_to`` is the generation that a rollback would go back to, or None.
    """

    name: str
    state: str
    now: datetime
    sandbox: bool = False
    generation: str | None = None
    fingerprint: str | None = None
    subject: str | None = None
    validity: Validity | None = None
    due: Due | None = None
    url: str | None = None
    under_way: UnderWay | None = None
    problem: str | None = None
    attempts: Attempts = field(default_factory=Attempts)
    pending_hooks: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    rollback_to: str | None = None

    title: ClassVar[str] = "Connection"

    @property
    def pending(self) -> str | None:
        """What is under way, in words."""
        return str(self.under_way) if self.under_way else None

    def caption(self) -> str:
        """Name and state."""
        return f"{self.name}: {self.state}" + (" (sandbox, for practice)" if self.sandbox else "")

    def rows(self) -> list[Row]:
        """What there is to tell."""
        lost = self.state in LOST
        facts = {
            "fingerprint": self.fingerprint,
            "subject": self.subject,
            "valid to": self._left(),
            "renewal due": f"{moment(self.due.at)} ({self.due.reason})" if self.due and not lost else None,
            "to come back": self._way_back() if lost or self.state == "damaged" else None,
            "certificate endpoint": self.url,
            "generation": self.generation,
            "not usable": "\n".join(f"{name}: {why}" for name, why in self.unusable.items()),
            "under way": self.pending,
            "failed": self._failed(),
            "refused": self._refused(),
            "hooks pending": ", ".join(self.pending_hooks),
            "problem": self.problem,
        }
        return [(label, value) for label, value in facts.items() if value]

    def _way_back(self) -> str | None:
        if self.rollback_to:
            return f"ucl rollback {self.name} (generation {self.rollback_to})"
        if self.state == "damaged":  # the doctor knows
            return None
        return f"ucl establish {self.name} {'--sandbox' if self.sandbox else '(with a one-time token)'}"

    def _left(self) -> str | None:
        if self.validity is None:
            return None
        left = self.validity.not_after - self.now
        return f"{moment(self.validity.not_after)} ({span(left)}{' left' if left.total_seconds() > 0 else ''})"

    def _failed(self) -> str | None:
        known, again = self.attempts, self.attempts.next_try(self.now)
        if not known.failures:
            return None
        since = f" since {moment(known.failing_since)}" if known.failing_since else ""
        is_due = self.due is None or self.due.due
        wait = f"; next try not before {moment(again)}" if again and is_due else ""
        return f"{known.failures} in a row{since}, the last: {known.last_error}{wait}"

    @property
    def refusal_ends(self) -> datetime | None:
        """From when on (UTC) a refusal that may be an outage counts as a loss; None when UCL does not refuse.

        A proven outage puts it off, for errors as well: see :func:`ucl_helpers.procedures.acceptance.explain_refusal`.
        """
        return self._lasting(self.attempts.refused_since and self.attempts.unproven_since)

    @property
    def critical_refusal(self) -> datetime | None:
        """From when on (UTC) a refusal lasts so long that somebody has to look, be the outage proven or not."""
        return self._lasting(self.attempts.refused_since)

    def _lasting(self, since: datetime | None) -> datetime | None:
        return since and refusal_ends(since, not_after=self.validity.not_after if self.validity else None)

    def _refused(self) -> str | None:
        if (since := self.attempts.refused_since) is None or (ends := self.refusal_ends) is None:
            return None
        if (last := self.attempts.last_error) and last.error == Outage.__name__:
            return f"since {moment(since)}: UCL is down"
        return f"since {moment(since)}; it may be an outage of UCL. From {moment(ends)} on it counts as a loss"

    def as_json(self) -> dict[str, Any]:
        """For programs; times are ISO 8601, UTC."""
        validity, due = self.validity, self.due
        return {
            "name": self.name,
            "state": self.state,
            "sandbox": self.sandbox,
            "generation": self.generation,
            "fingerprint": self.fingerprint,
            "subject": self.subject,
            "notBefore": validity and moment(validity.not_before),
            "notAfter": validity and moment(validity.not_after),
            "due": due and due.due,
            "dueAt": due and moment(due.at),
            "dueReason": due and due.reason,
            "certificateSecuredConnectorUrl": self.url,
            "pending": self.pending,
            "problem": self.problem,
            **self._attempts_as_json(),
            "pendingHooks": list(self.pending_hooks),
            "unusable": dict(self.unusable),
            "rollbackTo": self.rollback_to,
        }

    def _attempts_as_json(self) -> dict[str, Any]:
        known = self.attempts
        moments = {
            "lastLooked": known.last_looked,
            "lastAttempt": known.last_attempt,
            "lastSuccess": known.last_success,
            "failingSince": known.failing_since,
            "nextTry": known.next_try(self.now),
            "refusedSince": known.refused_since,
            "refusalEnds": self.refusal_ends,
        }
        last = known.last_error and {
            "error": known.last_error.error,
            "message": known.last_error.message,
            "exitCode": known.last_error.exit_code,
            "at": moment(known.last_error.at),
        }
        told = {name: when and moment(when) for name, when in moments.items()}
        return {**told, "failures": known.failures, "lastError": last}


def status_of(connection: Connection, clock: Clock = utc_now, *, whole: bool = True) -> Status:
    """Where a connection stands; damage is told, not raised.

    Args:
        connection: established or not.
        clock: our clock, aware, UTC.
        whole: also read the key and hold it against its certificate, which takes some 50 ms each time.
    """
    name, now, known, left = connection.name, clock(), remembered(connection), None
    try:
        left = _under_way(connection.pending)
        sandbox = connection.is_sandbox
        if (current := connection.current) is None:
            if connection.generations() and not left:
                connection.require_current()
            return Status(name, "not established", now, sandbox=sandbox, under_way=left, attempts=known)
        if whole:
            current.check_whole(by_key=False)  # what is public takes no passphrase
        due = connection.due(now)
        verdicts = connection.verdicts()
        gone = current.fingerprint in verdicts.having("revoked")
        word = state(current.validity, now=now, revoked=gone, is_due=due.due)
        if word not in LOST and current.fingerprint in verdicts.having("refused"):
            word = "refused"
        return Status(
            name,
            word,
            now,
            sandbox=sandbox,
            generation=current.name,
            fingerprint=current.fingerprint,
            subject=subject_text(current.certificate.subject),
            validity=current.validity,
            due=due,
            url=connection.url,
            under_way=left,
            attempts=known,
            pending_hooks=tuple(one.name for one in pending_hooks(connection)),
            unusable=_unusable(connection, verdicts),
            rollback_to=_rollback_to(connection, now) if word in LOST else None,
        )
    except InvalidSettings as error:
        return Status(name, "settings not usable", now, under_way=left, problem=str(error), attempts=known)
    except UCLError as error:
        to = _rollback_to(connection, now)
        return Status(name, "damaged", now, under_way=left, problem=str(error), attempts=known, rollback_to=to)


def _unusable(connection: Connection, verdicts: Verdicts) -> dict[str, str]:
    """The generations that UCL does not accept, or may not accept, by name, and what is known of each."""
    known = {mark[:MARK_LENGTH]: f"{one}, {moment(one.since)}" for mark, one in verdicts.items()}
    found = connection.generations() if known else []
    return {one.name: known[mark] for one in found if (mark := one.mark) in known}


def _rollback_to(connection: Connection, now: datetime) -> str | None:
    with suppress(UCLError):
        return next((one.name for one in connection.usable(now)), None)
    return None


def _under_way(pending: Pending) -> UnderWay | None:
    if not (told := pending.state):
        return None
    stage = SIGNED if pending.answer() else SENT if told.get("sent") else BEGUN
    return UnderWay(str(told.get("kind")), str(told.get("created")), stage)
