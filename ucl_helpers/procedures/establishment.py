"""Establish a connection with a one-time token, step by step.

Invariants that this file keeps:

1.  The first request that carries a one-time token uses it up, so nothing is sent again blindly. A token is kept only
    if it was not sent, or if an outage may explain why it was refused.
2.  An establishment ends with a whole connection or with none. Key and CSR are kept, and
    :class:`~ucl_helpers.errors.NewTokenNeeded` says that another token is needed.
3.  An identity that UCL accepts is never replaced: that would leave two clients at UCL.
"""

import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Self

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.attempts import answered, recording_attempt
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    NewTokenNeeded,
    PossibleOutage,
    RetryLater,
    ServerNotTrusted,
    UCLError,
    Unreachable,
    UsageError,
)
from ucl_helpers.models import Configuration, NotNeeded, OneTimeToken, SignedCertificates, Verification
from ucl_helpers.procedures.acceptance import is_accepted, may_be_outage, require_not_accepted
from ucl_helpers.procedures.procedure import STEP_WAIT_SECONDS, Procedure
from ucl_helpers.tables import moment
from ucl_helpers.urls import check_url
from ucl_helpers.wire.client import Answer, Client


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
        """Look at what an interrupted run left; start making the key in a thread.

        Args:
            connection: new, or one whose identity has expired or was revoked.
            token: with its token endpoint; None goes on with what an interrupted run left.
            ca_file: PEM of what verifies UCL's servers; None for the system's trust.
            key_length: RSA bits, 2048 to 8192; None for the connection's setting (4096 by default).
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
        """True when an interrupted run left an answer, or a token that is not used yet."""
        return self.pending.answer() is not None or self.pending.token() is not None

    def _ask_configuration(self, operation: str, variables: Mapping[str, str]) -> Answer:
        if self._token is None:
            raise NewTokenNeeded(
                f"{self.connection.name} is not established and no one-time token is at hand.",
                remedy=f"Get a one-time token, then run: {self._with_a_new_token()}",
            )
        if self._token.connector_url is None:
            raise UsageError("The token's endpoint is not known.", remedy="Give --connector-url.")
        try:
            return self._call(self._token.token, self._token.connector_url, operation, variables)
        except AuthenticationFailed as error:
            anew = f"To go on with a new one: {self._with_a_new_token()}"
            if self._token.expires_at is None or not may_be_outage(error):
                raise AuthenticationFailed(error.message, remedy=f"{error.remedy} {anew}", **error.data) from None
            raise PossibleOutage(
                error.message,
                remedy=f"The token expires at {moment(self._token.expires_at)}. Until then, trying it once more costs "
                f"nothing; if it is refused again, get a new one-time token. {anew}",
                **error.data,
                token_lost=True,
            ) from None
        except RetryLater as error:
            if "proxy" in error.data:  # it did not connect, so nothing was sent
                raise
            remedy = (
                f"{error.remedy} If the request arrived, its token is used up: then get a new one, and run: "
                f"{self._with_a_new_token()}"
            )
            raise type(error)(error.message, remedy=remedy, **error.data, token_lost=True) from None

    def _sign(self) -> SignedCertificates:
        if self.pending.answer() is None:
            self._kept_token()  # without one nothing leaves, so it is not noted as sent
        return super()._sign()

    def _kept_token(self) -> tuple[str, str]:
        token = self.pending.token()
        url = self.pending.read_state().token_url or (self._token.connector_url if self._token else None)
        if token is None or url is None:
            raise NewTokenNeeded(
                "The one-time token from configuration is used up or older than 5 minutes.", remedy=self._get_one()
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
                raise self._gone(error) from None
            self.pending.keep_token(token)
            raise PossibleOutage(
                error.message,
                remedy="Key, CSR and token are kept. Run it again within five minutes: trying the token once more "
                f"costs nothing. After that, get a new one-time token and run: {self._with_a_new_token()}",
                **error.data,
                token_lost=True,
            ) from None
        except (RetryLater, BadAnswer) as error:
            if "proxy" in error.data:
                self.pending.keep_token(token)
                raise
            raise self._gone(error) from None
        answered(self.connection)  # what UCL refused before was another certificate than the one that it signs now
        return answer

    def _gone(self, error: UCLError) -> NewTokenNeeded:
        what = f"The signing request went wrong and its token is gone: {error.message}"
        return NewTokenNeeded(what, remedy=self._get_one(), **error.data)

    def _get_one(self) -> str:
        return f"Key and CSR are kept. Get a new one-time token, then run: {self._with_a_new_token()}"

    def _with_a_new_token(self) -> str:
        """The whole command that goes on with a new token; what ``pending/`` remembers is left out of it."""
        connection, kept = self.connection, self.pending.read_state()
        words = shlex.split(connection.establish_command)
        if not connection.is_sandbox:
            url = self._token.connector_url if self._token else None
            words += ["--token", "prompt"]
            words += [] if kept.token_url else ["--connector-url", url or "https://…/connector/graphql"]
            words += ["--ca-file", str(self._server_ca)] if self._server_ca and not self.pending.server_ca else []
        if self.bits != connection.read_settings().key_length:  # with another length the kept key would not be used
            words += ["--key-length", str(self.bits)]
        if Home().path != connection.home.path:
            words += ["--home", str(connection.home.path)]
        return shlex.join(words)

    def _call(self, token: str, url: str, operation: str, variables: Mapping[str, str]) -> Answer:
        headers, ca = {"connector-token": token}, self._server_ca or self.pending.server_ca
        with Client(url, "token", ca_file=ca, headers=headers, retry=False) as client:
            return client.call(operation, variables)

    def _consent(self, configuration: Configuration) -> None:
        """A new client id, so a new subject: nothing to consent to. But a way to verify it there has to be.

        Raises:
            BadAnswer: UCL names no certificate endpoint, or one that is not https. Nothing was signed.
        """
        # UCL has just accepted the token, so it is up: what it refused a moment ago may be accepted by now.
        require_not_accepted(self.connection, self._clock)
        told, nothing_done = configuration.certificate_secured_connector_url, "Nothing was signed; report it to UCL."
        if told is None:
            raise BadAnswer("UCL names no certificate endpoint.", remedy=nothing_done)
        try:
            check_url(told, what="The certificate endpoint that UCL names")
        except UsageError as error:
            raise BadAnswer(error.message, remedy=nothing_done) from None

    def _fallback(self) -> None:
        """None: UCL does not accept the identity in use, or there is none."""

    def _still_refused(self, error: UCLError) -> UCLError:
        name = self.connection.name
        anew = f"with a new one-time token, {self.connection.establish_command} gives it up and begins again."
        remedy = (
            f"The new identity is kept. Ask UCL's operator whether there is an outage. If there is one, wait: ucl "
            f"establish {name} tries the identity again. If there is none, it is lost: {anew}"
            if may_be_outage(error)
            else f"{error.remedy} The new identity is kept, and ucl establish {name} tries it again. Or {anew}"
        )
        return type(error)(error.message, remedy=remedy, **error.data, kept=True)

    def _new_host(self, _: Configuration) -> None:
        """UCL names the host for the first time, on a call to the endpoint that the user gave: any host is right."""

    def _verify(self) -> Verification:
        try:
            return super()._verify()
        except (Unreachable, BadAnswer) as error:
            name = self.connection.name
            anew = f"If it stays so, UCL named a wrong endpoint: ucl forget {name} --even-if-valid, and establish anew."
            raise type(error)(error.message, remedy=f"{error.remedy} {anew}", **error.data) from None

    def _configuration(self) -> Configuration:
        configuration = super()._configuration()
        if self._token and self._token.connector_url:
            self.pending.update(token_url=self._token.connector_url)
        return configuration


def require_unexpired(token: OneTimeToken, now: datetime) -> None:
    """A token that says when it expires is not sent after that.

    Raises:
        UsageError: it has expired by our clock.
    """
    if token.expires_at is not None and token.expires_at <= now:
        raise UsageError(
            f"The one-time token expired at {moment(token.expires_at)}; by this machine's clock it is {moment(now)}.",
            remedy="Get a new one-time token. It was not sent.",
        )
