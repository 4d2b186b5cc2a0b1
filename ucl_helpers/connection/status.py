"""Read the status of a connection from disk, without a lock and without a call to UCL."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ucl_helpers.clock import Clock, moment_from, utc_now
from ucl_helpers.connection.attempts import Attempts, remembered
from ucl_helpers.connection.generation import MARK_LENGTH
from ucl_helpers.connection.pending import Pending
from ucl_helpers.connection.state import Verdict, Verdicts, pending_hooks
from ucl_helpers.crypto import subject_text
from ucl_helpers.errors import InvalidSettings, Outage, UCLError
from ucl_helpers.models import Due, Validity
from ucl_helpers.policy import refusal_ends, state
from ucl_helpers.tables import Row, Tabular, moment, span

if TYPE_CHECKING:
    from ucl_helpers.connection.store import Connection

STATES = (
    *("valid", "due", "expired", "not yet valid", "revoked", "refused"),
    *("not established", "settings not usable", "damaged"),
)

LOST = ("expired", "revoked", "refused")
"""The states of an identity that cannot be renewed."""

STAGES = BEGUN, SENT, SIGNED = "begun", "sent for signing", "signed, to be verified"


@dataclass(frozen=True)
class UnderWay:
    """An interrupted run: its procedure (renew, establish, damaged), its beginning, and its stage (see STAGES)."""

    procedure: str
    since: str
    stage: str

    def __str__(self) -> str:
        return f"{self.procedure} since {self.since}: {self.stage}"


@dataclass(frozen=True)
class Status(Tabular):
    """The status of a connection at ``now`` (UTC).

    ``state`` is one of :data:`ucl_helpers.connection.status.STATES`.
    ``under_way`` is the interrupted run, or None. ``attempts`` is the record of all runs. ``pending_hooks`` names the
    hooks that the next run will run. ``unusable`` names the generations that UCL does not accept, and says why.
    ``verdict`` is the one on the certificate in use. ``in_plain`` says that a key is stored unencrypted although the
    settings ask for encryption. ``rollback_to`` is the generation that a rollback would go back to, or None.
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
    verdict: Verdict | None = None
    in_plain: bool = False
    attempts: Attempts = field(default_factory=Attempts)
    pending_hooks: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    rollback_to: str | None = None

    title: ClassVar[str] = "Connection"

    @property
    def pending(self) -> str | None:
        """The interrupted run, in words."""
        return str(self.under_way) if self.under_way else None

    def caption(self) -> str:
        """Return name and state."""
        return f"{self.name}: {self.state}" + (" (sandbox, for practice)" if self.sandbox else "")

    def rows(self) -> list[Row]:
        """Return a label and a value for each fact that people should see."""
        lost = self.state in LOST
        facts = {
            "fingerprint": self.fingerprint,
            "subject": self.subject,
            "valid to": self._valid_to(),
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
        if self.state == "damaged":  # ``ucl doctor`` names the repair
            return None
        return f"ucl establish {self.name} {'--sandbox' if self.sandbox else '--token prompt'}"

    def _valid_to(self) -> str | None:
        if self.validity is None:
            return None
        ends, remaining = moment(self.validity.not_after), self.validity.not_after - self.now
        if self.state == "revoked":  # nothing of it is left to use
            return ends
        return f"{ends} ({span(remaining)}{' left' if remaining.total_seconds() > 0 else ''})"

    def _failed(self) -> str | None:
        attempts, again = self.attempts, self.attempts.next_try(self.now)
        if not attempts.failures:
            return None
        since = f" since {moment(attempts.failing_since)}" if attempts.failing_since else ""
        is_due = self.due is None or self.due.due
        wait = f"; next try not before {moment(again)}" if again and is_due else ""
        return f"{attempts.failures} in a row{since}, the last: {attempts.last_error}{wait}"

    @property
    def refusal_ends(self) -> datetime | None:
        """The moment (UTC) at which a refusal that may be an outage becomes a loss; None when UCL does not refuse.

        A proven outage puts it off, for errors as well: see :func:`ucl_helpers.procedures.acceptance.explain_refusal`.
        """
        return self._end_of_refusal(self.attempts.refused_since and self.attempts.unproven_since)

    @property
    def critical_refusal(self) -> datetime | None:
        """The moment (UTC) from which a person has to look at a refusal, even if an outage is proven."""
        return self._end_of_refusal(self.attempts.refused_since)

    def _end_of_refusal(self, since: datetime | None) -> datetime | None:
        return since and refusal_ends(since, not_after=self.validity.not_after if self.validity else None)

    def _refused(self) -> str | None:
        if (since := self.attempts.refused_since) is None or (ends := self.refusal_ends) is None:
            return None
        if (last := self.attempts.last_error) and last.error == Outage.__name__:
            return f"since {moment(since)}: UCL is down"
        text = f"since {moment(since)}; it may be an outage of UCL. From {moment(ends)} on it counts as a loss"
        if self.rollback_to:
            text += f". If only this certificate was revoked, go back: ucl rollback {self.name}"
        return text

    def as_json(self) -> dict[str, Any]:
        """Return the status as JSON for programs; times are ISO 8601, UTC."""
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
        attempts = self.attempts
        moments = {
            "lastLooked": attempts.last_looked,
            "lastAttempt": attempts.last_attempt,
            "lastSuccess": attempts.last_success,
            "failingSince": attempts.failing_since,
            "nextTry": attempts.next_try(self.now),
            "refusedSince": attempts.refused_since,
            "refusalEnds": self.refusal_ends,
        }
        last = attempts.last_error and {
            "error": attempts.last_error.error,
            "message": attempts.last_error.message,
            "exitCode": attempts.last_error.exit_code,
            "at": moment(attempts.last_error.at),
        }
        texts = {name: when and moment(when) for name, when in moments.items()}
        return {**texts, "failures": attempts.failures, "lastError": last}


Action = Literal["renew", "ask", "finish", "establish", "hooks", "protect", "settings", "doctor"]
_NOT_USABLE: Mapping[str, Action] = {"settings not usable": "settings", "damaged": "doctor", "not yet valid": "doctor"}


@dataclass(frozen=True)
class Need:
    """Work that a connection has.

    Attributes:
        action: ``renew`` it; ``ask`` UCL again about a certificate that it refused; ``finish`` a signed establishment;
            ``establish`` it, which takes a one-time token; run its ``hooks``; ``protect`` keys that are stored
            unencrypted; edit the ``settings``; run the ``doctor``.
        why: the reason, for people.
        renews: whether a renewal is tried. It is for an expired certificate too, since UCL's clock decides.
        wait_until: a renewal or a question failed and is not to be tried before this moment (UTC).
    """

    action: Action
    why: str
    renews: bool = False
    wait_until: datetime | None = None


def needs(status: Status) -> Need | None:
    """Return the work that a connection has, or None if a run would do nothing before ``status.due.at``.

    Pure. ``ucl run --if-due``, the fleet, the greeting, monitoring and ``Renewal.begin`` agree because they all call
    this function. The first row that holds counts:

    ===================================================  ==========================
    settings not usable                                  ``settings``
    damaged; not yet valid                               ``doctor``
    an establishment is signed, to be verified           ``finish``
    revoked by this toolkit; not established             ``establish``
    expired                                              ``establish``, and renews
    due, or a renewal was sent for signing               ``renew``
    UCL refused the certificate, which an outage         ``ask``
    explains as well
    what is under way cannot be read                     ``doctor``
    hooks did not run for the generation in use          ``hooks``
    a key is stored unencrypted and should not be        ``protect``
    ===================================================  ==========================

    Work that was begun and not sent waits until the renewal is due.
    """
    return _unusable(status) or _renewal(status) or _refusal(status) or _chores(status)


def _unusable(status: Status) -> Need | None:
    run = status.under_way
    if status.state in _NOT_USABLE:
        return Need(_NOT_USABLE[status.state], status.problem or status.state)
    if run and run.procedure == "establish" and run.stage == SIGNED:
        return Need("finish", f"under way: {run}")
    if status.state == "not established" or (status.state == "revoked" and not _may_pass(status.verdict)):
        return Need("establish", status.state)
    return None


def _renewal(status: Status) -> Need | None:
    run, again = status.under_way, status.attempts.next_try(status.now)
    if status.state == "expired" and status.validity:
        return Need("establish", f"expired {moment(status.validity.not_after)}", renews=True, wait_until=again)
    if status.due and (status.due.due or status.state == "due"):
        return Need("renew", f"due since {moment(status.due.at)}", renews=True, wait_until=again)
    if run and run.procedure == "renew" and run.stage != BEGUN:
        return Need("renew", f"under way: {run}", renews=True, wait_until=again)
    return None


def _refusal(status: Status) -> Need | None:
    verdict, since, again = status.verdict, status.attempts.refused_since, status.attempts.next_try(status.now)
    if _may_pass(verdict) or status.state == "refused":
        why = f"{verdict}, {moment(verdict.since)}" if verdict else status.state
        return Need("ask", why, wait_until=again)
    return Need("ask", f"UCL refuses its certificate since {moment(since)}", wait_until=again) if since else None


def _may_pass(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.status in {"revoked", "refused"} and verdict.may_pass


def _chores(status: Status) -> Need | None:
    if status.under_way and status.under_way.procedure == "damaged":
        return Need("doctor", "what is under way cannot be read")
    if status.pending_hooks:
        return Need("hooks", f"hooks still have to run: {', '.join(status.pending_hooks)}")
    if status.in_plain:
        return Need("protect", "a key is stored unencrypted, and the settings ask for encryption")
    return None


def status_of(
    connection: "Connection", clock: Clock = utc_now, *, whole: bool = True, pending: Pending | None = None
) -> Status:
    """Return the status of a connection; damage is a state of it and no error.

    Args:
        connection: established or not.
        clock: our clock, aware, UTC.
        whole: also read the key and compare it with its certificate, which takes some 50 ms each time.
        pending: the procedure under way, if the caller has read it already.
    """
    with connection.reading_once():
        return _status_of(connection, clock(), pending, whole=whole)


def _status_of(connection: "Connection", now: datetime, pending: Pending | None, *, whole: bool) -> Status:
    name, attempts, run = connection.name, remembered(connection), None
    try:
        run = _under_way(connection.pending if pending is None else pending)
        sandbox = connection.is_sandbox
        if (current := connection.current) is None:
            if connection.generations() and not run:
                connection.require_current()
            return Status(name, "not established", now, sandbox=sandbox, under_way=run, attempts=attempts)
        if whole:
            current.check_whole(by_key=False)  # what is public takes no passphrase
        due = connection.due(now)
        verdicts = connection.verdicts()
        verdict = verdicts.get(current.fingerprint)
        revoked, refused = (verdict is not None and verdict.status == status for status in ("revoked", "refused"))
        word = state(current.validity, now=now, revoked=revoked, is_due=due.due)
        if word not in LOST and refused:
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
            under_way=run,
            verdict=verdict,
            in_plain=connection.has_plain_keys(),
            attempts=attempts,
            pending_hooks=tuple(hook.name for hook in pending_hooks(connection)),
            unusable=_not_accepted(connection, verdicts),
            rollback_to=_rollback_to(connection, now) if word in LOST or attempts.refused_since else None,
        )
    except InvalidSettings as error:
        return Status(name, "settings not usable", now, under_way=run, problem=str(error), attempts=attempts)
    except UCLError as error:
        target = _rollback_to(connection, now)
        problem = str(error)
        return Status(name, "damaged", now, under_way=run, problem=problem, attempts=attempts, rollback_to=target)


def _not_accepted(connection: "Connection", verdicts: Verdicts) -> dict[str, str]:
    """Return the generations that UCL does not accept, or may not accept, by name, and why."""
    reasons = {mark[:MARK_LENGTH]: f"{verdict}, {moment(verdict.since)}" for mark, verdict in verdicts.items()}
    generations = connection.generations() if reasons else []
    return {generation.name: reasons[generation.mark] for generation in generations if generation.mark in reasons}


def _rollback_to(connection: "Connection", now: datetime) -> str | None:
    with suppress(UCLError):
        return next((generation.name for generation in connection.usable(now)), None)
    return None


def _under_way(pending: Pending) -> UnderWay | None:
    if not (begun := pending.read_state()):
        return None
    stage = SIGNED if pending.answer() else SENT if begun.sent else BEGUN
    created = moment_from(begun.created)
    return UnderWay(begun.kind, moment(created) if created else begun.created, stage)
