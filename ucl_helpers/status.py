"""Where a connection stands, read from disk without a lock and without a call."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.crypto import subject_text
from ucl_helpers.errors import InvalidSettings, UCLError
from ucl_helpers.models import Due, Validity
from ucl_helpers.pending import Pending
from ucl_helpers.policy import state
from ucl_helpers.show import Row, Shown, moment, span
from ucl_helpers.store import Connection


@dataclass(frozen=True)
class Status(Shown):
    """What is known of a connection at ``now`` (UTC).

    ``state`` is ``valid``, ``due``, ``expired``, ``not yet valid``, ``revoked``, ``not established``,
    ``settings not usable`` or ``damaged``.
    ``pending`` says what an interrupted run left, or None.
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
    pending: str | None = None
    problem: str | None = None

    title: ClassVar[str] = "Connection"

    def caption(self) -> str:
        """Name and state."""
        return f"{self.name}: {self.state}" + (" (sandbox, for practice)" if self.sandbox else "")

    def rows(self) -> list[Row]:
        """What there is to tell."""
        lost = self.state in {"expired", "revoked"}
        way = "--sandbox" if self.sandbox else "(with a one-time token)"
        facts = {
            "fingerprint": self.fingerprint,
            "subject": self.subject,
            "valid to": self._left(),
            "renewal due": f"{moment(self.due.at)} ({self.due.reason})" if self.due and not lost else None,
            "to come back": f"ucl establish {self.name} {way}" if lost else None,
            "certificate endpoint": self.url,
            "generation": self.generation,
            "under way": self.pending,
            "problem": self.problem,
        }
        return [(label, value) for label, value in facts.items() if value]

    def _left(self) -> str | None:
        if self.validity is None:
            return None
        left = self.validity.not_after - self.now
        return f"{moment(self.validity.not_after)} ({span(left)}{' left' if left.total_seconds() > 0 else ''})"

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
        }


def status_of(connection: Connection, clock: Clock = utc_now) -> Status:
    """Where a connection stands; damage is told, not raised."""
    now, pending = clock(), None
    try:
        pending = _pending(connection.pending)
        sandbox = connection.is_sandbox
        if (current := connection.current) is None:
            return Status(connection.name, "not established", now, sandbox=sandbox, pending=pending)
        current.check_whole(by_key=False)  # what is public takes no passphrase
        due = connection.due(now)
        word = state(current.validity, now=now, revoked=current.fingerprint in connection.revoked(), is_due=due.due)
        return Status(
            connection.name,
            word,
            now,
            sandbox=sandbox,
            generation=current.name,
            fingerprint=current.fingerprint,
            subject=subject_text(current.certificate.subject),
            validity=current.validity,
            due=due,
            url=connection.url,
            pending=pending,
        )
    except InvalidSettings as error:
        return Status(connection.name, "settings not usable", now, pending=pending, problem=str(error))
    except UCLError as error:
        return Status(connection.name, "damaged", now, pending=pending, problem=str(error))


def _pending(pending: Pending) -> str | None:
    told = pending.state
    if not told:
        return None
    stage = "signed, to be verified" if pending.answer() else "sent for signing" if told.get("sent") else "begun"
    return f"{told.get('kind')} since {told.get('created')}: {stage}"
