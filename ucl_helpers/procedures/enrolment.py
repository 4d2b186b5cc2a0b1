"""From what a user has (a token or access to the Director, secrets by reference) to an establishment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from ucl_helpers.connection import files
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.store import Connection
from ucl_helpers.errors import BadAnswer, CertificateRejected, Refused, RetryLater, Unreachable, UsageError
from ucl_helpers.models import OneTimeToken
from ucl_helpers.operations import CONFIGURATION, read_bearer, read_token
from ucl_helpers.procedures.establishment import DirectorAccess, Establishment
from ucl_helpers.tables import Row, Shown
from ucl_helpers.wire.client import Client
from ucl_helpers.wire.tls import check_url

Access = DirectorAccess | OneTimeToken | None
DIRECTOR = ("director_url", "tenant", "application_id", "bearer")


def access_from(given: Mapping[str, str | None], ca_file: Path | None, connection: Connection | None = None) -> Access:
    """A one-time token, access to the Director, or None when nothing is given.

    Args:
        given: ``token`` and ``bearer`` (references), ``connector_url``, ``director_url``, ``tenant``,
            ``application_id``; what is missing, None or empty counts as not given.
        ca_file: PEM of what verifies UCL's servers; None for the system's trust. Looked at here only before a token
            of the wrong length is refused.
        connection: whose interrupted establishment tells the endpoint, if neither ``given`` nor the token does.

    Raises:
        UsageError: both ways are given, or one only in part, or a token without its endpoint; names what is missing.
        Unreachable, ServerNotTrusted, CertificateRejected: the token has the wrong length, and its endpoint cannot be
            reached.
    """
    director = {name: given.get(name) or "" for name in DIRECTOR}
    token = given.get("token")
    if token and any(director.values()):
        raise UsageError("Both a token and access to the Director are given.", remedy="Give one of them.")
    if token:
        try:
            found = read_token(resolve(token, what="token"))
        except UsageError as error:
            endpoint = given.get("connector_url") or _remembered_endpoint(connection)
            if endpoint and error.data.get("is_word"):
                _require_reachable(endpoint, ca_file or (connection.pending.server_ca if connection else None))
            raise
        url = given.get("connector_url") or found.connector_url or _remembered_endpoint(connection)
        if url is None:
            raise UsageError(
                "The token does not name its endpoint.",
                remedy="Give the token-secured Connector URL as well: --connector-url https://…/connector/graphql "
                "(connectorURL in the Director's answer; legacyConnectorURL is another).",
            )
        return replace(found, connector_url=check_url(url, what="The token's endpoint"))
    if not any(director.values()):
        return None
    missing = [name for name, value in director.items() if not value]
    if missing:
        raise UsageError(f"Missing for the Director: {', '.join(missing)}.", remedy="Give all four.")
    bearer = read_bearer(resolve(director["bearer"], what="bearer"))
    return DirectorAccess(director["director_url"], director["tenant"], director["application_id"], bearer, ca_file)


def _require_reachable(url: str, ca_file: Path | None) -> None:
    """Call a token endpoint without a token, so that a proxy or a network that fails is named before the token is.

    UCL refuses such a call and uses no token up.

    Raises:
        Unreachable, ServerNotTrusted, CertificateRejected: UCL cannot be reached.
        UsageError: URL, proxy or CA file cannot be used.
    """
    check_url(url, what="The token's endpoint")
    try:
        with Client(url, "token", ca_file=ca_file, retry=False) as client:
            client.call(CONFIGURATION)
    except (Unreachable, CertificateRejected):
        raise
    except (RetryLater, Refused, BadAnswer):
        return  # an answer, whatever it says


def _remembered_endpoint(connection: Connection | None) -> str | None:
    """The token endpoint that an establishment used which now needs a new token."""
    if connection is None or not connection.path.is_dir():
        return None
    files.require_private_folder(*connection.folders)
    url = connection.pending.state.get("token_url")
    return url if isinstance(url, str) else None


@dataclass(frozen=True)
class Enrolment(Shown):
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
