"""Establish a connection with a one-time token, or with access to the Director, which issues one.

Invariants that this file keeps:

1.  The first request that carries a one-time token uses it up, so nothing is sent again blindly. A token is kept only
    if it was not sent, or if an outage may explain why it was refused.
2.  An establishment ends with a whole connection or with none. Key and CSR are kept, and
    :class:`~ucl_helpers.errors.NewTokenNeeded` says that another token is needed.
3.  An identity that UCL accepts is never replaced: that would leave two clients at UCL.
4.  Secrets come by reference and appear in no representation.
5.  A token that is known to have expired is not sent, and an interrupted run is finished before another token is used.
6.  A lost token is replaced only with access to the Director, and only once.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import ClassVar, Self

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import answered, recording_attempt
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    CertificateRejected,
    NewTokenNeeded,
    PossibleOutage,
    Refused,
    RequestRejected,
    RetryLater,
    ServerNotTrusted,
    UCLError,
    Unreachable,
    UsageError,
)
from ucl_helpers.models import Configuration, NotNeeded, OneTimeToken, Outcome, SignedCertificates, Verification
from ucl_helpers.operations import CONFIGURATION, ONE_TIME_TOKEN, read_bearer, read_token, token_from
from ucl_helpers.procedures.acceptance import UNSENT, is_accepted, may_be_outage, require_not_accepted
from ucl_helpers.procedures.procedure import STEP_WAIT_SECONDS, Procedure
from ucl_helpers.tables import Row, Tabular, moment
from ucl_helpers.urls import check_url
from ucl_helpers.wire.client import Answer, Client

_DIRECTOR = ("director_url", "tenant", "application_id", "bearer")
_NO_SCOPES, _TOKEN_LIFETIME = "insufficient scopes provided [actual=;", timedelta(minutes=5)


class Establishment(Procedure):
    """One establishment of a connection, step by step; the steps are those of a renewal."""

    kind = "establish"
    done = "established"
    idle = "already-established"
    asks_for_token = True

    _token: OneTimeToken | None = None

    @classmethod
    def begin(
        cls,
        connection: Connection,
        token: OneTimeToken | None = None,
        *,
        ca_file: Path | None = None,
        key_length: int | None = None,
        only_if_needed: bool = False,
        clock: Clock = utc_now,
    ) -> Self:
        """Read what an interrupted run left in ``pending/``, and start making the key in a thread.

        Args:
            connection: new, or one whose identity has expired or was revoked.
            token: with its token endpoint; None goes on with what an interrupted run left.
            ca_file: PEM of the CAs that verify UCL's servers; None for the system's CAs.
            key_length: RSA bits, 2048 to 8192; None for that of an interrupted run, else the connection's setting (4096
                by default).
            only_if_needed: when UCL accepts the identity in use, every step returns
                :class:`~ucl_helpers.models.NotNeeded` instead of the error.
            clock: our clock, aware, UTC.

        Raises:
            UsageError: the connection has an identity that UCL still accepts, or no token is given and none needed
                is left.
        """
        with connection.lock.held(wait=STEP_WAIT_SECONDS):
            files.require_links(connection.path, connection.path / "current")  # before a token is used up
            establishment = cls(connection, bits=key_length, server_ca=ca_file, clock=clock)
            establishment._token = token
            if establishment._is_signed():  # UCL has another client by now: it is finished, whatever else is accepted
                establishment.start_key()
                return establishment
            if token is not None and not establishment.can_go_on():
                require_unexpired(token, clock())
            with recording_attempt(connection, clock):  # so that a refusal has a beginning, and an end
                if only_if_needed and is_accepted(connection, clock):
                    until = connection.require_current().validity.not_after
                    establishment.not_needed = NotNeeded(until, "established, and UCL accepts its certificate")
                    return establishment
                if not only_if_needed:
                    require_not_accepted(connection, clock)
            if token is not None or establishment.pending.read_state():
                establishment.start_key()
            return establishment

    def _is_signed(self) -> bool:
        state, base = self.pending.read_state(), self._base.stem if self._base else None
        return (state.kind, state.base) == (self.kind, base) and self.pending.answer() is not None

    def can_go_on(self) -> bool:
        """Return whether an interrupted run left an answer, or a token that is not used yet."""
        return self.pending.answer() is not None or self.pending.token() is not None

    def _ask_configuration(self, operation: str, variables: Mapping[str, str]) -> Answer:
        if self._token is None:
            raise NewTokenNeeded(
                f"{self.connection.name} is not established and no one-time token is at hand.",
                remedy=f"Get a one-time token, then run: {self._command_with_new_token()}",
            )
        if self._token.connector_url is None:
            raise UsageError("The token's endpoint is not known.", remedy="Give --connector-url.")
        try:
            return self._call(self._token.token, self._token.connector_url, operation, variables)
        except AuthenticationFailed as error:
            advice = f"To go on with a new one: {self._command_with_new_token()}"
            if self._token.expires_at is None or not may_be_outage(error):
                raise error.replaced(remedy=f"{error.remedy} {advice}") from None
            raise PossibleOutage(
                error.message,
                remedy=f"The token expires at {moment(self._token.expires_at)}. Until then, trying it once more costs "
                f"nothing; if it is refused again, get a new one-time token. {advice}",
                **error.data,
                token_lost=True,
            ) from None
        except RetryLater as error:
            if error.data.keys() & UNSENT:
                raise
            remedy = (
                f"{error.remedy} If the request arrived, its token is used up: then get a new one, and run: "
                f"{self._command_with_new_token()}"
            )
            raise error.replaced(remedy=remedy, token_lost=True) from None

    def _sign(self) -> SignedCertificates:
        if self.pending.answer() is None:
            self._kept_token()  # without one nothing leaves, so it is not noted as sent
        return super()._sign()

    def _kept_token(self) -> tuple[str, str]:
        token = self.pending.token()
        url = self.pending.read_state().token_url or (self._token.connector_url if self._token else None)
        if token is None or url is None:
            raise NewTokenNeeded(
                "The one-time token from configuration is used up or older than 5 minutes.",
                remedy=self._new_token_remedy(),
            )
        return token, url

    def _ask_signature(self, operation: str, variables: Mapping[str, str]) -> Answer:
        token, url = self._kept_token()
        self.pending.keep_token(None)  # the request that carries it uses it up, whatever comes back
        try:
            answer = self._call(token, url, operation, variables)
        except (ServerNotTrusted, UsageError):
            self.pending.keep_token(token)  # nothing was sent
            raise
        except AuthenticationFailed as error:
            if not may_be_outage(error):
                raise self._token_used_up(error) from None
            self.pending.keep_token(token)
            raise PossibleOutage(
                error.message,
                remedy="Key, CSR and token are kept. Run it again within five minutes: trying the token once more "
                f"costs nothing. After that, get a new one-time token and run: {self._command_with_new_token()}",
                **error.data,
                token_lost=True,
            ) from None
        except (RetryLater, BadAnswer) as error:
            if "proxy" in error.data:
                self.pending.keep_token(token)
                raise
            raise self._token_used_up(error) from None
        answered(self.connection)  # what UCL refused before was another certificate than the one that it signs now
        return answer

    def _token_used_up(self, error: UCLError) -> NewTokenNeeded:
        problem = f"The signing request went wrong and its token is gone: {error.message}"
        return NewTokenNeeded(problem, remedy=self._new_token_remedy(), **error.data)

    def _new_token_remedy(self) -> str:
        return f"Key and CSR are kept. Get a new one-time token, then run: {self._command_with_new_token()}"

    def _command_with_new_token(self) -> str:
        """Return the command that goes on with a new token, without the options that ``pending/`` remembers."""
        connection, state = self.connection, self.pending.read_state()
        words = shlex.split(connection.establish_command())
        if not connection.is_sandbox:
            url = self._token.connector_url if self._token else None
            words += ["--token", "prompt"]
            words += [] if state.token_url else ["--connector-url", url or "https://…/connector/graphql"]
            words += ["--ca-file", str(self._server_ca)] if self._server_ca and not self.pending.server_ca else []
        if Home().path != connection.home.path:
            words += ["--home", str(connection.home.path)]
        return shlex.join(words)

    def _call(self, token: str, url: str, operation: str, variables: Mapping[str, str]) -> Answer:
        headers, ca = {"connector-token": token}, self._server_ca or self.pending.server_ca
        with Client(url, "token", ca_file=ca, headers=headers, retry=False) as client:
            return client.call(operation, variables)

    def _consent(self, configuration: Configuration) -> None:
        """Check that the new identity can be verified. Its subject is new, so there is nothing to consent to.

        Raises:
            BadAnswer: UCL names no certificate endpoint, or one that is not https. Nothing was signed.
        """
        # UCL has just accepted the token, so it is up: what it refused a moment ago may be accepted by now.
        require_not_accepted(self.connection, self._clock)
        url, nothing_done = configuration.certificate_secured_connector_url, "Nothing was signed; report it to UCL."
        if url is None:
            raise BadAnswer("UCL names no certificate endpoint.", remedy=nothing_done)
        try:
            check_url(url, what="The certificate endpoint that UCL names")
        except UsageError as error:
            raise BadAnswer(error.message, remedy=nothing_done) from None

    def _fallback(self) -> None:
        """Return None: UCL does not accept the identity in use, or there is none."""

    def _still_refused(self, error: UCLError) -> UCLError:
        name = self.connection.name
        advice = (
            f"{self.connection.establish_command(again=True)} gives it up and begins again with a new one-time token."
        )
        remedy = (
            f"The new identity is kept. Ask UCL's operator whether there is an outage. If there is one, wait: ucl "
            f"establish {name} tries the identity again. If there is none, it is lost: {advice}"
            if may_be_outage(error)
            else f"{error.remedy} The new identity is kept, and ucl establish {name} tries it again. Or {advice}"
        )
        return error.replaced(remedy=remedy, kept=True)

    def _new_host(self, _: Configuration) -> None:
        """Accept any host: UCL names it for the first time, on a call to the endpoint that the user gave."""

    def _verify(self) -> Verification:
        try:
            return super()._verify()
        except (Unreachable, BadAnswer) as error:
            name = self.connection.name
            advice = (
                f"If it stays so, UCL named a wrong endpoint: ucl forget {name} --even-if-valid, and establish anew."
            )
            raise error.replaced(remedy=f"{error.remedy} {advice}") from None

    def _configuration(self) -> Configuration:
        configuration = super()._configuration()
        if self._token and self._token.connector_url:
            self.pending.update(token_url=self._token.connector_url)
        return configuration


def require_unexpired(token: OneTimeToken, now: datetime) -> None:
    """Refuse a token that has expired, before it is sent.

    Raises:
        UsageError: it has expired by our clock.
    """
    if token.expires_at is not None and token.expires_at <= now:
        raise UsageError(
            f"The one-time token expired at {moment(token.expires_at)}; by this machine's clock it is {moment(now)}.",
            remedy="Get a new one-time token. It was not sent.",
        )


# -- from a token, or from access to the Director, to an established connection ----------------------------------------


@dataclass(frozen=True)
class DirectorAccess:
    """Access to the Director, which issues one-time tokens. No representation shows the bearer."""

    url: str
    tenant: str
    application_id: str
    bearer: str = field(repr=False)
    ca_file: Path | None = None

    def one_time_token(self, clock: Clock = utc_now) -> OneTimeToken:
        """Get a new one-time token (valid for five minutes) and the token endpoint.

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
                    remedy="Wait and run it again. If UCL still refuses, the bearer has no scopes. Get another one.",
                    **error.data,
                    outage="possible",
                ) from None
        token = token_from(answer.result)
        return replace(token, expires_at=token.expires_at or clock() + _TOKEN_LIFETIME)


Access = DirectorAccess | OneTimeToken | None


def access_from(given: Mapping[str, str | None], ca_file: Path | None, connection: Connection | None = None) -> Access:
    """Return a one-time token, access to the Director, or None when nothing is given.

    Args:
        given: ``token`` and ``bearer`` (references), ``connector_url``, ``director_url``, ``tenant``,
            ``application_id``; what is missing, None or empty counts as not given.
        ca_file: PEM of the CAs that verify UCL's servers; None for the system's CAs.
        connection: its interrupted establishment names the endpoint if neither ``given`` nor the token does.

    Raises:
        UsageError: both ways are given, or one only in part, or a token without its endpoint; names what is missing.
    """
    director = {name: given.get(name) or "" for name in _DIRECTOR}
    token = given.get("token")
    if token and any(director.values()):
        raise UsageError("Both a token and access to the Director are given.", remedy="Give one of them.")
    if token:
        try:
            one_time_token = read_token(resolve(token, what="token"))
        except UsageError as error:
            endpoint = given.get("connector_url") or _remembered_endpoint(connection)
            if endpoint and error.data.get("is_word"):  # a proxy or network that fails is named first
                _require_reachable(endpoint, ca_file or (connection.pending.server_ca if connection else None))
            raise
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


def _require_reachable(url: str, ca_file: Path | None) -> None:
    """Call a token endpoint without a token, which UCL refuses and which uses no token up.

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
    """Return the token endpoint of an interrupted establishment that needs a new token."""
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

    title: ClassVar[str] = "How to establish it"

    def begin(self, *, key_length: int | None = None) -> Establishment:
        """Begin to establish; a token is fetched only if one is needed. See :meth:`Establishment.begin`."""
        resumed = Establishment.begin(
            self.connection, None, ca_file=self.ca_file, key_length=key_length, only_if_needed=True
        )
        if resumed.not_needed or resumed.can_go_on():
            return resumed
        access = self.access
        token = access.one_time_token() if isinstance(access, DirectorAccess) else access
        return Establishment.begin(self.connection, token, ca_file=self.ca_file, key_length=key_length)

    def rows(self) -> list[Row]:
        """Return the rows of the table, without secrets."""
        if isinstance(self.access, DirectorAccess):
            way = f"the Director at {self.access.url} issues a one-time token"
        elif self.access is not None:
            way = f"a one-time token for {self.access.connector_url or 'an endpoint still to be named'}"
        else:
            way = "none given; an interrupted run is resumed"
        return [
            ("connection", self.connection.name + (" (sandbox, for practice)" if self.connection.is_sandbox else "")),
            ("established", "yes" if self.connection.current else "not yet"),
            ("access", way),
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

    With access to the Director a lost token is replaced, once.
    """
    failure: UCLError | None = None
    with connection.lock.held():
        # First resume an interrupted run, because its token may be the same as the one in this call.
        for token in chain([None], _tokens(access, clock)):  # the Director is asked before anything is given up
            if token is not None and failure is not None:
                _give_up(connection, failure, token, clock)
            try:
                return Establishment.begin(connection, token, ca_file=ca_file, key_length=key_length, clock=clock).run()
            except (NewTokenNeeded, RetryLater, Refused) as error:
                kept_identity = token is None and error.data.get("kept")
                if not (kept_identity or isinstance(error, NewTokenNeeded) or error.data.get("token_lost")):
                    raise
                failure = error
    if isinstance(failure, NewTokenNeeded) and isinstance(access, DirectorAccess):
        remedy = "Key and CSR are kept. Run the same command again: it gets a new one-time token from the Director."
        raise NewTokenNeeded(failure.message, remedy=remedy, **failure.data)
    raise failure or AssertionError("the first try either returns or raises")


def _give_up(connection: Connection, failure: UCLError, token: OneTimeToken, clock: Clock) -> None:
    """Give up what failed, because another token is at hand."""
    if failure.data.get("kept"):
        require_unexpired(token, clock())
        connection.pending.set_aside("UCL refuses it, and there is another way to a token")
    elif isinstance(failure, PossibleOutage):
        connection.pending.keep_token(None)  # it was tried once more; now it is the turn of another one


def _tokens(access: OneTimeToken | DirectorAccess | None, clock: Clock) -> Iterator[OneTimeToken]:
    if isinstance(access, DirectorAccess):
        yield access.one_time_token(clock)
        yield access.one_time_token(clock)
    elif access is not None:
        yield access
