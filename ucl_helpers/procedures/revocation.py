"""Revocation: UCL refuses a certificate from now on. It is for good, and each certificate is revoked by itself.

A revoked certificate stays cryptographically valid until it expires; it is the Connector that refuses it. Intent is
on disk before the call (``revoked.json``): when its answer got lost, an empty 400 on the retry settles it as revoked,
unless an outage of UCL is proven. Revocations run one after another, since parallel ones conflict on the server; the
identity in use comes last.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar, overload

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
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
from ucl_helpers.models import Outcome, Validity, fingerprint
from ucl_helpers.operations import REVOKE
from ucl_helpers.procedures.acceptance import FIRST_MINUTES, explain_by_director
from ucl_helpers.procedures.generations import fingerprint_or_none
from ucl_helpers.tables import Row, Shown, moment
from ucl_helpers.wire.client import Client
from ucl_helpers.wire.tls import Credentials, check_url

_UNSENT = {"unsent", "unresolved", "proxy"}
"""Facts of an error that say that nothing has left this machine, or that a proxy has passed nothing on."""


@dataclass(frozen=True)
class ValidIdentity:
    """An identity of a connection that has neither expired nor been revoked, and where it lies."""

    fingerprint: str
    where: str
    not_after: datetime
    is_used: bool  # it came into use once, so UCL has accepted it
    credentials: Credentials = field(repr=False)


@dataclass(frozen=True)
class ValidIdentities(Sequence[ValidIdentity], Shown):
    """Identities that are still valid, shown as a table; the one in use is the last."""

    identities: tuple[ValidIdentity, ...]

    title: ClassVar[str] = "Still valid"
    header: ClassVar[Row] = ("SHA-256 fingerprint", "where", "valid to")

    def __len__(self) -> int:
        return len(self.identities)

    @overload
    def __getitem__(self, index: int) -> ValidIdentity: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ValidIdentity]: ...
    def __getitem__(self, index: int | slice) -> ValidIdentity | Sequence[ValidIdentity]:
        return self.identities[index]

    def rows(self) -> list[Row]:
        """One row each."""
        return [(one.fingerprint, one.where, moment(one.not_after)) for one in self] or [("none", "", "")]


@dataclass(frozen=True)
class DoubtfulIdentities(ValidIdentities):
    """Identities that UCL has refused once: another refusal settles that it does not accept them any more."""

    title: ClassVar[str] = "Refused by UCL once, not settled yet"


def identities(connection: Connection, clock: Clock = utc_now) -> list[ValidIdentity]:
    """Every identity of this connection that has not expired and could be revoked; the one in use is the last."""
    now = clock()
    current, found = connection.current, dict[str, ValidIdentity]()
    # The one in use first: another generation may hold the same identity.
    for generation in sorted(connection.generations(), key=lambda one: one != current):
        if (credentials := generation.usable) is not None:  # else it can no more be used than revoked
            where = "in use" if generation == current else f"generation {generation.name}"
            _add(found, where, credentials, is_used=True)
    for pending in [connection.pending, *connection.aside()]:
        for credentials in pending.signed():
            _add(found, f"signed, never used ({pending.path.name})", credentials, is_used=False)
    valid = [one for one in found.values() if now < one.not_after]
    return sorted(valid, key=lambda one: (one.where == "in use", one.not_after))


def valid_identities(connection: Connection, clock: Clock = utc_now) -> ValidIdentities:
    """Every identity of this connection that UCL may still accept; the one in use is the last.

    None that UCL has refused is among them, see :func:`ucl_helpers.procedures.revocation.doubtful_identities`.
    """
    gone = connection.verdicts().having("revoked", "refused", "doubtful")
    return ValidIdentities(tuple(one for one in identities(connection, clock) if one.fingerprint not in gone))


def doubtful_identities(connection: Connection, clock: Clock = utc_now) -> DoubtfulIdentities:
    """Every identity that UCL has refused once, which an outage of UCL explains as well; the one in use is the last."""
    doubtful = connection.verdicts().having("doubtful")
    return DoubtfulIdentities(tuple(one for one in identities(connection, clock) if one.fingerprint in doubtful))


def unproven_identities(connection: Connection, clock: Clock = utc_now) -> DoubtfulIdentities:
    """Every identity that UCL has refused, in one run or in more, where an outage of UCL explains each refusal."""
    unproven = {mark for mark, verdict in connection.verdicts().items() if verdict.is_unproven}
    return DoubtfulIdentities(tuple(one for one in identities(connection, clock) if one.fingerprint in unproven))


def require_consent(connection: Connection, confirm: str) -> None:
    """A real connection is revoked only by someone who names it twice.

    Raises:
        UsageError: ``confirm`` is not its name, and it is not for practice.
    """
    if not connection.is_sandbox and confirm != connection.name:
        raise UsageError(
            f"Revoking {connection.name} cannot be undone.",
            remedy=f"To confirm it, set confirm = {connection.name!r}.",
        )


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
        if not everything:
            connection.require_current().check_whole()
        every = [one for one in identities(connection, clock) if everything or one.where == "in use"]
        settled = {mark for mark, one in connection.verdicts().items() if one.status == "revoked" and not one.may_pass}
        run = _Run(connection, clock)
        if error := run.ask([one for one in every if one.fingerprint not in settled]):
            raise run.told(error, every)
        lost = fingerprint_or_none(connection.current) in connection.verdicts().having("revoked", "refused")
        facts = {
            "revoked": ", ".join(run.revoked) or ("none" if run.refused else "nothing was left to revoke"),
            "not_accepted": ", ".join(run.refused) or None,
            "certificates": run.listed(every) or None,
            "still_valid": _listed(valid_identities(connection, clock)) or "none",
            "unsettled": unsettled(connection),
            "to_come_back": connection.come_back(clock()) if lost else None,
        }
    done = run.revoked or fingerprint_or_none(connection.current) in connection.revoked()
    return Outcome("revoked" if done else "nothing-to-revoke", connection.name, facts)


def unsettled(connection: Connection) -> str | None:
    """A certificate that may have been signed and whose answer got lost: without it, it cannot be revoked."""
    every = [connection.pending, *connection.aside()]
    sent = [one.state["sent"] for one in every if one.state.get("sent") and not one.signed()]
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
        valid = valid_identities(connection, clock)
        if valid and not even_if_valid:
            counted = "an identity" if len(valid) == 1 else f"{len(valid)} identities"
            raise UsageError(
                f"{connection.name} has {counted} that UCL still accepts; with their keys gone nobody "
                "could use or revoke them.",
                remedy=f"Revoke them first: ucl revoke {connection.name} --all; or add --even-if-valid.",
            )
        if (unproven := unproven_identities(connection, clock)) and not even_if_valid:
            counted = "an identity" if len(unproven) == 1 else f"{len(unproven)} identities"
            raise UsageError(
                f"UCL refuses {counted} of {connection.name}. UCL may be down: in an outage it refuses every "
                "certificate like this, and the keys are good again afterwards.",
                remedy=f"Ask UCL's operator whether there is an outage. If there is one, wait, then run: ucl revoke "
                f"{connection.name} --all. If there is none: ucl forget {connection.name} --even-if-valid",
            )
        if (lost := unsettled(connection)) and not even_if_valid:
            raise UsageError(
                f"{connection.name} keeps the key of what may be valid: {lost}.",
                remedy="Settle it first with ucl renew or ucl establish; or add --even-if-valid.",
            )
        files.remove_tree(connection.path)
    return Outcome("forgotten", connection.name, {"removed": str(connection.path)})


@dataclass(frozen=True)
class _Refusal:
    """UCL did not accept a certificate that was to be revoked.

    Attributes:
        identity: the certificate's.
        error: UCL's answer.
        before: what was known of it.
        without_outage: UCL had accepted another certificate before in the same run.
    """

    identity: ValidIdentity
    error: Refused
    before: Verdict | None
    without_outage: bool


class _Run:
    """Revocations one after another, and what their refusals mean together. The caller holds the lock."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.revoked, self.refused = list[str](), list[str]()
        self._connection, self._clock = connection, clock
        self._refusals, self._failed = list[_Refusal](), list[UCLError]()
        self._outage: Outage | None = None
        self._accepts = False  # UCL has accepted a certificate in this run, so it has no outage

    def ask(self, chosen: Sequence[ValidIdentity]) -> UCLError | None:
        """Revoke each of them, then settle the refusals. Return the first problem, or None."""
        stopped: UCLError | None = None
        for one in chosen:
            try:
                self._revoke(one)
            except UCLError as error:  # the rest waits: most likely it would fail alike
                stopped = error
                break
        if self._accepts and not stopped:
            stopped = self._ask_again()
        for refusal in self._refusals:
            self._settle(refusal)
        return next(iter([*filter(None, [stopped]), *self._failed]), None)

    def _ask_again(self) -> UCLError | None:
        """Ask again for those that UCL refused before it accepted the first one: an outage may have ended between."""
        early = [one for one in self._refusals if not one.without_outage]
        self._refusals = [one for one in self._refusals if one.without_outage]
        for number, refusal in enumerate(early):
            try:
                self._revoke(refusal.identity)
            except UCLError as error:
                self._refusals += early[number:]
                return error
        return None

    def listed(self, every: Iterable[ValidIdentity]) -> str:
        """One line for each identity: whether it is revoked, or not accepted any more."""
        verdicts = self._connection.verdicts()
        return "\n".join(
            f"{one.fingerprint} ({one.where}): {verdicts.get(one.fingerprint, 'still valid')}" for one in every
        )

    def told(self, error: UCLError, every: Iterable[ValidIdentity]) -> UCLError:
        """An error that also tells of every identity."""
        return type(error)(f"{error.message}\n{self.listed(every)}", remedy=error.remedy, **error.data)

    def _revoke(self, one: ValidIdentity) -> None:
        connection, mark = self._connection, one.fingerprint
        before = connection.verdicts().get(mark)
        # Asked for before and never answered: then a refusal now means that it was done.
        asked = before is not None and before.status == "asked"
        url, ca = _endpoint(connection)
        try:
            with Client(url, "certificate", ca_file=ca, credentials=one.credentials, retry=False) as client:
                self._keep(one, "asked")
                connection.record("revoke-intended", fingerprint=mark)
                if client.call(REVOKE).result is not True:
                    raise BadAnswer("UCL did not confirm the revocation.", remedy="Run it again.")
        except RequestRejected as error:  # it may be done all the same: then the next try is refused, which settles it
            self._accepts = True
            self._failed.append(error)
        except ServerNotTrusted:
            if not asked:
                connection.judge(mark, before)
                connection.record("revoke-not-sent", fingerprint=mark)
            raise
        except RetryLater as error:
            if error.data.keys() & _UNSENT:
                connection.judge(mark, before)
                connection.record("revoke-not-sent", fingerprint=mark)
            raise
        except Refused as error:
            if not asked:
                connection.judge(mark, before)
                connection.record("revoke-refused", fingerprint=mark, reason=error.message[:500])
            self._refusals.append(_Refusal(one, error, before, self._accepts))
        else:
            self._accepts = True
            self._is_revoked(one, "answered")

    def _settle(self, refusal: _Refusal) -> None:
        one, error, before = refusal.identity, refusal.error, refusal.before
        asked = before is not None and before.status == "asked"
        young = self._clock() - one.credentials.certificate.not_valid_before_utc < FIRST_MINUTES
        if not isinstance(error, CertificateRejected) and error.data.get("status") != HTTPStatus.BAD_REQUEST:
            self._failed.append(error)  # a gateway's word settles nothing
        elif isinstance(judged := self._judged(refusal), Outage):
            self._failed.append(judged)  # it refuses every certificate: that settles nothing
        elif young and (asked or not one.is_used):
            self._failed.append(_too_young(error))
        elif judged is not error:
            self._failed.append(judged)  # the Director accepts it, so neither is it revoked nor its client deleted
        elif before and before.status == "revoked":
            pass  # by refusals before, and by this one
        elif asked and not isinstance(error, CertificateRejected):
            self._is_revoked(one, BY_REFUSAL)
        elif before and before.status == "refused" and not refusal.without_outage:
            self.refused.append(one.fingerprint)
        elif refusal.without_outage or (before and before.status == "doubtful"):
            how = WHILE_ACCEPTING if refusal.without_outage else IN_TWO_RUNS
            self.refused.append(one.fingerprint)
            self._keep(one, "refused", how)
            self._connection.record("not-accepted", fingerprint=one.fingerprint, how=how)
        else:
            self._keep(one, "doubtful")
            self._failed.append(_doubtful(self._connection, error))

    def _judged(self, refusal: _Refusal) -> UCLError:
        """The error, or what the Director makes of it. An outage that it proves is the same for all."""
        if refusal.without_outage:
            return refusal.error
        if self._outage is None:
            credentials, ca = refusal.identity.credentials, _endpoint(self._connection)[1]
            judged = explain_by_director(refusal.error, self._connection, credentials, ca, now=self._clock())
            if not isinstance(judged, Outage):
                return judged
            self._outage = judged
        return self._outage

    def _is_revoked(self, one: ValidIdentity, how: str) -> None:
        self.revoked.append(one.fingerprint)
        self._keep(one, "revoked", how)
        self._connection.record("revoked", fingerprint=one.fingerprint, how=how)

    def _keep(self, one: ValidIdentity, status: Standing, how: str = "") -> None:
        self._connection.judge(one.fingerprint, Verdict(status, self._clock(), how))


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
    """Where to revoke and what verifies the server; else as the newest whole one knows, or what was signed."""
    try:
        return connection.url, connection.require_current().server_ca
    except UCLError:
        newest = next((one for one in reversed(connection.generations()) if one.is_readable), None)
        if newest is not None:
            return check_url(newest.facts.get("connectorUrl")), newest.server_ca
        for pending in [connection.pending, *reversed(connection.aside())]:
            if pending.signed() and (told := pending.configuration()):
                url = connection.sandbox_url or told.certificate_secured_connector_url
                return check_url(url), pending.server_ca
        raise


def _add(found: dict[str, ValidIdentity], where: str, credentials: Credentials, *, is_used: bool) -> None:
    certificate = credentials.certificate
    mark = fingerprint(certificate)
    if mark not in found:
        found[mark] = ValidIdentity(mark, where, Validity.of(certificate).not_after, is_used, credentials)


def _listed(identities: Iterable[ValidIdentity]) -> str:
    return ", ".join(f"{one.fingerprint[:16]}… ({one.where}, to {moment(one.not_after)})" for one in identities)
