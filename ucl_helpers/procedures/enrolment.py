"""From what a user has (a token or access to the Director, secrets by reference) to an established connection.

Invariants that this file keeps:

1.  Secrets come by reference and appear in no representation.
2.  A token that is known to have expired is not sent, and an interrupted run is finished before another token is used.
3.  Only with access to the Director a lost token is replaced, and only once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import ClassVar

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import (
    NewTokenNeeded,
    PossibleOutage,
    Refused,
    RequestRejected,
    RetryLater,
    UCLError,
    UsageError,
)
from ucl_helpers.models import OneTimeToken, Outcome
from ucl_helpers.operations import ONE_TIME_TOKEN, read_bearer, read_token, token_from
from ucl_helpers.procedures.establishment import Establishment, require_unexpired
from ucl_helpers.tables import Row, Tabular
from ucl_helpers.urls import check_url
from ucl_helpers.wire.client import Client

_DIRECTOR = ("director_url", "tenant", "application_id", "bearer")
_NO_SCOPES, _TOKEN_LIFETIME = "insufficient scopes provided [actual=;", timedelta(minutes=5)


@dataclass(frozen=True)
class DirectorAccess:
    """How the Director is asked for one-time tokens. The bearer is kept out of every representation."""

    url: str
    tenant: str
    application_id: str
    bearer: str = field(repr=False)
    ca_file: Path | None = None

    def one_time_token(self, clock: Clock = utc_now) -> OneTimeToken:
        """A fresh one-time token (valid for five minutes) and the token endpoint.

        Raises:
            PossibleOutage: the bearer has no scope at all, as when the Director's database is down.
            RetryLater, Refused, ServerNotTrusted, BadAnswer: see :class:`ucl_helpers.wire.client.Client`.
        """
        headers = {"Authorization": f"Bearer {self.bearer}", "Tenant": self.tenant}
        with Client(self.url, "director", ca_file=self.ca_file, headers=headers) as client:
            try:
                answer = client.call(ONE_TIME_TOKEN, {"id": self.application_id})
            except RequestRejected as error:
                if not any(_NO_SCOPES in text for text in error.data.get("errors", ())):
                    raise
                raise PossibleOutage(
                    f"{error.message} The Director also says this of every bearer while its database is down.",
                    remedy="Wait and run it again. If it stays so, the bearer has no scopes: get another one.",
                    **error.data,
                    outage="possible",
                ) from None
        token = token_from(answer.result)
        return replace(token, expires_at=token.expires_at or clock() + _TOKEN_LIFETIME)


Access = DirectorAccess | OneTimeToken | None


def access_from(given: Mapping[str, str | None], ca_file: Path | None, connection: Connection | None = None) -> Access:
    """A one-time token, access to the Director, or None when nothing is given.

    Args:
        given: ``token`` and ``bearer`` (references), ``connector_url``, ``director_url``, ``tenant``,
            ``application_id``; what is missing, None or empty counts as not given.
        ca_file: PEM of what verifies UCL's servers; None for the system's trust.
        connection: its interrupted establishment names the endpoint if neither ``given`` nor the token does.

    Raises:
        UsageError: both ways are given, or one only in part, or a token without its endpoint; names what is missing.
    """
    director = {name: given.get(name) or "" for name in _DIRECTOR}
    token = given.get("token")
    if token and any(director.values()):
        raise UsageError("Both a token and access to the Director are given.", remedy="Give one of them.")
    if token:
        one_time_token = read_token(resolve(token, what="token"))
        url = given.get("connector_url") or one_time_token.connector_url or _remembered_endpoint(connection)
        if url is None:
            raise UsageError(
                "The token does not name its endpoint.",
                remedy="Give the token-secured Connector URL as well: --connector-url https://…/connector/graphql "
                "(connectorURL in the Director's answer; legacyConnectorURL is another).",
            )
        return replace(one_time_token, connector_url=check_url(url, what="The token's endpoint"))
    if not any(director.values()):
        return None
    missing = [name for name, value in director.items() if not value]
    if missing:
        raise UsageError(f"Missing for the Director: {', '.join(missing)}.", remedy="Give all four.")
    bearer = read_bearer(resolve(director["bearer"], what="bearer"))
    return DirectorAccess(director["director_url"], director["tenant"], director["application_id"], bearer, ca_file)


def _remembered_endpoint(connection: Connection | None) -> str | None:
    """The token endpoint that an establishment used which now needs a new token."""
    if connection is None or not connection.path.is_dir():
        return None
    files.require_private_folder(*connection.folders)
    return connection.pending.read_state().token_url


@dataclass(frozen=True)
class Enrolment(Tabular):
    """A connection, and the token or the access to the Director by which it can be established."""

    connection: Connection
    access: Access
    ca_file: Path | None = None

    title: ClassVar[str] = "The way in"

    def begin(self, *, key_length: int | None = None) -> Establishment:
        """Begin to establish; a token is fetched only if one is needed. See :meth:`Establishment.begin`."""
        left = Establishment.begin(
            self.connection, None, ca_file=self.ca_file, key_length=key_length, only_if_needed=True
        )
        if left.not_needed or left.can_go_on():
            return left
        access = self.access
        token = access.one_time_token() if isinstance(access, DirectorAccess) else access
        return Establishment.begin(self.connection, token, ca_file=self.ca_file, key_length=key_length)

    def rows(self) -> list[Row]:
        """What is known; no secret."""
        if isinstance(self.access, DirectorAccess):
            way = f"the Director at {self.access.url} issues a one-time token"
        elif self.access is not None:
            way = f"a one-time token for {self.access.connector_url or 'an endpoint still to be named'}"
        else:
            way = "none given: what an interrupted run left is gone on with"
        return [
            ("connection", self.connection.name + (" (sandbox, for practice)" if self.connection.is_sandbox else "")),
            ("established", "yes" if self.connection.current else "not yet"),
            ("way in", way),
        ]


def establish(
    connection: Connection,
    access: OneTimeToken | DirectorAccess | None,
    *,
    ca_file: Path | None = None,
    key_length: int | None = None,
    clock: Clock = utc_now,
) -> Outcome:
    """Establish a connection: all steps, the lock held throughout. See :meth:`Establishment.begin`.

    With access to the Director a token that got lost is replaced, once.
    """
    lost: UCLError | None = None
    with connection.lock.held():
        # What an interrupted run left comes first: its token may be the very one that is given again.
        for token in chain([None], _tokens(access, clock)):  # the Director is asked before anything is given up
            if token is not None and lost is not None:
                _give_up(connection, lost, token, clock)
            try:
                return Establishment.begin(connection, token, ca_file=ca_file, key_length=key_length, clock=clock).run()
            except (NewTokenNeeded, RetryLater, Refused) as error:
                kept = token is None and error.data.get("kept")
                if not (kept or isinstance(error, NewTokenNeeded) or error.data.get("token_lost")):
                    raise
                lost = error
    if isinstance(lost, NewTokenNeeded) and isinstance(access, DirectorAccess):
        remedy = "Key and CSR are kept. Run the same command again: it gets a new one-time token from the Director."
        raise NewTokenNeeded(lost.message, remedy=remedy, **lost.data)
    raise lost or AssertionError("the first try either returns or raises")


def _give_up(connection: Connection, lost: UCLError, token: OneTimeToken, clock: Clock) -> None:
    """Make room for another token, which is at hand."""
    if lost.data.get("kept"):
        require_unexpired(token, clock())
        connection.pending.set_aside("UCL refuses it, and there is another way to a token")
    elif isinstance(lost, PossibleOutage):
        connection.pending.keep_token(None)  # it was tried once more; now it is the turn of another one


def _tokens(access: OneTimeToken | DirectorAccess | None, clock: Clock) -> Iterator[OneTimeToken]:
    if isinstance(access, DirectorAccess):
        yield access.one_time_token(clock)
        yield access.one_time_token(clock)
    elif access is not None:
        yield access
