"""Revocation: UCL refuses a certificate from now on. It is for good, and each certificate is revoked by itself.

A revoked certificate stays cryptographically valid until it expires; it is the Connector that refuses it.

Invariants that this file keeps:

1.  Intent is on disk before the call (``revoked.json``). If the answer is lost, an empty 400 on the retry settles the
    certificate as revoked, unless an outage of UCL is proven.
2.  Revocations run one after another, since parallel ones conflict on the server. The identity in use comes last.
3.  A refusal alone never settles that UCL does not accept a certificate: either UCL accepts another one in the same
    run, or it refuses this one in a second run.
4.  :func:`forget` removes no key of a certificate that UCL may still accept, unless the user insists.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.generation import fingerprint_or_none
from ucl_helpers.connection.state import BY_REFUSAL, IN_TWO_RUNS, WHILE_ACCEPTING, Standing, Verdict
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import (
    BadAnswer,
    CertificateRejected,
    NotYetAccepted,
    Outage,
    PossibleOutage,
    Refused,
    RequestRejected,
    RetryLater,
    ServerNotTrusted,
    UCLError,
    UsageError,
)
from ucl_helpers.keys import Credentials
from ucl_helpers.models import Outcome, fingerprint
from ucl_helpers.operations import CONFIGURATION, REVOKE
from ucl_helpers.procedures.acceptance import FIRST_MINUTES, UNSENT, explain_by_director, is_final
from ucl_helpers.tables import Row, Tabular, moment
from ucl_helpers.urls import check_url
from ucl_helpers.wire.client import Client


@dataclass(frozen=True)
class ValidIdentity:
    """An identity of a connection that has neither expired nor been revoked, and where it is stored."""

    fingerprint: str
    where: str
    not_after: datetime
    is_used: bool  # it came into use once, so UCL has accepted it
    credentials: Credentials = field(repr=False)


class ValidIdentities(Tabular, tuple[ValidIdentity, ...]):  # noqa: SLOT001
    """Identities that are still valid, shown as a table; the one in use is the last."""

    title: ClassVar[str] = "Still valid"
    header: ClassVar[Row] = ("SHA-256 fingerprint", "where", "valid to")

    def rows(self) -> list[Row]:
        """Return a row for each identity."""
        rows: list[Row] = [(identity.fingerprint, identity.where, moment(identity.not_after)) for identity in self]
        return rows or [("none", "", "")]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table as text in IPython, which would show the items of a tuple."""
        del cycle
        printer.text(str(self))


class DoubtfulIdentities(ValidIdentities):
    """Identities that UCL has refused once: another refusal settles that it does not accept them any more."""

    title: ClassVar[str] = "Refused by UCL once, not settled yet"


def identities(connection: Connection, clock: Clock = utc_now) -> list[ValidIdentity]:
    """Return every identity that has not expired and could be revoked; the one in use is the last."""
    current, by_fingerprint = connection.current, dict[str, ValidIdentity]()

    def add(where: str, credentials: Credentials, *, is_used: bool) -> None:
        mark, not_after = fingerprint(credentials.certificate), credentials.certificate.not_valid_after_utc
        if not_after > clock():
            by_fingerprint.setdefault(mark, ValidIdentity(mark, where, not_after, is_used, credentials))

    # The generation in use first: another generation may hold the same identity.
    for generation in sorted(connection.generations(), key=lambda generation: generation != current):
        if (credentials := generation.usable) is not None:  # without a key it can neither be used nor revoked
            add("in use" if generation == current else f"generation {generation.name}", credentials, is_used=True)
    for pending in [connection.pending, *connection.aside()]:
        for credentials in pending.signed():
            add(f"signed, never used ({pending.path.name})", credentials, is_used=False)
    return sorted(by_fingerprint.values(), key=lambda identity: (identity.where == "in use", identity.not_after))


def valid_identities(connection: Connection, clock: Clock = utc_now) -> ValidIdentities:
    """Return every identity of this connection that UCL may still accept; the one in use is the last.

    None that UCL has refused is among them, see :func:`ucl_helpers.procedures.revocation.doubtful_identities`.
    """
    verdicts = connection.verdicts()
    refused = verdicts.having("revoked", "refused", "doubtful")
    asked = {mark: f" ({verdict})" for mark, verdict in verdicts.items() if verdict.status == "asked"}
    return ValidIdentities(
        replace(identity, where=f"{identity.where}{asked.get(identity.fingerprint, '')}")
        for identity in identities(connection, clock)
        if identity.fingerprint not in refused
    )


def doubtful_identities(connection: Connection, clock: Clock = utc_now) -> DoubtfulIdentities:
    """Return every identity that UCL has refused once, which an outage may explain; the one in use is the last."""
    doubtful = connection.verdicts().having("doubtful")
    return DoubtfulIdentities(
        identity for identity in identities(connection, clock) if identity.fingerprint in doubtful
    )


def require_consent(connection: Connection, confirm: str) -> None:
    """Refuse to revoke a real connection unless the user names it twice.

    Raises:
        UsageError: ``confirm`` is not its name, and it is not for practice.
    """
    if not connection.is_sandbox and confirm != connection.name:
        remedy = f"To confirm it, set confirm = {connection.name!r}."
        raise UsageError(f"Revoking {connection.name} cannot be undone.", remedy=remedy)


def revoke(connection: Connection, *, everything: bool = False, clock: Clock = utc_now) -> Outcome:
    """Revoke the identity in use or, with ``everything``, each one that is still valid, the one in use last.

    A refusal stops nothing. UCL does not accept that certificate any more, unless it has an outage. It has none if it
    has accepted another certificate before in the same run. Without that the first refusal is doubtful. A second one in
    another run counts. Both can be of one outage, so each further run asks again.

    Raises:
        RetryLater: no answer, an outage of UCL, or refusals that may be one; what was revoked is kept, run it again.
        Refused: the server or a gateway said no in another way; all others were revoked.
        StorageFailed: the identity in use is damaged, and it alone was to be revoked.
    """
    with connection.lock.held():
        connection.sweep()
        if not everything:
            connection.require_current().check_whole()
        chosen = [identity for identity in identities(connection, clock) if everything or identity.where == "in use"]
        run, verdicts = _Run(connection, clock), connection.verdicts()
        if error := run.ask([identity for identity in chosen if not is_final(verdicts.get(identity.fingerprint))]):
            raise error.replaced(f"{error.message}\n{run.listed(chosen)}")
        verdict = connection.verdicts().get(fingerprint_or_none(connection.current) or "")
        status = verdict.status if verdict else None
        valid = [
            f"{identity.fingerprint[:16]}… ({identity.where}, to {moment(identity.not_after)})"
            for identity in valid_identities(connection, clock)
        ]
        facts = {
            "revoked": ", ".join(run.revoked) or ("none" if run.refused else "nothing was left to revoke"),
            "not_accepted": ", ".join(run.refused) or None,
            "certificates": run.listed(chosen) or None,
            "still_valid": ", ".join(valid) or "none",
            "unsettled": unsettled(connection),
            "to_come_back": connection.come_back(clock()) if status in {"revoked", "refused"} else None,
        }
    is_done = run.revoked or status == "revoked"
    return Outcome("revoked" if is_done else "nothing-to-revoke", connection.name, facts)


def unsettled(connection: Connection) -> str | None:
    """Name a certificate that may have been signed and whose answer was lost: without it, it cannot be revoked."""
    folders = [connection.pending, *connection.aside()]
    sent = [sent for folder in folders if (sent := folder.read_state().sent) and not folder.signed()]
    if not sent:
        return None
    return f"UCL did not answer a signing request of {', '.join(sent)}; what UCL signed is valid until it expires"


def forget(connection: Connection, *, even_if_valid: bool = False, clock: Clock = utc_now) -> Outcome:
    """Remove a connection from disk, keys and all. Nothing is revoked by this.

    Raises:
        UsageError: an identity of it is still valid, was refused in what may be an outage of UCL, or may have been
            signed without an answer, and ``even_if_valid`` is not set.
    """
    with connection.lock.held():
        if not even_if_valid:
            _require_nothing_valid(connection, clock)
        files.remove_tree(connection.path)
    return Outcome("forgotten", connection.name, {"removed": str(connection.path)})


def _require_nothing_valid(connection: Connection, clock: Clock) -> None:
    def number(count: int) -> str:
        return "an identity" if count == 1 else f"{count} identities"

    name, verdicts = connection.name, connection.verdicts()
    if valid := valid_identities(connection, clock):
        raise UsageError(
            f"{name} has {number(len(valid))} that UCL may still accept. Without the keys you can neither use nor "
            "revoke them.",
            remedy=f"Revoke them first: ucl revoke {name} --all; or add --even-if-valid.",
        )
    stored = [verdicts.get(identity.fingerprint) for identity in identities(connection, clock)]
    if unproven := [verdict for verdict in stored if verdict and verdict.is_unproven]:
        raise UsageError(
            f"UCL refuses {number(len(unproven))} of {name}. UCL may be down: in an outage it refuses every "
            "certificate like this, and the keys are good again afterwards.",
            remedy=f"Ask UCL's operator whether there is an outage. If there is one, wait, then run: ucl revoke "
            f"{name} --all. If there is none: ucl forget {name} --even-if-valid",
        )
    if lost := unsettled(connection):
        raise UsageError(
            f"{name} keeps the key of a certificate that may be valid: {lost}.",
            remedy="Settle it first with ucl renew or ucl establish; or add --even-if-valid.",
        )


@dataclass(frozen=True)
class _Refusal:
    """UCL did not accept a certificate that was to be revoked.

    Attributes:
        identity: the certificate's.
        error: UCL's answer.
        before: the verdict on it before this run.
        accepted: how many certificates UCL had accepted before in the same run.
    """

    identity: ValidIdentity
    error: Refused
    before: Verdict | None
    accepted: int

    @property
    def is_repeated(self) -> bool:
        """Return whether an earlier request to revoke it had no answer. Then this refusal means that it was done."""
        return self.before is not None and self.before.status == "asked"


class _Run:
    """Revocations one after another, and what their refusals mean together. The caller holds the lock."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.revoked, self.refused = list[str](), list[str]()
        self._connection, self._clock = connection, clock
        self._refusals, self._failures = list[_Refusal](), list[UCLError]()
        self._outage: Outage | None = None
        self._accepted = 0  # how many certificates UCL has accepted in this run
        self._again = set[str]()  # fingerprints of those that it refused before, and that are asked for again

    def ask(self, chosen: Sequence[ValidIdentity]) -> UCLError | None:
        """Revoke each of them, then settle the refusals. Return the first problem, or None."""
        problem: UCLError | None = None
        for identity in sorted(chosen, key=self._is_accepted) if len(chosen) > 1 else chosen:
            try:
                self._revoke(identity)
            except UCLError as error:  # the rest waits: most likely it would fail alike
                problem = error
                break
        if self._accepted and not problem:
            problem = self._ask_again()
        for refusal in self._refusals:
            self._settle(refusal)
        return next(filter(None, [problem, *self._failures]), None)

    def _ask_again(self) -> UCLError | None:
        """Ask again for those that UCL refused before it accepted the first one: an outage may have ended between."""
        early = [refusal for refusal in self._refusals if not refusal.accepted]
        self._refusals = [refusal for refusal in self._refusals if refusal.accepted]
        self._again = {refusal.identity.fingerprint for refusal in early}
        for number, refusal in enumerate(early):
            try:
                self._revoke(refusal.identity)
            except UCLError as error:
                self._refusals += early[number:]
                return error
        return None

    def _is_accepted(self, identity: ValidIdentity) -> bool:
        """Ask UCL. What it refuses comes first: that it accepts another one afterwards shows that it has no outage."""
        url, ca_file = _endpoint(self._connection)
        with Client(url, "certificate", ca_file=ca_file, credentials=identity.credentials, retry=False) as client:
            try:
                client.call(CONFIGURATION)
            except UCLError as error:
                return isinstance(error, RequestRejected) or not isinstance(error, Refused)
        return True

    def _without_outage(self, refusal: _Refusal) -> bool:
        """Return whether UCL accepted another certificate between two refusals of this one, or before and after one."""
        asked_again = refusal.identity.fingerprint in self._again
        return bool(refusal.accepted) and (asked_again or refusal.accepted < self._accepted)

    def listed(self, chosen: Iterable[ValidIdentity]) -> str:
        """Return a line for each identity: whether it is revoked, or not accepted any more."""
        verdicts = self._connection.verdicts()
        return "\n".join(
            f"{identity.fingerprint} ({identity.where}): {verdicts.get(identity.fingerprint, 'still valid')}"
            for identity in chosen
        )

    def _revoke(self, identity: ValidIdentity) -> None:
        connection, mark = self._connection, identity.fingerprint
        before = connection.verdicts().get(mark)
        url, ca_file = _endpoint(connection)
        try:
            with Client(url, "certificate", ca_file=ca_file, credentials=identity.credentials, retry=False) as client:
                self._keep(identity, "asked")
                connection.record("revoke-intended", fingerprint=mark)
                if client.call(REVOKE).result is not True:
                    raise BadAnswer("UCL did not confirm the revocation.", remedy="Run it again.")
        except RequestRejected as error:  # it may be done nevertheless; then a refusal of the next try settles it
            self._accepted += 1
            self._failures.append(error)
        except (ServerNotTrusted, RetryLater) as error:
            if isinstance(error, ServerNotTrusted) or error.data.keys() & UNSENT:
                connection.judge(mark, before)
                connection.record("revoke-not-sent", fingerprint=mark)
            raise
        except Refused as error:
            refusal = _Refusal(identity, error, before, self._accepted)
            if not refusal.is_repeated:
                connection.judge(mark, before)
                connection.record("revoke-refused", fingerprint=mark, reason=error.message[:500])
            self._refusals.append(refusal)
        else:
            self._accepted += 1
            self._keep_revoked(identity, "answered")

    def _settle(self, refusal: _Refusal) -> None:
        identity, error, before = refusal.identity, refusal.error, refusal.before
        is_young = self._clock() - identity.credentials.certificate.not_valid_before_utc < FIRST_MINUTES
        if not isinstance(error, CertificateRejected) and error.data.get("status") != HTTPStatus.BAD_REQUEST:
            self._failures.append(error)  # the answer of a gateway settles nothing
        elif isinstance(explained := self._explained(refusal), Outage):
            self._failures.append(explained)  # it refuses every certificate: that settles nothing
        elif is_young and (refusal.is_repeated or not identity.is_used):
            self._failures.append(_too_young(error))
        elif explained is not error:
            self._failures.append(explained)  # the Director accepts it, so neither it nor its client is gone
        elif before and before.status == "revoked":
            pass  # by earlier refusals, and by this one
        elif refusal.is_repeated and not isinstance(error, CertificateRejected):
            self._keep_revoked(identity, BY_REFUSAL)
        elif before and before.status == "refused" and not self._without_outage(refusal):
            self.refused.append(identity.fingerprint)
        elif self._without_outage(refusal) or (before and before.status == "doubtful"):
            how = WHILE_ACCEPTING if self._without_outage(refusal) else IN_TWO_RUNS
            self.refused.append(identity.fingerprint)
            self._keep(identity, "refused", how)
            self._connection.record("not-accepted", fingerprint=identity.fingerprint, how=how)
        else:
            self._keep(identity, "doubtful")
            self._failures.append(_doubtful(self._connection, error))

    def _explained(self, refusal: _Refusal) -> UCLError:
        """Return the error, or the outage that the Director's answer shows. A proven outage explains all refusals."""
        if self._without_outage(refusal):
            return refusal.error
        if self._outage is None:
            credentials, (_, ca_file) = refusal.identity.credentials, _endpoint(self._connection)
            explained = explain_by_director(refusal.error, self._connection, credentials, ca_file, now=self._clock())
            if not isinstance(explained, Outage):
                return explained
            self._outage = explained
        return self._outage

    def _keep_revoked(self, identity: ValidIdentity, how: str) -> None:
        self.revoked.append(identity.fingerprint)
        self._keep(identity, "revoked", how)
        self._connection.record("revoked", fingerprint=identity.fingerprint, how=how)

    def _keep(self, identity: ValidIdentity, status: Standing, how: str = "") -> None:
        self._connection.judge(identity.fingerprint, Verdict(status, self._clock(), how))


def _too_young(error: Refused) -> NotYetAccepted:
    return NotYetAccepted(
        f"The certificate is new. It is revoked, or UCL does not accept it yet. {error.message}",
        remedy="Run it again when the certificate is ten minutes old. From then on, a refusal means that UCL does not "
        "accept it.",
        **error.data,
    )


def _doubtful(connection: Connection, error: Refused) -> PossibleOutage:
    return PossibleOutage(
        f"UCL does not accept a certificate of {connection.name} any more, or UCL has an outage. {error.message}",
        remedy="Run it again in a few minutes. If UCL refuses the certificate again, there is nothing left to revoke, "
        "unless UCL has an outage that lasts.",
        **{**error.data, "outage": "possible"},
    )


def _endpoint(connection: Connection) -> tuple[str, Path | None]:
    """Return the URL that revokes, and the file that verifies the server.

    If the identity in use does not name them, the newest whole generation or a signed answer does.
    """
    try:
        return connection.url, connection.require_current().server_ca
    except UCLError:
        for generation in reversed(connection.generations()):
            if generation.is_readable:
                return check_url(generation.facts.get("connectorUrl")), generation.server_ca
        for pending in [connection.pending, *reversed(connection.aside())]:
            if pending.signed() and (configuration := pending.read_state().configuration):
                url = connection.sandbox_url or configuration.certificate_secured_connector_url
                return check_url(url), pending.server_ca
        raise
