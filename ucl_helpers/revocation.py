"""Revocation: UCL refuses a certificate from now on. It is for good, and each certificate is revoked by itself.

A revoked certificate stays cryptographically valid until it expires; it is the Connector that refuses it. Intent is
journaled before the call: when its answer got lost, an empty 400 on the retry settles it as revoked. Revocations run
one after another, since parallel ones conflict on the server; the identity in use comes last.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar, overload

from ucl_helpers.client import Client
from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.errors import (
    BadAnswer,
    NotYetAccepted,
    Refused,
    RequestRejected,
    ServerNotTrusted,
    UCLError,
    UsageError,
)
from ucl_helpers.models import Outcome, Validity, fingerprint
from ucl_helpers.operations import REVOKE
from ucl_helpers.outage import unless_it_passes
from ucl_helpers.outcomes import mark_of
from ucl_helpers.show import Row, Shown, moment
from ucl_helpers.store import Connection
from ucl_helpers.tls import Credentials, check_url
from ucl_helpers.verification import FIRST_MINUTES


@dataclass(frozen=True)
class ValidIdentity:
    """An identity of a connection that has neither expired nor been revoked, and where it lies."""

    fingerprint: str
    where: str
    not_after: datetime
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


def valid_identities(connection: Connection, clock: Clock = utc_now) -> ValidIdentities:
    """Every identity of this connection that UCL may still accept; the one in use is the last."""
    now = clock()
    current, found = connection.current, dict[str, ValidIdentity]()
    # The one in use first: another generation may hold the same identity.
    for generation in sorted(connection.generations(), key=lambda one: one != current):
        if (credentials := generation.usable) is not None:  # else it can no more be used than revoked
            where = "in use" if generation == current else f"generation {generation.name}"
            _add(found, where, credentials)
    for pending in [connection.pending, *connection.aside()]:
        for credentials in pending.signed():
            _add(found, f"signed, never used ({pending.path.name})", credentials)
    gone = connection.revoked()
    valid = [one for one in found.values() if now < one.not_after and one.fingerprint not in gone]
    return ValidIdentities(tuple(sorted(valid, key=lambda one: (one.where == "in use", one.not_after))))


def require_consent(connection: Connection, confirm: str) -> None:
    """A real connection is revoked only by someone who names it twice.

    Raises:
        UsageError: ``confirm`` is not its name, and it is not for practice.
    """
    if not connection.is_sandbox and confirm != connection.name:
        raise UsageError(
            f"Revoking {connection.name} cannot be undone.",
            remedy=f"If you mean it, give confirm = {connection.name!r}.",
        )


def revoke(connection: Connection, *, everything: bool = False, clock: Clock = utc_now) -> Outcome:
    """Revoke the identity in use or, with ``everything``, each one that is still valid, the one in use last.

    Raises:
        RetryLater: no answer; what was revoked is journaled, run it again.
        Refused: the server said no to the first try, so it may be revoked already, elsewhere; all others were revoked.
        StorageFailed: the identity in use is damaged, and it alone was to be revoked.
    """
    with connection.lock.held():
        if not everything:
            connection.require_current().check_whole()
        valid = valid_identities(connection, clock)
        chosen = valid if everything else [one for one in valid if one.where == "in use"]
        refusals = [refusal for one in chosen if (refusal := _revoke_one(connection, one, clock()))]
        if refusals:
            raise refusals[0]
        left = [one for one in valid_identities(connection, clock) if one not in chosen]
    facts = {
        "revoked": ", ".join(one.fingerprint for one in chosen) or "nothing was left to revoke",
        "still_valid": _listed(left) or "none",
        "unsettled": unsettled(connection),
    }
    done = chosen or mark_of(connection.current) in connection.revoked()
    return Outcome("revoked" if done else "nothing-to-revoke", connection.name, facts)


def unsettled(connection: Connection) -> str | None:
    """A certificate that may have been signed and whose answer got lost: without it, it cannot be revoked."""
    every = [connection.pending, *connection.aside()]
    sent = [one.state["sent"] for one in every if one.state.get("sent") and not one.signed()]
    if not sent:
        return None
    return f"a signing request of {', '.join(sent)} was not answered; what came of it is valid until it expires"


def _revoke_one(connection: Connection, identity: ValidIdentity, now: datetime) -> Refused | None:
    # Asked for before and never answered: then a refusal now means that it was done.
    asked = _last_event(connection, identity.fingerprint) == "revoke-intended"
    url, ca = _endpoint(connection)
    how = "answered"
    try:
        with Client(url, "certificate", ca_file=ca, credentials=identity.credentials, retry=False) as client:
            connection.record("revoke-intended", fingerprint=identity.fingerprint)
            if client.call(REVOKE).result is not True:
                raise BadAnswer("UCL did not confirm the revocation.", remedy="Run it again.")
    except RequestRejected as error:  # it may be done all the same: then the next try is refused, which settles it
        return error
    except ServerNotTrusted:
        if not asked:
            connection.record("revoke-not-sent", fingerprint=identity.fingerprint)
        raise
    except Refused as error:
        told = unless_it_passes(error, connection, identity.credentials, ca)
        if not asked:
            connection.record("revoke-refused", fingerprint=identity.fingerprint, reason=error.message[:500])
        if told is not error:  # an outage refuses everyone: it settles nothing
            raise told from None
        if not asked or error.data.get("status") != HTTPStatus.BAD_REQUEST:
            return error  # a gateway's word settles nothing
        if now - identity.credentials.certificate.not_valid_before_utc < FIRST_MINUTES:
            raise NotYetAccepted(
                f"Revoked, or not accepted yet: the certificate is new. {error.message}",
                remedy="Run it again when it is ten minutes old; then a refusal means that it was revoked.",
            ) from None
        how = "settled by the refusal of a repeated request"
    connection.record("revoked", fingerprint=identity.fingerprint, how=how)
    return None


def _endpoint(connection: Connection) -> tuple[str, Path | None]:
    """Where to revoke and what verifies the server; if the one in use is lost, as the newest whole one knows."""
    try:
        return connection.url, connection.require_current().server_ca
    except UCLError:
        newest = next((one for one in reversed(connection.generations()) if one.is_readable), None)
        if newest is None:
            raise
        return check_url(newest.facts.get("connectorUrl")), newest.server_ca


def _last_event(connection: Connection, wanted: str) -> str | None:
    events = [one.get("event") for one in connection.journal() if one.get("fingerprint") == wanted]
    return str(events[-1]) if events else None


def _add(found: dict[str, ValidIdentity], where: str, credentials: Credentials) -> None:
    certificate = credentials.certificate
    mark = fingerprint(certificate)
    if mark not in found:
        found[mark] = ValidIdentity(mark, where, Validity.of(certificate).not_after, credentials)


def _listed(identities: Iterable[ValidIdentity]) -> str:
    return ", ".join(f"{one.fingerprint[:16]}… ({one.where}, to {moment(one.not_after)})" for one in identities)
